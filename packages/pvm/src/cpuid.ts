import { CPUID_ANY_SUBLEAF, CPUID_COUNT, CPUID_ENTRIES, CPUID_ENTRY_SIZE, CPUID_MAX_ENTRIES } from '@pvm/cpu-jit/layout';
import type { VcpuState } from './vcpu-state.ts';

/** EAX, EBX, ECX, EDX. */
export type CpuidAnswer = readonly [eax: number, ebx: number, ecx: number, edx: number];
export type CpuidLeaf = readonly [leaf: number, answer: CpuidAnswer];

const bits = (...list: readonly number[]): number => list.reduce((all, bit) => (all | (1 << bit)) >>> 0, 0);

/** The TSC and the APIC timer tick once a nanosecond. */
export const TICKS_HZ = 1_000_000_000;
/** Family 6, model 0x1c, stepping 10: an in-order Intel CPU. Kernels know that it does not speculate, which is true of ours, and do without mitigations. */
const SIGNATURE = 0x0001_06ca;
/** SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT RDRAND hypervisor (SDM vol. 2, CPUID, leaf 1). */
const LEAF1_ECX = bits(0, 9, 13, 19, 20, 23, 30, 31);
/** FPU DE PSE TSC MSR PAE CX8 SEP MTRR PGE CMOV PAT CLFSH MMX FXSR SSE SSE2. */
const LEAF1_EDX = bits(0, 2, 3, 4, 5, 6, 8, 11, 12, 13, 15, 16, 19, 23, 24, 25, 26);
/** With a local APIC: x2APIC TSC-deadline; APIC. */
const LEAF1_ECX_APIC = bits(21, 24);
const LEAF1_EDX_APIC = bits(9);
/** CLFLUSH of 64 bytes, one logical processor. */
const LEAF1_EBX = 0x0001_0800;
/** IA32_TSC_ADJUST, which tells kernels that the TSC needs no watchdog; fast REP MOVSB and STOSB: they are bulk copies here. */
const LEAF7_EBX = bits(1, 9);
const LEAF7_EBX_FSGSBASE = bits(0);
/** LAHF; SYSCALL NX LM; invariant TSC; 46 physical and 48 virtual address bits. */
const LEAF81_ECX = bits(0);
const LEAF81_EDX = bits(11, 20, 29);
const LEAF87_EDX = bits(8);
const ADDRESS_BITS = 0x302e;
/** "GenuineIntel" and "KVMKVMKVM", in EBX ECX EDX as CPUID gives them. */
const INTEL = [0x756e_6547, 0x6c65_746e, 0x4965_6e69] as const;
export const KVM_SIGNATURE = [0x4b4d_564b, 0x564b_4d56, 0x4d] as const;
const BRAND = 'pvm virtual CPU (in order, x86-64-v2)';

/** What may differ from machine to machine. */
export interface ProcessorFeatures {
  /** There is a local APIC with x2APIC mode and TSC deadline. */
  readonly apic: boolean;
  /** RDFSBASE and the like may be enabled. */
  readonly fsgsbase: boolean;
}

/** An x86-64-v2 processor with known clock rates. */
function processorLeaves({ apic, fsgsbase }: ProcessorFeatures): readonly CpuidLeaf[] {
  const brand = new DataView(new ArrayBuffer(48));
  [...BRAND].forEach((c, i) => {
    brand.setUint8(i, c.charCodeAt(0));
  });
  const words = (at: number) => [0, 4, 8, 12].map((i) => brand.getUint32(at + i, true)) as unknown as CpuidAnswer;
  return [
    [0, [0x16, INTEL[0], INTEL[1], INTEL[2]]],
    [1, [SIGNATURE, LEAF1_EBX, (LEAF1_ECX | (apic ? LEAF1_ECX_APIC : 0)) >>> 0, LEAF1_EDX | (apic ? LEAF1_EDX_APIC : 0)]],
    [7, [0, LEAF7_EBX | (fsgsbase ? LEAF7_EBX_FSGSBASE : 0), 0, 0]],
    [0x15, [1, 1, TICKS_HZ, 0]],
    [0x16, [TICKS_HZ / 1e6, TICKS_HZ / 1e6, 100, 0]],
    [0x8000_0000, [0x8000_0008, 0, 0, 0]],
    [0x8000_0001, [0, 0, LEAF81_ECX, LEAF81_EDX]],
    [0x8000_0002, words(0)],
    [0x8000_0003, words(16)],
    [0x8000_0004, words(32)],
    [0x8000_0007, [0, 0, 0, LEAF87_EDX]],
    [0x8000_0008, [ADDRESS_BITS, 0, 0, 0]],
  ];
}

/** Fills the CPU's table of CPUID answers: the processor's, and those of the hypervisor above it. */
export function installCpuid(vcpu: VcpuState, features: ProcessorFeatures, hypervisor: readonly CpuidLeaf[]): void {
  vcpu.set32(CPUID_COUNT, 0);
  for (const [leaf, answer] of [...processorLeaves(features), ...hypervisor]) setLeaf(vcpu, leaf, answer);
}

/** What CPUID answers for a leaf; zeros when it is not known. */
export function cpuid(vcpu: VcpuState, leaf: number, subleaf: number): CpuidAnswer {
  const at = find(vcpu, leaf, subleaf);
  if (at === 0) return [0, 0, 0, 0];
  return [vcpu.get32(at + 8), vcpu.get32(at + 12), vcpu.get32(at + 16), vcpu.get32(at + 20)];
}

/** State-block offset of the record, 0: none. */
function find(vcpu: VcpuState, leaf: number, subleaf: number): number {
  const count = vcpu.get32(CPUID_COUNT);
  for (let i = 0; i < count; i++) {
    const at = CPUID_ENTRIES + i * CPUID_ENTRY_SIZE;
    const recorded = vcpu.get32(at + 4);
    if (vcpu.get32(at) === leaf >>> 0 && (recorded === subleaf >>> 0 || recorded === CPUID_ANY_SUBLEAF >>> 0)) return at;
  }
  return 0;
}

/** Sets or replaces the answer for all subleaves of a leaf. */
export function setLeaf(vcpu: VcpuState, leaf: number, answer: CpuidAnswer): void {
  let at = find(vcpu, leaf, 0);
  if (at === 0) {
    const count = vcpu.get32(CPUID_COUNT);
    if (count >= CPUID_MAX_ENTRIES) throw new RangeError('the CPUID table is full');
    at = CPUID_ENTRIES + count * CPUID_ENTRY_SIZE;
    vcpu.set32(CPUID_COUNT, count + 1);
    vcpu.set32(at, leaf);
    vcpu.set32(at + 4, CPUID_ANY_SUBLEAF);
  }
  answer.forEach((value, i) => {
    vcpu.set32(at + 8 + 4 * i, value);
  });
}
