/** Random instructions of a form, for generated programs and vectors. */
import { type CodeSize, decode } from '../src/decoder/index.ts';
import type { AddrSize, Form, Insn } from '../src/decoder/types.ts';
import { type Encoded, encode, type Fields, type MemoryChoice, type SegmentOverride } from './encoder.ts';
import type { Prng } from './prng.ts';

/** Rows whose result depends on the machine, need privilege, or leave user mode in ways a native run cannot follow. */
const EXCLUDED = new Set(
  (
    'in out ins outs hlt cli sti push_seg pop_seg mov_r_seg mov_seg_r lar lsl verr verw sldt str sgdt sidt smsw lldt ltr lgdt lidt lmsw invlpg cpuid rdtsc rdtscp rdpmc rdrand ' +
    'rdseed rdpid rdmsr wrmsr swapgs clts invd wbinvd mov_r_cr mov_cr_r mov_r_dr mov_dr_r monitor mwait xgetbv xsetbv rdpkru wrpkru clac stac syscall sysret sysenter sysexit ' +
    'rsm vmcall vmlaunch vmresume vmxoff vmxon vmfunc vmrun vmmcall vmload vmsave stgi clgi skinit invlpga vmread vmwrite vmptrld vmptrst vmclear invept invvpid invpcid fxsave ' +
    'fxrstor xsave xrstor xsaveopt xsavec xsaves xrstors ldmxcsr stmxcsr rdfsbase rdgsbase wrfsbase wrgsbase callf jmpf retf iret int int1 int3 into lss lfs lgs clflush clflushopt clwb'
  ).split(' '),
);

export type Kind = 'integer' | 'sse' | 'avx' | 'x87' | 'mmx';

/** Which part of the tables a form belongs to; undefined: left out of generated tests. */
export function kindOf(form: Form): Kind | undefined {
  const { row } = form;
  if (EXCLUDED.has(row.name)) return undefined;
  if (row.map === 'x87') return 'x87';
  if (row.vex === true && row.name.startsWith('v')) return 'avx';
  if (row.operands.some((o) => /^[PQN]/.test(o)) || row.name === 'emms' || row.name.endsWith('_mmx')) return 'mmx';
  if (row.operands.some((o) => /^[VWU]/.test(o)) || row.name === 'maskmovdqu') return 'sse';
  return 'integer';
}

export interface RandomOptions {
  /** General registers that operands may be. */
  readonly gprs: readonly number[];
  /** Address of a memory operand of `size` bytes. */
  readonly mem: (size: number) => MemoryChoice;
  /** Bytes of addresses; absent: the default. */
  readonly addrSize?: AddrSize;
  /** Of the implicit memory operand. */
  readonly segment?: SegmentOverride;
  /** Absent: 64. */
  readonly codeSize?: CodeSize;
}

export interface RandomInsn extends Encoded {
  readonly insn: Insn;
  readonly fields: Fields;
}

/** Bytes of memory operand of a form, 0: none or unknown. */
export function memorySize(form: Form): number {
  return form.operands.find((o) => o.kind === 'mem')?.size ?? 0;
}

/** A random instruction of the form, checked by decoding it; undefined when twenty attempts had no valid encoding. */
export function randomInsn(rng: Prng, form: Form, options: RandomOptions): RandomInsn | undefined {
  const { codeSize = 64 } = options;
  const registers = codeSize === 64 ? 16 : 8;
  for (let attempt = 0; attempt < 20; attempt++) {
    const number = (field: 'reg' | 'rm' | 'vvvv'): number => {
      const o = form.operands.find((x) => x.field === field);
      if (o?.kind === 'xmm') return rng.below(registers);
      if (o?.kind === 'mmx' || o?.kind === 'st') return rng.below(8);
      return rng.pick(options.gprs);
    };
    const lockable = form.row.lock === true && form.operands[0]?.kind === 'mem';
    const fields: Fields = {
      reg: number('reg'),
      rm: number('rm'),
      vvvv: number('vvvv'),
      mem: form.isMem ? options.mem(memorySize(form)) : null,
      imm: randomImmediate(rng),
      lock: lockable && rng.oneIn(4),
      rex: rng.oneIn(3) && form.row.vex !== true && codeSize === 64,
      ...(options.addrSize === undefined ? {} : { addrSize: options.addrSize }),
      ...(options.segment === undefined ? {} : { segment: options.segment }),
    };
    const encoded = encode(form, fields, codeSize);
    const bytes = new Uint8Array(16);
    bytes.set(encoded.bytes.subarray(0, 16));
    const insn = decode(bytes, 0, 16, codeSize);
    if (typeof insn === 'string' || insn.length !== encoded.bytes.length) continue;
    if (insn.rowIndex !== form.rowIndex || insn.opSize !== form.opSize || insn.isMem !== form.isMem || insn.rep !== form.rep || insn.vl !== form.vl) continue;
    if (insn.operands.some((o) => o.kind === 'gpr' && o.field !== 'fixed' && !options.gprs.includes(registerOf(insn, o.field, o.size)))) continue;
    return { ...encoded, insn, fields };
  }
  return undefined;
}

function registerOf(insn: Insn, field: string, size: number): number {
  const n = field === 'reg' ? insn.reg : field === 'rm' ? insn.rm : insn.vvvv;
  return size === 1 && !insn.rex && n >= 4 && n < 8 ? n - 4 : n;
}

function randomImmediate(rng: Prng): bigint {
  if (rng.oneIn(3)) return BigInt(rng.below(72));
  return rng.interesting();
}
