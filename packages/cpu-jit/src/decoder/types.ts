/** Shapes shared by the decoder tables, the decoder, the semantics and both emitters. */

/** Opcode maps: one-byte, 0F, 0F 38, 0F 3A, x87 (D8..DF, keyed by escape byte). */
export type OpcodeMap = '1' | '0f' | '0f38' | '0f3a' | 'x87';

/**
 * Operand names as in the Intel SDM, vol. 2, appendix A.2. Sizes: b 8, w 16, d 32, q 64, v 16/32/64 by
 * operand size, y 32/64, z imm 16/32, x 128. Fixed registers by name: AL CL AX eAX rAX rCX rDX DX, rAX..rDI
 * through the opcode's low three bits as `Zv`/`Zb`; `1` the constant one; Ob/Ov moffs; Xb/Xv Yb/Yv string
 * operands; Sw segment register; Cd/Dd control/debug register; M memory of row-specific size; Mb Mw Md Mq Mdq;
 * Vx Wx Ux Hx XMM (with explicit scalar sizes Vss Wss Vsd Wsd Vd Wd Vq Wq Vdq Wdq Vqq: the size of the memory access; in
 * VEX rows `x` is the vector length, 128 or 256 bits, and `xh` `xq` `xo` are a half, quarter, eighth of it), Lx the register in
 * bits 7:4 of an immediate byte, vm32x vm64x memory with a vector of 32- or 64-bit indexes,
 * Pq Qq Nq MMX; ST0 STi; Jb Jz relative; Ap far pointer; Mp far pointer in memory; sIb sign-extended Ib.
 */
export type OperandSpec = string;

/** One line of the decoder tables. */
export interface Row {
  readonly map: OpcodeMap;
  /** Opcode byte (for `Z*` operands: the first of eight). */
  readonly op: number;
  /** ModRM.reg for opcode groups. */
  readonly ext?: number;
  /** Needs ModRM.mod = 3 (`reg`) or != 3 (`mem`). */
  readonly mod?: 'reg' | 'mem';
  /** ModRM.rm, for encodings such as 0F 01 F9. */
  readonly rm?: number;
  /** Mandatory prefix: NP, 66, F3, F2; NFx: neither F2 nor F3 may be there. Absent: prefixes keep their usual meaning. */
  readonly pfx?: 'np' | '66' | 'f3' | 'f2' | 'nfx';
  /** Mnemonic, lower case; the name of the semantics function. */
  readonly name: string;
  readonly operands: readonly OperandSpec[];
  /** Operand size in 64-bit mode: `d64` default 64 (16 with 66), `f64` always 64, `b` 8 bits,
   *  `n64` 64 there and 32 elsewhere, whatever the prefixes; `v` 16/32/64, `y` 32/64 (66 ignored), `z` 16/32 (REX.W
   *  ignored) for rows whose operands do not say so. Absent: as the operands' suffixes say (v: 32, 16 with 66, 64 with
   *  REX.W); rows without a size-dependent operand always have operand size 4. */
  readonly size?: 'd64' | 'f64' | 'b' | 'n64' | 'v' | 'y' | 'z';
  /** REX.W must be this. */
  readonly w?: 0 | 1;
  /** LOCK allowed (with a memory destination). */
  readonly lock?: true;
  /** Takes REP/REPE/REPNE: the prefix is a part of the form. */
  readonly rep?: true;
  /** Address size is a part of the form (LOOP, JrCXZ, string instructions, XLAT, MASKMOV). */
  readonly asz?: true;
  /** `i64`: invalid in 64-bit mode; `o64`: only there. */
  readonly mode?: 'i64' | 'o64';
  /** CPUID feature that must be reported for the row to exist; absent: baseline x86-64. */
  readonly feature?: string;
  /** Status flags left undefined by the SDM, a subset of 'oszapc', for tests. */
  readonly undef?: string;
  /** Ends a block (any change of control flow, of mode, or of translation). */
  readonly end?: true;
  /** VEX-encoded; L: 0/1 when it must be. */
  readonly vex?: true;
  readonly l?: 0 | 1;
}

/** Where an operand's register number or value comes from. */
export type OperandField = 'reg' | 'rm' | 'vvvv' | 'is4' | 'vsib' | 'fixed' | 'imm' | 'mem' | 'none';
export type OperandKind = 'gpr' | 'xmm' | 'mmx' | 'st' | 'seg' | 'cr' | 'dr' | 'mem' | 'imm' | 'rel' | 'far';

/** An operand of a form (row x operand size x register/memory): all that is known without the bytes. */
export interface OperandForm {
  readonly kind: OperandKind;
  readonly field: OperandField;
  /** Bytes: 1, 2, 4, 8, 10, 16, ... For xmm registers the size that is accessed (4 for Vss, ...). */
  readonly size: number;
  /** Register number when `field` is `fixed`; value when kind is `imm` and field `fixed`. */
  readonly fixed?: number;
}

export type OpSize = 1 | 2 | 4 | 8;
export type AddrSize = 2 | 4 | 8;
export type VectorLength = 16 | 32;
/** 0 none, 2 REPNE (F2), 3 REP/REPE (F3). */
export type Rep = 0 | 2 | 3;

/** What both emitters need to know of an instruction before they see its bytes. */
export interface Form {
  readonly row: Row;
  readonly rowIndex: number;
  readonly opSize: OpSize;
  readonly addrSize: AddrSize;
  readonly isMem: boolean;
  readonly rep: Rep;
  /** Vector length in bytes: 32 with VEX.L where the row's operands depend on it, else 16. */
  readonly vl: VectorLength;
  readonly operands: readonly OperandForm[];
}

/** Memory operand: seg:[base + index * scale + disp]. */
export interface MemOperand {
  /** GPR number, -1 none, 16 RIP. */
  readonly base: number;
  readonly index: number;
  /** log2 of the scale. */
  readonly scale: number;
  /** Signed 32 bits. For a 64-bit moffs the upper half is `dispHigh`. */
  readonly disp: number;
  readonly dispHigh?: number;
  /** Segment register ES..GS that applies (after defaults and overrides). */
  readonly seg: number;
}

/** A decoded instruction. */
export interface Insn extends Form {
  /** Bytes, 1..15. */
  readonly length: number;
  readonly lock: boolean;
  /** Bit 0 W, etc. are consumed; true when any REX prefix was present (changes what registers 4..7 of byte size mean). */
  readonly rex: boolean;
  /** ModRM.reg with REX.R; ModRM.rm with REX.B when a register (or the opcode register); VEX.vvvv. */
  readonly reg: number;
  readonly rm: number;
  readonly vvvv: number;
  readonly mem: MemOperand | null;
  /** Segment of `mem`, or of the implicit operand of a string instruction, XLAT, MASKMOV, MONITOR: DS unless overridden. */
  readonly seg: number;
  /** Immediate or displacement, sign-extended to 64 bits, as two signed 32-bit halves. */
  readonly immLow: number;
  readonly immHigh: number;
  /** Second immediate (ENTER's level, far pointer's selector). */
  readonly imm2: number;
}

/** Why bytes did not decode. `fetch`: more bytes are needed than were given; `ud`: #UD; `gp`: longer than 15 bytes. */
export type DecodeFailure = 'fetch' | 'ud' | 'gp';
