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
/** CLFLUSH of 64 bytes, one logical processor. */
const LEAF1_EBX = 0x0001_0800;
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
}

/** A processor of some level with known clock rates; its features are those of the CPU's list (cpu-jit/src/features.ts). */
export function processorLeaves({ level, apic, fsgsbase }: ProcessorFeatures): readonly CpuidLeaf[] {
  const features = reportedFeatures(level, [...(apic ? ['apic', 'x2apic', 'tsc_deadline_timer'] : []), ...(fsgsbase ? ['fsgsbase'] : [])]);
  const brand = new DataView(new ArrayBuffer(48));
  [...`pvm virtual CPU (in order, x86-64-${level})`].forEach((c, i) => {
    brand.setUint8(i, c.charCodeAt(0));
  });
  const words = (at: number) => [0, 4, 8, 12].map((i) => brand.getUint32(at + i, true)) as unknown as CpuidAnswer;
  return [
    [0, [0x16, INTEL[0], INTEL[1], INTEL[2]]],
    [1, [SIGNATURE, LEAF1_EBX, featureWord(features, '1.ecx'), featureWord(features, '1.edx')]],
    [7, [0, featureWord(features, '7.ebx'), featureWord(features, '7.ecx'), 0], 0],
    ...xsaveLeaves(features).map(([subleaf, answer]): CpuidLeaf => [0xd, answer, subleaf]),
    [0x15, [1, 1, TICKS_HZ, 0]],
    [0x16, [TICKS_HZ / 1e6, TICKS_HZ / 1e6, 100, 0]],
    [0x8000_0000, [0x8000_0008, 0, 0, 0]],
    [0x8000_0001, [0, 0, featureWord(features, '80000001.ecx'), featureWord(features, '80000001.edx')]],
    [0x8000_0002, words(0)],
    [0x8000_0003, words(16)],
    [0x8000_0004, words(32)],
    [0x8000_0007, [0, 0, 0, featureWord(features, '80000007.edx')]],
    [0x8000_0008, [ADDRESS_BITS, 0, 0, 0]],
  ];
}
