import type { CpuCore } from '@pvm/cpu-jit';
import {
  INTERCEPT_CACHE,
  INTERCEPT_CPUID,
  INTERCEPT_CR8,
  INTERCEPT_MONITOR,
  INTERCEPT_MSR,
  INTERCEPT_RDPMC,
  INTERCEPT_VMCALL,
  INTERCEPT_XSETBV,
  V_CR0_MASK,
  V_CR4_MASK,
  V_EXC_BITMAP,
  V_INTERCEPTS,
  V_IO_BITMAP,
  V_MSR_BITMAP,
  V_PLE_GAP,
  V_PLE_WINDOW,
} from '@pvm/cpu-jit/layout';
import type { VcpuState } from '../../vcpu-state.ts';

const PAGE = 4096;

/** Pages beside the VMCS: MSR bitmap, I/O bitmaps A and B, APIC-access page. They are the last frames of the pool. */
export const VMX_FRAMES = 4;

/** HPA of the APIC-access page. */
export function apicAccessPage(core: CpuCore): number {
  return frame(core, 3);
}

function frame(core: CpuCore, n: number): number {
  return core.framePoolBase + (core.framePoolFrames - VMX_FRAMES + n) * PAGE;
}

// SDM vol. 4, table 2-2.
const IA32_TSC = 0x10;
/** CS, ESP, EIP. */
const IA32_SYSENTER = [0x174, 0x175, 0x176] as const;
/** FS_BASE, GS_BASE, KERNEL_GS_BASE. */
const SEGMENT_BASES = [0xc000_0100, 0xc000_0101, 0xc000_0102] as const;

/** #DB, #UD, #AC, #MC. */
const EXCEPTIONS = (1 << 1) | (1 << 6) | (1 << 17) | (1 << 18);
export const CR0_TS = 1 << 3;
/** PVI TSD DE PGE PCE OSFXSR OSXMMEXCPT FSGSBASE. */
export const CR4_GUEST_OWNED = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 7) | (1 << 8) | (1 << 9) | (1 << 10) | (1 << 16);
/** KVM's `ple_gap` and `ple_window`. */
const PLE_GAP = 128;
const PLE_WINDOW = 4096;

/** What leaves the guest on a VMX host without APIC virtualisation, as Linux' KVM sets it up. */
export function programControls(core: CpuCore, vcpu: VcpuState): void {
  const kinds = INTERCEPT_XSETBV | INTERCEPT_CACHE | INTERCEPT_MONITOR | INTERCEPT_RDPMC | INTERCEPT_VMCALL;
  vcpu.set32(V_INTERCEPTS, INTERCEPT_CPUID | INTERCEPT_MSR | INTERCEPT_CR8 | kinds);
  vcpu.set32(V_EXC_BITMAP, EXCEPTIONS);
  vcpu.set32(V_CR0_MASK, ~CR0_TS);
  vcpu.set32(V_CR4_MASK, ~CR4_GUEST_OWNED);
  vcpu.set32(V_PLE_GAP, PLE_GAP);
  vcpu.set32(V_PLE_WINDOW, PLE_WINDOW);

  const msrs = core.u8.subarray(frame(core, 0), frame(core, 1)).fill(0xff);
  openMsr(msrs, IA32_TSC, false);
  for (const msr of [...IA32_SYSENTER, ...SEGMENT_BASES]) openMsr(msrs, msr, true);
  vcpu.set32(V_MSR_BITMAP, frame(core, 0));

  // Every port leaves: KVM no longer gives its guests even port 0x80 (CVE-2017-1000407).
  core.u8.fill(0xff, frame(core, 1), frame(core, 3));
  vcpu.set32(V_IO_BITMAP, frame(core, 1));
}

/** Let the guest read the MSR, and write it (SDM vol. 3, 25.6.9: reads of low and of high MSRs, then writes). */
function openMsr(bitmap: Uint8Array, msr: number, write: boolean): void {
  for (const half of write ? [0, 2048] : [0]) {
    const at = half + (msr >= 0xc000_0000 ? 1024 : 0) + ((msr & 0x1fff) >> 3);
    bitmap[at] = (bitmap[at] ?? 0) & ~(1 << (msr & 7));
  }
}
