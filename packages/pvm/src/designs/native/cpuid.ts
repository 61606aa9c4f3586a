import { CPUID_ANY_SUBLEAF, CPUID_COUNT, CPUID_ENTRIES, CPUID_ENTRY_SIZE } from '@pvm/cpu-jit/layout';
import type { VcpuState } from '../../vcpu-state.ts';

const bits = (...list: readonly number[]): number => list.reduce((all, bit) => (all | (1 << bit)) >>> 0, 0);

/** The TSC and the APIC timer tick once a nanosecond. */
const TICKS_HZ = 1_000_000_000;
/** Family 6, model 0x1c, stepping 10: an in-order Intel CPU. Kernels know that it does not speculate, which is true of ours, and do without mitigations. */
const SIGNATURE = 0x0001_06ca;
/** SSE3 SSSE3 CX16 SSE4.1 SSE4.2 x2APIC POPCNT TSC-deadline RDRAND hypervisor (SDM vol. 2, CPUID, leaf 1). */
const LEAF1_ECX = bits(0, 9, 13, 19, 20, 21, 23, 24, 30, 31);
/** FPU DE PSE TSC MSR PAE CX8 APIC SEP MTRR PGE CMOV PAT CLFSH MMX FXSR SSE SSE2. */
const LEAF1_EDX = bits(0, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15, 16, 19, 23, 24, 25, 26);
/** CLFLUSH of 64 bytes, one logical processor. */
const LEAF1_EBX = 0x0001_0800;
/** IA32_TSC_ADJUST, which tells kernels that the TSC needs no watchdog; fast REP MOVSB and STOSB: they are bulk copies here. */
const LEAF7_EBX = bits(1, 9);
/** LAHF; SYSCALL NX LM; invariant TSC; 46 physical and 48 virtual address bits. */
const LEAF81_ECX = bits(0);
const LEAF81_EDX = bits(11, 20, 29);
const LEAF87_EDX = bits(8);
const ADDRESS_BITS = 0x302e;
/** "GenuineIntel" and "KVMKVMKVM", in EBX ECX EDX as CPUID gives them. */
const INTEL = [0x756e_6547, 0x6c65_746e, 0x4965_6e69] as const;
const KVM = [0x4b4d_564b, 0x564b_4d56, 0x4d] as const;
const BRAND = 'pvm virtual CPU (in order, x86-64-v2)';

/**
 * An x86-64-v2 machine with x2APIC, TSC deadline and known clock rates. The KVM signature without a single feature is
 * there because kernels use the x2APIC without interrupt remapping only under a hypervisor they know.
 */
function leaves(): readonly (readonly [leaf: number, a: number, b: number, c: number, d: number])[] {
  const brand = new DataView(new ArrayBuffer(48));
  [...BRAND].forEach((c, i) => {
    brand.setUint8(i, c.charCodeAt(0));
  });
  const words = (at: number) => [0, 4, 8, 12].map((i) => brand.getUint32(at + i, true)) as unknown as readonly [number, number, number, number];
  return [
    [0, 0x16, INTEL[0], INTEL[1], INTEL[2]],
    [1, SIGNATURE, LEAF1_EBX, LEAF1_ECX, LEAF1_EDX],
    [7, 0, LEAF7_EBX, 0, 0],
    [0x15, 1, 1, TICKS_HZ, 0],
    [0x16, TICKS_HZ / 1e6, TICKS_HZ / 1e6, 100, 0],
    [0x4000_0000, 0x4000_0001, KVM[0], KVM[1], KVM[2]],
    [0x4000_0001, 0, 0, 0, 0],
    [0x8000_0000, 0x8000_0008, 0, 0, 0],
    [0x8000_0001, 0, 0, LEAF81_ECX, LEAF81_EDX],
    [0x8000_0002, ...words(0)],
    [0x8000_0003, ...words(16)],
    [0x8000_0004, ...words(32)],
    [0x8000_0007, 0, 0, 0, LEAF87_EDX],
    [0x8000_0008, ADDRESS_BITS, 0, 0, 0],
  ];
}

/** Fills the CPU's table of CPUID answers. */
export function installCpuid(vcpu: VcpuState): void {
  const list = leaves();
  list.forEach(([leaf, ...answer], i) => {
    const at = CPUID_ENTRIES + i * CPUID_ENTRY_SIZE;
    [leaf, CPUID_ANY_SUBLEAF, ...answer].forEach((value, j) => {
      vcpu.set32(at + 4 * j, value);
    });
  });
  vcpu.set32(CPUID_COUNT, list.length);
}
