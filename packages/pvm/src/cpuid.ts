import { type CpuidAnswer, type CpuidLeaf, type ProcessorFeatures, processorLeaves } from '@pvm/cpu-jit';
import { CPUID_ANY_SUBLEAF, CPUID_COUNT, CPUID_ENTRIES, CPUID_ENTRY_SIZE, CPUID_MAX_ENTRIES } from '@pvm/cpu-jit/layout';
import type { VcpuState } from './vcpu-state.ts';

export type { CpuidAnswer, CpuidLeaf, ProcessorFeatures } from '@pvm/cpu-jit';
export { TICKS_HZ } from '@pvm/cpu-jit';
/** "KVMKVMKVM", in EBX ECX EDX as CPUID gives it. */
export const KVM_SIGNATURE = [0x4b4d_564b, 0x564b_4d56, 0x4d] as const;

/** Fills the CPU's table of CPUID answers: the processor's, and those of the hypervisor above it. */
export function installCpuid(vcpu: VcpuState, features: ProcessorFeatures, hypervisor: readonly CpuidLeaf[]): void {
  vcpu.set32(CPUID_COUNT, 0);
  for (const [leaf, answer, subleaf] of [...processorLeaves(features), ...hypervisor]) setLeaf(vcpu, leaf, answer, subleaf);
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

/** Sets or replaces the answer for a subleaf, or for all subleaves of a leaf. */
export function setLeaf(vcpu: VcpuState, leaf: number, answer: CpuidAnswer, subleaf = CPUID_ANY_SUBLEAF): void {
  let at = find(vcpu, leaf, subleaf);
  if (at === 0) {
    const count = vcpu.get32(CPUID_COUNT);
    if (count >= CPUID_MAX_ENTRIES) throw new RangeError('the CPUID table is full');
    at = CPUID_ENTRIES + count * CPUID_ENTRY_SIZE;
    vcpu.set32(CPUID_COUNT, count + 1);
    vcpu.set32(at, leaf);
    vcpu.set32(at + 4, subleaf);
  }
  answer.forEach((value, i) => {
    vcpu.set32(at + 8 + 4 * i, value);
  });
}
