/**
 * The processor features that CPUID can report: the one list of what the CPU implements. Names are those of Linux (/proc/cpuinfo) and of
 * `Row.feature`.
 */

/** What the CPU is, by the levels of the x86-64 psABI. */
export const CPU_LEVELS = ['v2', 'v3'] as const;
export type CpuLevel = (typeof CPU_LEVELS)[number];

/** Where CPUID says that a feature is there. */
export type FeatureWord = '1.ecx' | '1.edx' | '7.ebx' | '7.ecx' | 'd.1.eax' | '80000001.ecx' | '80000001.edx' | '80000007.edx';
/**
 * Who reports a feature: every machine, those of level v3, or whoever asks for it by name, because it needs more than the CPU (a local APIC, a
 * hypervisor that lets the guest have it).
 */
export type Reported = 'v2' | 'v3' | 'asked';

export interface Feature {
  readonly name: string;
  readonly word: FeatureWord;
  readonly bit: number;
  readonly reported: Reported;
}

function word(at: FeatureWord, reported: Reported, bits: Readonly<Record<string, number>>): Feature[] {
  return Object.entries(bits).map(([name, bit]) => ({ name, word: at, bit, reported }));
}

/** SDM vol. 2, CPUID: tables 3-10, 3-11, 3-8. */
export const FEATURES: readonly Feature[] = [
  ...word('1.ecx', 'v2', { sse3: 0, ssse3: 9, cx16: 13, sse4_1: 19, sse4_2: 20, popcnt: 23, rdrand: 30, hypervisor: 31 }),
  ...word('1.ecx', 'v3', { pclmulqdq: 1, fma: 12, movbe: 22, aes: 25, xsave: 26, avx: 28, f16c: 29 }),
  ...word('1.ecx', 'asked', { pcid: 17, x2apic: 21, tsc_deadline_timer: 24 }),
  ...word('1.edx', 'v2', { fpu: 0, de: 2, pse: 3, tsc: 4, msr: 5, pae: 6, cx8: 8, sep: 11, mtrr: 12, pge: 13, cmov: 15, pat: 16, clflush: 19 }),
  ...word('1.edx', 'v2', { mmx: 23, fxsr: 24, sse: 25, sse2: 26 }),
  ...word('1.edx', 'asked', { apic: 9 }),
  // IA32_TSC_ADJUST tells kernels that the TSC needs no watchdog. REP MOVSB and STOSB are fast: they are bulk copies here.
  ...word('7.ebx', 'v2', { tsc_adjust: 1, erms: 9 }),
  ...word('7.ebx', 'v3', { bmi1: 3, avx2: 5, bmi2: 8, rdseed: 18, adx: 19, clflushopt: 23, clwb: 24, sha_ni: 29 }),
  ...word('7.ebx', 'asked', { fsgsbase: 0, smep: 7, invpcid: 10, smap: 20 }),
  ...word('7.ecx', 'asked', { umip: 2, pku: 3, rdpid: 22 }),
  ...word('d.1.eax', 'v3', { xsaveopt: 0, xsavec: 1 }),
  ...word('80000001.ecx', 'v2', { lahf_lm: 0 }),
  ...word('80000001.ecx', 'v3', { abm: 5 }),
  ...word('80000001.edx', 'v2', { syscall: 11, nx: 20, lm: 29 }),
  ...word('80000001.edx', 'asked', { pdpe1gb: 26, rdtscp: 27 }),
  ...word('80000007.edx', 'v2', { constant_tsc: 8 }),
];

/** The features that are reported at a level, and those asked for by name. Throws `RangeError` for a name that the list does not have. */
export function reportedFeatures(level: CpuLevel, asked: readonly string[] = []): Feature[] {
  for (const name of asked) if (!FEATURES.some((f) => f.name === name)) throw new RangeError(`the CPU has no feature ${name}`);
  return FEATURES.filter((f) => f.reported === 'v2' || f.reported === level || asked.includes(f.name));
}

/** The bits of one word of CPUID, u32. */
export function featureWord(features: readonly Feature[], at: FeatureWord): number {
  return features.reduce((bits, f) => (f.word === at ? (bits | (1 << f.bit)) >>> 0 : bits), 0);
}

/** Bytes of the XSAVE area's legacy region and header, and of AVX state after them (SDM vol. 1, 13.4). */
const XSAVE_HEADER_END = 576;
const AVX_STATE_BYTES = 256;
/** x87, SSE and AVX. */
const XCR0_SUPPORTED = 7;

/** EAX, EBX, ECX, EDX of leaf 0xD by subleaf; none without XSAVE. The CPU itself puts the size of what is enabled into EBX of the first two. */
export function xsaveLeaves(features: readonly Feature[]): readonly (readonly [subleaf: number, answer: readonly [number, number, number, number]])[] {
  if (!features.some((f) => f.name === 'xsave')) return [];
  const all = XSAVE_HEADER_END + AVX_STATE_BYTES;
  return [
    [0, [XCR0_SUPPORTED, all, all, 0]],
    [1, [featureWord(features, 'd.1.eax'), all, 0, 0]],
    [2, [AVX_STATE_BYTES, XSAVE_HEADER_END, 0, 0]],
  ];
}
