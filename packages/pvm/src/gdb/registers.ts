/** The registers that GDB sees, in the order of its target description (GDB manual, appendix G.5.3), and how they are read and written. */
import type { Registers } from '@pvm/cpu-jit';

interface GdbRegister {
  readonly name: string;
  /** Width in the packets. */
  readonly bits: number;
  readonly type: string;
  readonly group?: string;
  get(cpu: Registers): bigint;
  /** Absent: writes are ignored. */
  set?(cpu: Registers, value: bigint): void;
}

const GENERAL = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const;
const SEGMENTS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const;
const EIGHT = [0, 1, 2, 3, 4, 5, 6, 7] as const;
const SIXTEEN = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] as const;
const LOW = (1n << 128n) - 1n;

const plain = (name: Parameters<Registers['get']>[0], bits: number, type: string, gdbName: string = name, group?: string): GdbRegister => ({
  name: gdbName,
  bits,
  type,
  ...(group === undefined ? {} : { group }),
  get: (cpu) => cpu.get(name),
  set: (cpu, value) => cpu.set(name, value),
});

/** What is not kept: the last x87 instruction and its operand. */
const absent = (name: string): GdbRegister => ({ name, bits: 32, type: 'int', group: 'float', get: () => 0n });

/** The full tag word from the abridged one (SDM vol. 1, 8.1.7 and 10.5.1.1): GDB shows it. */
const TAG_WORD: GdbRegister = {
  name: 'ftag',
  bits: 32,
  type: 'int',
  group: 'float',
  get: (cpu) => {
    const top = Number((cpu.get('fstat') >> 11n) & 7n);
    const used = Number(cpu.get('ftag'));
    let tags = 0n;
    for (let n = 0; n < 8; n++) {
      const st = EIGHT[(n - top) & 7] ?? 0;
      tags |= BigInt((used >> n) & 1 ? tagOf(cpu.get(`st${st}`)) : 3) << BigInt(2 * n);
    }
    return tags;
  },
  set: (cpu, value) =>
    cpu.set(
      'ftag',
      EIGHT.reduce((used, n) => used | (((value >> BigInt(2 * n)) & 3n) === 3n ? 0n : 1n << BigInt(n)), 0n),
    ),
};

/** 0 valid, 1 zero, 2 special. */
function tagOf(value: bigint): number {
  const exponent = (value >> 64n) & 0x7fffn;
  const mantissa = value & 0xffff_ffff_ffff_ffffn;
  if (exponent === 0n) return mantissa === 0n ? 1 : 2;
  return exponent === 0x7fffn || mantissa >> 63n === 0n ? 2 : 0;
}

interface Feature {
  readonly name: string;
  /** Types that its registers use beside GDB's own. */
  readonly types?: string;
  readonly registers: readonly GdbRegister[];
}

const FLAGS = `<flags id="i386_eflags" size="4">${(
  [
    ['CF', 0],
    ['', 1],
    ['PF', 2],
    ['AF', 4],
    ['ZF', 6],
    ['SF', 7],
    ['TF', 8],
    ['IF', 9],
    ['DF', 10],
    ['OF', 11],
    ['NT', 14],
    ['RF', 16],
    ['VM', 17],
    ['AC', 18],
    ['VIF', 19],
    ['VIP', 20],
    ['ID', 21],
  ] as const
)
  .map(([name, bit]) => `<field name="${name}" start="${bit}" end="${bit}"/>`)
  .join('')}</flags>`;
const VECTORS = [
  '<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>',
  '<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>',
  '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>',
  '<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>',
].join('');

const CORE: Feature = {
  name: 'org.gnu.gdb.i386.core',
  types: FLAGS,
  registers: [
    ...GENERAL.map((name) => plain(name, 64, name === 'rbp' || name === 'rsp' ? 'data_ptr' : 'int64')),
    plain('rip', 64, 'code_ptr'),
    plain('rflags', 32, 'i386_eflags', 'eflags'),
    ...SEGMENTS.map((name): GdbRegister => ({ name, bits: 32, type: 'int32', get: (cpu) => BigInt(cpu.segment(name).selector) })),
    ...EIGHT.map((n) => plain(`st${n}`, 80, 'i387_ext')),
    plain('fctrl', 32, 'int', 'fctrl', 'float'),
    plain('fstat', 32, 'int', 'fstat', 'float'),
    TAG_WORD,
    ...['fiseg', 'fioff', 'foseg', 'fooff', 'fop'].map(absent),
  ],
};
const SSE: Feature = {
  name: 'org.gnu.gdb.i386.sse',
  types: VECTORS,
  registers: [...SIXTEEN.map((n) => plain(`xmm${n}`, 128, 'vec128')), plain('mxcsr', 32, 'int', 'mxcsr', 'vector')],
};
const SEGMENT_BASES: Feature = {
  name: 'org.gnu.gdb.i386.segments',
  registers: (['fs', 'gs'] as const).map((name) => ({
    name: `${name}_base`,
    bits: 64,
    type: 'int64',
    get: (cpu) => cpu.segment(name).base,
    set: (cpu, base) => cpu.setSegment(name, { ...cpu.segment(name), base }),
  })),
};
const AVX: Feature = {
  name: 'org.gnu.gdb.i386.avx',
  registers: SIXTEEN.map((n) => ({
    name: `ymm${n}h`,
    bits: 128,
    type: 'uint128',
    get: (cpu) => cpu.get(`ymm${n}`) >> 128n,
    set: (cpu, value) => cpu.set(`ymm${n}`, (value << 128n) | (cpu.get(`ymm${n}`) & LOW)),
  })),
};
/** Not GDB's: what system programmers want to see. */
const SYSTEM: Feature = {
  name: 'pvm.x86.system',
  registers: [
    { name: 'k_gs_base', bits: 64, type: 'int64', group: 'system', get: (cpu) => cpu.get('kernel_gs_base') },
    ...(['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer'] as const).map(
      (name): GdbRegister => ({ name, bits: 64, type: 'int64', group: 'system', get: (cpu) => cpu.get(name) }),
    ),
  ],
};

/** Number of RIP and RSP, which stop replies carry. */
export const RSP_NUMBER = 7;
export const RIP_NUMBER = 16;

/** The register file of one kind of processor, by GDB's numbers. */
export class GdbRegisters {
  /** The target description. */
  readonly xml: string;
  private readonly registers: readonly GdbRegister[];

  constructor(hasAvx: boolean) {
    const features = [CORE, SSE, SEGMENT_BASES, ...(hasAvx ? [AVX] : []), SYSTEM];
    this.registers = features.flatMap((f) => f.registers);
    const reg = ({ name, bits, type, group }: GdbRegister) =>
      `<reg name="${name}" bitsize="${bits}" type="${type}"${group === undefined ? '' : ` group="${group}"`}/>`;
    const feature = (f: Feature) => `<feature name="${f.name}">${f.types ?? ''}${f.registers.map(reg).join('')}</feature>`;
    this.xml = `<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target><architecture>i386:x86-64</architecture>${features.map(feature).join('')}</target>`;
  }

  /** All of them, as the `g` packet has them. */
  all(cpu: Registers): Uint8Array {
    return Buffer.concat(this.registers.map((r) => littleEndian(r.get(cpu), r.bits)));
  }
  /** Undefined: there is no such register. */
  read(cpu: Registers, n: number): Uint8Array | undefined {
    const r = this.registers[n];
    return r === undefined ? undefined : littleEndian(r.get(cpu), r.bits);
  }
  /** @returns false: there is no such register, or the value has another width. @throws CpuError for a value that the CPU refuses */
  write(cpu: Registers, n: number, bytes: Uint8Array): boolean {
    const r = this.registers[n];
    if (r === undefined || bytes.length !== r.bits / 8) return false;
    const value = bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    if (r.get(cpu) !== value) r.set?.(cpu, value);
    return true;
  }
  /** @returns false: it has another size */
  writeAll(cpu: Registers, bytes: Uint8Array): boolean {
    if (bytes.length !== this.registers.reduce((sum, r) => sum + r.bits / 8, 0)) return false;
    let at = 0;
    this.registers.forEach((r, n) => {
      this.write(cpu, n, bytes.subarray(at, at + r.bits / 8));
      at += r.bits / 8;
    });
    return true;
  }
}

function littleEndian(value: bigint, bits: number): Uint8Array {
  const bytes = new Uint8Array(bits / 8);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
  return bytes;
}
