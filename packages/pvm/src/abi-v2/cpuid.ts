import { CPUID_ANY_SUBLEAF, CPUID_COUNT, CPUID_ENTRIES, CPUID_ENTRY_SIZE, CPUID_MAX_ENTRIES } from '@pvm/cpu-jit/layout';
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_CLOCK_FEATURES } from './kvm-clock.ts';

/** EAX, EBX, ECX, EDX. */
export type CpuidAnswer = readonly [number, number, number, number];

/** The TSC ticks once a nanosecond with either clock. */
const TSC_KHZ = 1_000_000;
/** "KVMKVMKVM\0\0\0". */
const KVM_SIGNATURE: CpuidAnswer = [0x4000_0010, 0x4b4d_564b, 0x564b_4d56, 0x4d];
/** "PVM\0" in EBX. */
const PVM_SIGNATURE = 0x4d_5650;
/** Leaf 1 ECX: a hypervisor is present; leaf 1 EDX and leaf 7 bits that PVM hides. */
const LEAF1_HYPERVISOR = 0x8000_0000;
const LEAF7_EBX_SMAP = 1 << 20;

const HYPERVISOR_LEAVES: readonly (readonly [leaf: number, answer: CpuidAnswer])[] = [
  [0x4000_0000, KVM_SIGNATURE],
  [0x4000_0001, [KVM_CLOCK_FEATURES, 0, 0, 0]],
  [0x4000_0002, [0, PVM_SIGNATURE, 0, 0]],
  [0x4000_0010, [TSC_KHZ, 0, 0, 0]],
];

/** Adds the hypervisor's leaves to what the CPU answers, and takes away what PVM cannot give. */
export function installCpuid(vcpu: VcpuState): void {
  for (const [leaf, answer] of HYPERVISOR_LEAVES) setLeaf(vcpu, leaf, answer);
  const [eax1, ebx1, ecx1, edx1] = cpuid(vcpu, 1, 0);
  setLeaf(vcpu, 1, [eax1, ebx1, (ecx1 | LEAF1_HYPERVISOR) >>> 0, edx1]);
  const seven = find(vcpu, 7, 0);
  if (seven !== 0) vcpu.set32(seven + 12, vcpu.get32(seven + 12) & ~LEAF7_EBX_SMAP);
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

function setLeaf(vcpu: VcpuState, leaf: number, answer: CpuidAnswer): void {
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
