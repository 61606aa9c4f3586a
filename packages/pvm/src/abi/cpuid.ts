import { type CpuidLeaf, cpuid, installCpuid, KVM_SIGNATURE, type ProcessorFeatures, setLeaf, TICKS_HZ } from '../cpuid.ts';
import { KVM_FEATURES_OFFERED } from '../kvm-pv/features.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_CLOCK_FEATURES } from './kvm-clock.ts';

/** "PVM\0" in EBX. */
const PVM_SIGNATURE = 0x4d_5650;
/** Leaf 1 ECX: PCID, which PVM always has. */
const LEAF1_ECX_PCID = 1 << 17;

const hypervisorLeaves = (isKvm: boolean): readonly CpuidLeaf[] => [
  [0x4000_0000, [0x4000_0010, ...KVM_SIGNATURE]],
  [0x4000_0001, [KVM_CLOCK_FEATURES | (isKvm ? KVM_FEATURES_OFFERED : 0), 0, 0, 0]],
  [0x4000_0002, [0, PVM_SIGNATURE, 0, 0]],
  [0x4000_0010, [TICKS_HZ / 1000, 0, 0, 0]],
];

/** What a PVM guest sees: the processor with PCID and FSGSBASE, and the hypervisor's leaves. SMAP and SMEP are never shown. `isKvm`: the platform has KVM's other MSRs. */
export function installPvmCpuid(vcpu: VcpuState, features: Pick<ProcessorFeatures, 'level' | 'apic' | 'processor'>, isKvm: boolean): void {
  installCpuid(vcpu, { ...features, fsgsbase: true }, hypervisorLeaves(isKvm));
  const [eax, ebx, ecx, edx] = cpuid(vcpu, 1, 0);
  setLeaf(vcpu, 1, [eax, ebx, ecx | LEAF1_ECX_PCID, edx]);
}
