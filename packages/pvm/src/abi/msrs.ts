import {
  FS,
  GS,
  P_EVENT_ENTRY,
  P_RETU_RIP,
  S_APIC_BASE,
  S_CSTAR,
  S_EFER,
  S_KERNEL_GS_BASE,
  S_LSTAR,
  S_PAT,
  S_SEG,
  S_SFMASK,
  S_STAR,
  S_SYSENTER_CS,
  S_SYSENTER_EIP,
  S_SYSENTER_ESP,
  S_TSC_AUX,
  S_TSC_OFFSET,
  SEG_BASE,
  SEG_STRIDE,
} from '@pvm/cpu-jit/layout';
import * as rfc from '../abi-rfc-v1/constants.ts';
import { TripleFault } from '../designs/design.ts';
import { packRange, parseRange } from './address-range.ts';
import * as abi from './constants.ts';
import type { Devices } from './devices.ts';
import type { KvmClock } from './kvm-clock.ts';
import { EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, type PvmVcpu } from './pvm-vcpu.ts';

// SDM vol. 4, table 2-2.
const IA32_TSC = 0x10;
const IA32_APIC_BASE = 0x1b;
const IA32_BIOS_SIGN_ID = 0x8b;
const IA32_MTRRCAP = 0xfe;
const IA32_MCG_CAP = 0x179;
const IA32_MISC_ENABLE = 0x1a0;
const IA32_MTRR_DEF_TYPE = 0x2ff;
const IA32_EFER = 0xc000_0080;
const IA32_STAR = 0xc000_0081;

/** MSRs that are a field of the state block. `canonical`: other values are #GP; `mask`: bits that may be set. */
const FIELDS: ReadonlyMap<number, { readonly field: number; readonly canonical?: true; readonly mask?: bigint }> = new Map([
  [0x174, { field: S_SYSENTER_CS, mask: 0xffff_ffffn }],
  [0x175, { field: S_SYSENTER_ESP, canonical: true }],
  [0x176, { field: S_SYSENTER_EIP, canonical: true }],
  [0x277, { field: S_PAT }],
  [0xc000_0082, { field: S_LSTAR, canonical: true }],
  [0xc000_0083, { field: S_CSTAR, canonical: true }],
  [0xc000_0084, { field: S_SFMASK, mask: 0xffff_ffffn }],
  [0xc000_0100, { field: S_SEG + FS * SEG_STRIDE + SEG_BASE, canonical: true }],
  [0xc000_0101, { field: S_SEG + GS * SEG_STRIDE + SEG_BASE, canonical: true }],
  [0xc000_0102, { field: S_KERNEL_GS_BASE, canonical: true }],
  [0xc000_0103, { field: S_TSC_AUX, mask: 0xffff_ffffn }],
  [abi.MSR_PVM_RETU_RIP, { field: P_RETU_RIP }],
]);

/** Bits of IA32_APIC_BASE that a write may set, where no local APIC answers for it. */
const APIC_BASE_WRITABLE = 0xf_ffff_fd00n;

/** MSRs that read as a constant and ignore writes, as under KVM. */
const CONSTANTS: ReadonlyMap<number, bigint> = new Map([
  [IA32_BIOS_SIGN_ID, 0x1_0000_0000n],
  [IA32_MTRRCAP, 0n],
  [IA32_MCG_CAP, 0n],
  [IA32_MISC_ENABLE, 1n],
  [IA32_MTRR_DEF_TYPE, 0x806n],
]);

/** Written by a guest before its first event, they say that it speaks rfc-v1. */
const RFC_V1_SIGNS: ReadonlySet<number> = new Set([rfc.MSR_PVM_SWITCH_CR3, rfc.MSR_PVM_SUPERVISOR_RSP, rfc.MSR_PVM_RETS_RIP]);

const EFER_WRITABLE = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;

/** RDMSR. @returns undefined for #GP */
export function readMsr(vcpu: PvmVcpu, clock: KvmClock, devices: Devices, index: number): bigint | undefined {
  const known = FIELDS.get(index);
  if (known !== undefined) return vcpu.get64(known.field);
  switch (index) {
    case IA32_TSC:
      return clock.tsc();
    case IA32_EFER:
      return vcpu.get64(S_EFER);
    case IA32_STAR:
      return vcpu.get64(S_STAR);
    case abi.MSR_PVM_LINEAR_ADDRESS_RANGE:
      return packRange(vcpu.range);
    case abi.MSR_PVM_VCPU_STRUCT:
      return BigInt(Math.max(vcpu.pvcsAddress, 0));
    case abi.MSR_PVM_EVENT_ENTRY:
      return vcpu.get64(P_EVENT_ENTRY);
    default:
      return vcpu.revision.readMsr(vcpu, index) ?? clock.readMsr(index) ?? devices.readMsr(vcpu.index, index) ?? readFallback(vcpu, index);
  }
}

/** WRMSR. @returns false for #GP. @throws TripleFault for an event entry that is not canonical */
export function writeMsr(vcpu: PvmVcpu, clock: KvmClock, devices: Devices, index: number, value: bigint): boolean {
  const known = FIELDS.get(index);
  if (known !== undefined) {
    if (known.canonical && !vcpu.isCanonical(value)) return false;
    if (known.mask !== undefined && (value & ~known.mask) !== 0n) return false;
    vcpu.set64(known.field, value);
    return true;
  }
  switch (index) {
    case IA32_TSC:
      vcpu.set64(S_TSC_OFFSET, BigInt.asUintN(64, vcpu.get64(S_TSC_OFFSET) + value - clock.tsc()));
      return true;
    case IA32_EFER: {
      const old = vcpu.get64(S_EFER);
      if ((value & ~EFER_WRITABLE) !== 0n || ((value ^ old) & EFER_LME) !== 0n) return false;
      // PVM keeps SCE set and the guest in long mode.
      vcpu.set64(S_EFER, (value & EFER_NXE) | EFER_SCE | EFER_LME | EFER_LMA);
      if (((value ^ old) & EFER_NXE) !== 0n) vcpu.loadRoots(true);
      return true;
    }
    case IA32_STAR:
      // The user CS that SYSRET would load is bits 48..63 plus 16.
      if (((Number(value >> 48n) + 16) | 3) !== abi.USER_CS) return false;
      vcpu.set64(S_STAR, value);
      return true;
    case abi.MSR_PVM_LINEAR_ADDRESS_RANGE: {
      const range = parseRange(value);
      if (range === undefined) return false;
      vcpu.range = range;
      vcpu.mmu.zapAll();
      return true;
    }
    case abi.MSR_PVM_VCPU_STRUCT:
      return vcpu.setPvcs(value);
    case abi.MSR_PVM_EVENT_ENTRY:
      for (const offset of abi.EVENT_ENTRIES) {
        if (!vcpu.isCanonical(value + BigInt(offset))) throw new TripleFault(`event entry 0x${value.toString(16)} + ${offset} is not canonical`);
      }
      vcpu.set64(P_EVENT_ENTRY, value);
      return true;
    default:
      return writeRevisionMsr(vcpu, index, value) ?? (clock.writeMsr(index, value) || writeDeviceMsr(vcpu, devices, index, value));
  }
}

function readFallback(vcpu: PvmVcpu, index: number): bigint | undefined {
  return index === IA32_APIC_BASE ? vcpu.get64(S_APIC_BASE) : CONSTANTS.get(index);
}

/** MSRs of the platform's devices; without a local APIC its base is just kept. */
function writeDeviceMsr(vcpu: PvmVcpu, devices: Devices, index: number, value: bigint): boolean {
  if (index !== IA32_APIC_BASE || devices.readMsr(vcpu.index, index) !== undefined) return devices.writeMsr(vcpu.index, index, value) || CONSTANTS.has(index);
  if ((value & ~APIC_BASE_WRITABLE) !== 0n) return false;
  vcpu.set64(S_APIC_BASE, value);
  return true;
}

/** MSRs of one revision only. Those of rfc-v1 may decide that the guest speaks it. Undefined: not one of them. */
function writeRevisionMsr(vcpu: PvmVcpu, index: number, value: bigint): boolean | undefined {
  if (RFC_V1_SIGNS.has(index)) vcpu.becomeRfcV1();
  return vcpu.revision.writeMsr(vcpu, index, value) ?? (index === rfc.MSR_PVM_SUPERVISOR_REDZONE ? vcpu.keepRedZone(value) : undefined);
}

const NAMES: ReadonlyMap<number, string> = new Map([
  [IA32_TSC, 'TSC'],
  [IA32_EFER, 'EFER'],
  [IA32_STAR, 'STAR'],
  [0xc000_0082, 'LSTAR'],
  [0xc000_0100, 'FS_BASE'],
  [0xc000_0101, 'GS_BASE'],
  [0xc000_0102, 'KERNEL_GS_BASE'],
  [0xc000_0103, 'TSC_AUX'],
  [abi.MSR_PVM_LINEAR_ADDRESS_RANGE, 'PVM_LINEAR_ADDRESS_RANGE'],
  [abi.MSR_PVM_VCPU_STRUCT, 'PVM_VCPU_STRUCT'],
  [abi.MSR_PVM_EVENT_ENTRY, 'PVM_EVENT_ENTRY'],
  [abi.MSR_PVM_RETU_RIP, 'PVM_RETU_RIP'],
  [rfc.MSR_PVM_SUPERVISOR_RSP, 'PVM_SUPERVISOR_RSP'],
  [rfc.MSR_PVM_SUPERVISOR_REDZONE, 'PVM_SUPERVISOR_REDZONE'],
  [rfc.MSR_PVM_RETS_RIP, 'PVM_RETS_RIP'],
  [rfc.MSR_PVM_SWITCH_CR3, 'PVM_SWITCH_CR3'],
]);

/** Name of an MSR for reports. */
export function msrName(index: number): string {
  return NAMES.get(index) ?? `0x${index.toString(16)}`;
}
