import { type CpuidLeaf, KVM_SIGNATURE } from '../cpuid.ts';

/** Leaf 0x40000001 EAX: what KVM offers its guests (Linux Documentation/virt/kvm/x86/cpuid.rst), and here works. */
export const KVM_FEATURES = {
  clocksource: 1 << 0,
  /** Nobody needs to wait after an access to a port. */
  nopIoDelay: 1 << 1,
  clocksource2: 1 << 3,
  stealTime: 1 << 5,
  pvEoi: 1 << 6,
  pvUnhalt: 1 << 7,
  pvTlbFlush: 1 << 9,
  pvSendIpi: 1 << 11,
  pollControl: 1 << 12,
  pvSchedYield: 1 << 13,
  clocksourceStable: 1 << 24,
} as const;

/** All of them. */
export const KVM_FEATURES_OFFERED = Object.values(KVM_FEATURES).reduce((bits, bit) => bits | bit, 0);

/** The KVM signature with these features. Without any it is there because kernels use the x2APIC without interrupt remapping only under a hypervisor they know. */
export function kvmLeaves(isOffered: boolean): readonly CpuidLeaf[] {
  return [
    [0x4000_0000, [0x4000_0001, ...KVM_SIGNATURE]],
    [0x4000_0001, [isOffered ? KVM_FEATURES_OFFERED : 0, 0, 0, 0]],
  ];
}
