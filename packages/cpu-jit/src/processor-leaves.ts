/** What CPUID says of the processor itself: the leaves below those of a hypervisor. */
import { type CpuLevel, featureWord, reportedFeatures, xsaveLeaves } from './features.ts';

/** EAX, EBX, ECX, EDX. */
export type CpuidAnswer = readonly [eax: number, ebx: number, ecx: number, edx: number];
/** A leaf without a subleaf answers the same for all of them. */
export type CpuidLeaf = readonly [leaf: number, answer: CpuidAnswer, subleaf?: number];

/** The TSC and the APIC timer tick once a nanosecond. */
export const TICKS_HZ = 1_000_000_000;
/** Family 6, model 0x1c, stepping 10: an in-order Intel CPU. Kernels know that it does not speculate, which is true of ours, and do without mitigations. */
const SIGNATURE = 0x0001_06ca;
/** CLFLUSH of 64 bytes. */
const LEAF1_EBX = 0x0800;
const LEAF1_EDX_HTT = 1 << 28;
/** 46 physical and 48 virtual address bits. */
const ADDRESS_BITS = 0x302e;
/** "GenuineIntel", in EBX ECX EDX as CPUID gives it. */
const INTEL = [0x756e_6547, 0x6c65_746e, 0x4965_6e69] as const;

/** What may differ from machine to machine. */
export interface ProcessorFeatures {
  readonly level: CpuLevel;
  /** There is a local APIC with x2APIC mode and TSC deadline. */
  readonly apic: boolean;
  /** RDFSBASE and the like may be enabled. */
  readonly fsgsbase: boolean;
  /** CR4.PCIDE may be set, and INVPCID is there; default false. */
  readonly pcid?: boolean;
  /** The TSC ticks at the same rate in every state; default true. */
  readonly invariantTsc?: boolean;
  /** Which of how many processors this is, its APIC ID; default the only one. */
  readonly processor?: { readonly id: number; readonly count: number };
}

/** Leaf 4: type (1 data, 2 instructions, 3 unified), level, KiB, ways, whether the processors share it. Lines of 64 bytes. */
const CACHES = [
  [1, 1, 32, 8, false],
  [2, 1, 32, 8, false],
  [3, 2, 1024, 16, false],
  [3, 3, 8192, 16, true],
] as const;
const SELF_INITIALISING = 1 << 8;
const LEVEL_SMT = 1 << 8;
const LEVEL_CORE = 2 << 8;

/** Where a processor is in a package of `count` cores with one thread each (SDM vol. 3, 10.9). None where there is one processor. */
function topologyLeaves(id: number, count: number): readonly CpuidLeaf[] {
  if (count === 1) return [];
  const idBits = 32 - Math.clz32(count - 1);
  const idSpace = 1 << idBits;
  const caches = CACHES.map(([type, level, kib, ways, isShared], subleaf): CpuidLeaf => {
    const sharing = isShared ? idSpace - 1 : 0;
    const eax = (type | (level << 5) | SELF_INITIALISING | (sharing << 14) | ((idSpace - 1) << 26)) >>> 0;
    return [4, [eax, ((ways - 1) << 22) | 63, (kib * 1024) / (64 * ways) - 1, 0], subleaf];
  });
  return [...caches, [0xb, [0, 1, LEVEL_SMT, id], 0], [0xb, [idBits, count, LEVEL_CORE | 1, id], 1], [0xb, [0, 0, 2, id], 2]];
}

/** A processor of some level with known clock rates; its features are those of the CPU's list (cpu-jit/src/features.ts). */
export function processorLeaves({
  level,
  apic,
  fsgsbase,
  pcid = false,
  invariantTsc = true,
  processor = { id: 0, count: 1 },
}: ProcessorFeatures): readonly CpuidLeaf[] {
  const { id, count } = processor;
  const asked = [...(apic ? ['apic', 'x2apic', 'tsc_deadline_timer'] : []), ...(fsgsbase ? ['fsgsbase'] : []), ...(pcid ? ['pcid', 'invpcid'] : [])];
  const features = reportedFeatures(level, asked);
  const brand = new DataView(new ArrayBuffer(48));
  [...`pvm virtual CPU (in order, x86-64-${level})`].forEach((c, i) => {
    brand.setUint8(i, c.charCodeAt(0));
  });
  const words = (at: number) => [0, 4, 8, 12].map((i) => brand.getUint32(at + i, true)) as unknown as CpuidAnswer;
  return [
    [0, [0x16, INTEL[0], INTEL[1], INTEL[2]]],
    [
      1,
      [
        SIGNATURE,
        ((id << 24) | (count << 16) | LEAF1_EBX) >>> 0,
        featureWord(features, '1.ecx'),
        (featureWord(features, '1.edx') | (count > 1 ? LEAF1_EDX_HTT : 0)) >>> 0,
      ],
    ],
    ...topologyLeaves(id, count),
    [7, [0, featureWord(features, '7.ebx'), featureWord(features, '7.ecx'), 0], 0],
    ...xsaveLeaves(features).map(([subleaf, answer]): CpuidLeaf => [0xd, answer, subleaf]),
    [0x15, [1, 1, TICKS_HZ, 0]],
    [0x16, [TICKS_HZ / 1e6, TICKS_HZ / 1e6, 100, 0]],
    [0x8000_0000, [0x8000_0008, 0, 0, 0]],
    [0x8000_0001, [0, 0, featureWord(features, '80000001.ecx'), featureWord(features, '80000001.edx')]],
    [0x8000_0002, words(0)],
    [0x8000_0003, words(16)],
    [0x8000_0004, words(32)],
    [0x8000_0007, [0, 0, 0, invariantTsc ? featureWord(features, '80000007.edx') : 0]],
    [0x8000_0008, [ADDRESS_BITS, 0, 0, 0]],
  ];
}
