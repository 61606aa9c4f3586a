import { RIP } from './address.ts';
import type { Insn, MemOperand, OperandForm } from './types.ts';

const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;
const LEGACY = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'] as const;
const LOW_BYTES = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'] as const;
const HIGH_BYTES = ['ah', 'ch', 'dh', 'bh'] as const;
const WIDTHS: Readonly<Record<number, string>> = {
  1: 'BYTE PTR ',
  2: 'WORD PTR ',
  4: 'DWORD PTR ',
  6: 'FWORD PTR ',
  8: 'QWORD PTR ',
  10: 'TBYTE PTR ',
  16: 'XMMWORD PTR ',
  32: 'YMMWORD PTR ',
};
const SS = 2;
const DS = 3;
const RSP = 4;
const RBP = 5;

/** Where our names, one for each operation, differ from what is written in assembly. */
const SPELLINGS: Readonly<Record<string, string>> = {
  imul1: 'imul',
  fstp1: 'fstp',
  fneni: 'fnop',
  imul2: 'imul',
  imul3: 'imul',
  jmp_ind: 'jmp',
  call_ind: 'call',
  push_seg: 'push',
  pop_seg: 'pop',
  fnstsw_ax: 'fnstsw',
  wait: 'fwait',
  callf: 'call',
  jmpf: 'jmp',
};
const BY_SIZE: Readonly<Record<string, readonly [string, string, string]>> = {
  cbw: ['cbw', 'cwde', 'cdqe'],
  cwd: ['cwd', 'cdq', 'cqo'],
  iret: ['iretw', 'iret', 'iretq'],
  retf: ['retfw', 'retf', 'retfq'],
  leave: ['leavew', 'leave', 'leave'],
  enter: ['enterw', 'enter', 'enter'],
  pushf: ['pushfw', 'pushf', 'pushf'],
  popf: ['popfw', 'popf', 'popf'],
  sysret: ['sysretd', 'sysretd', 'sysretq'],
  sysexit: ['sysexitd', 'sysexitd', 'sysexitq'],
  jrcxz: ['jcxz', 'jecxz', 'jrcxz'],
};
const STRINGS: ReadonlySet<string> = new Set(['movs', 'cmps', 'stos', 'lods', 'scas', 'ins', 'outs']);
/** Instructions with a variant for 64-bit state images. */
const WIDE_IMAGES: ReadonlySet<string> = new Set(['fxsave', 'fxrstor', 'xsave', 'xrstor', 'xsaveopt', 'xsavec', 'xsaves', 'xrstors']);

function third(size: number): 0 | 1 | 2 {
  return size === 2 ? 0 : size === 8 ? 2 : 1;
}

/** Assembly mnemonic of an instruction. */
function mnemonic(insn: Insn): string {
  const { name } = insn.row;
  const bySize = BY_SIZE[name];
  if (bySize !== undefined) return bySize[third(name === 'jrcxz' ? insn.addrSize : insn.opSize)];
  if (STRINGS.has(name)) return name + ('bwdq'[Math.log2(insn.opSize)] ?? '');
  if (WIDE_IMAGES.has(name) && insn.opSize === 8) return `${name}64`;
  const spelling = SPELLINGS[name];
  if (spelling !== undefined) return spelling;
  if (name.startsWith('mov_')) return 'mov';
  const condition = /^(j|set|cmov)(n?)z$/.exec(name);
  if (condition !== null) return `${condition[1]}${condition[2]}e`;
  return name.replace(/_(?:mmx|m16|m32|m64|m80|st0_sti|sti_st0|sti)$/, '');
}

/** General register by number, as an operand of `size` bytes; `rex` as in `Insn`. */
export function registerName(n: number, size: number, rex: boolean): string {
  if (size === 1 && !rex && n >= 4 && n < 8) return HIGH_BYTES[n - 4] ?? '';
  if (n >= 8) return `r${n}${size === 1 ? 'b' : size === 2 ? 'w' : size === 4 ? 'd' : ''}`;
  if (size === 1) return LOW_BYTES[n] ?? '';
  return (size === 8 ? 'r' : size === 4 ? 'e' : '') + (LEGACY[n] ?? '');
}

function hex(n: number | bigint): string {
  return `0x${n.toString(16)}`;
}

/** Signed displacement with its sign, '' for none. */
function signed(disp: number): string {
  return disp < 0 ? `-${hex(-disp)}` : `+${hex(disp)}`;
}

/** `vectorIndex`: name of the index register's file, for vector-indexed operands. */
function formatAddress(mem: MemOperand, addrSize: number, vectorIndex?: string): string {
  const register = (n: number): string => (n === RIP ? `${addrSize === 8 ? 'r' : 'e'}ip` : registerName(n, addrSize, true));
  const terms: string[] = [];
  if (mem.base >= 0) terms.push(register(mem.base));
  if (vectorIndex !== undefined) terms.push(`${vectorIndex}${mem.index}*${1 << mem.scale}`);
  else if (mem.index >= 0) terms.push(register(mem.index) + (addrSize === 2 ? '' : `*${1 << mem.scale}`));
  if (terms.length === 0) {
    const low = BigInt(mem.disp >>> 0);
    const high = mem.dispHigh ?? (addrSize === 8 ? mem.disp >> 31 : 0);
    const offset = addrSize === 2 ? low & 0xffffn : (BigInt(high >>> 0) << 32n) | low;
    return `${SEGMENTS[mem.seg] ?? '?'}:${hex(offset)}`;
  }
  const disp = mem.disp === 0 && mem.base !== RIP ? '' : signed(mem.disp);
  const plain = mem.seg === (mem.base === RSP || mem.base === RBP ? SS : DS);
  return `${plain ? '' : `${SEGMENTS[mem.seg] ?? '?'}:`}[${terms.join('+')}${disp}]`;
}

/** Immediate as an unsigned number of `size` bytes. */
function immediate(insn: Insn, size: number): bigint {
  const value = (BigInt(insn.immHigh) << 32n) | BigInt(insn.immLow >>> 0);
  return BigInt.asUintN(Math.max(size, 1) * 8, value);
}

/** Number of the register an operand names. */
function registerOf(insn: Insn, o: OperandForm): number {
  switch (o.field) {
    case 'reg':
      return insn.reg;
    case 'rm':
      return insn.rm;
    case 'vvvv':
      return insn.vvvv;
    case 'is4':
      return (insn.immLow >> 4) & 15;
    default:
      return o.fixed ?? 0;
  }
}

/** A vector-indexed operand: the size of an element, and whether indexes fill a ymm register, follow from the row. */
function gathered(insn: Insn, mem: MemOperand): string {
  const element = insn.row.w === 1 ? 8 : 4;
  const index = insn.row.operands[1] === 'vm64x' ? 8 : 4;
  const wide = insn.vl === 32 && index >= element;
  return (WIDTHS[element] ?? '') + formatAddress(mem, insn.addrSize, wide ? 'ymm' : 'xmm');
}

function formatOperand(insn: Insn, o: OperandForm, position: number, rip: bigint | undefined): string {
  switch (o.kind) {
    case 'gpr':
      return registerName(registerOf(insn, o), o.size, insn.rex);
    case 'xmm':
      return `${o.size === 32 ? 'ymm' : 'xmm'}${registerOf(insn, o)}`;
    case 'cr':
    case 'dr':
      return `${o.kind}${registerOf(insn, o)}`;
    case 'mmx':
      return `mm${registerOf(insn, o)}`;
    case 'st':
      return o.field === 'fixed' ? 'st' : `st(${insn.rm})`;
    case 'seg':
      return SEGMENTS[registerOf(insn, o)] ?? '?';
    case 'mem':
      if (o.field === 'vsib' && insn.mem !== null) return gathered(insn, insn.mem);
      return (insn.row.operands[position] === 'Ms' ? '' : (WIDTHS[o.size] ?? '')) + (insn.mem === null ? '?' : formatAddress(insn.mem, insn.addrSize));
    case 'far':
      return `${hex(insn.imm2)}:${hex(insn.immLow >>> 0)}`;
    case 'imm':
      // ENTER's second immediate.
      if (position > 0 && insn.operands[position - 1]?.kind === 'imm') return hex(insn.imm2);
      return o.field === 'fixed' ? String(o.fixed) : hex(immediate(insn, o.size));
    case 'rel': {
      const target = BigInt(insn.length) + BigInt(insn.immLow);
      if (rip === undefined) return `.${target < 0n ? '-' : '+'}${hex(target < 0n ? -target : target)}`;
      return hex(BigInt.asUintN(insn.opSize * 8, rip + target));
    }
  }
}

/**
 * Assembly text of an instruction, Intel syntax as `objdump -M intel` writes it where that is cheap.
 *
 * @param rip address of the instruction, for the targets of relative branches; without it they are written `.+0x10`,
 *   relative to the instruction's own address.
 */
export function formatInsn(insn: Insn, rip?: bigint): string {
  const prefix =
    (insn.lock ? 'lock ' : '') + (insn.rep === 0 ? '' : insn.rep === 2 ? 'repnz ' : insn.row.name === 'cmps' || insn.row.name === 'scas' ? 'repz ' : 'rep ');
  const operands = insn.operands.map((o, i) => formatOperand(insn, o, i, rip)).join(',');
  return operands === '' ? prefix + mnemonic(insn) : `${prefix}${mnemonic(insn)} ${operands}`;
}
