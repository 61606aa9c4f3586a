import { GS, S_CR4, S_GPR, S_RIP } from '@pvm/cpu-jit/layout';
import { kick, sendIpis, yieldTo } from '../kvm-pv/hypercalls.ts';
import { R10, R11, RAX, RBX, RCX, RDX } from '../vcpu-state.ts';
import * as abi from './constants.ts';
import type { Devices } from './devices.ts';
import type { KvmClock } from './kvm-clock.ts';
import { readMsr, writeMsr } from './msrs.ts';
import { ATTR_DATA, CR4_LA57, type PvmVcpu } from './pvm-vcpu.ts';

const EIO = -5;
const EOPNOTSUPP = -95;
const EFAULT = -14;

const NAMES: ReadonlyMap<number, string> = new Map([
  [abi.HC_LOAD_PGTBL, 'LOAD_PGTBL'],
  [abi.HC_IRQ_WIN, 'IRQ_WIN'],
  [abi.HC_IRQ_HALT, 'IRQ_HALT'],
  [abi.HC_TLB_FLUSH, 'TLB_FLUSH'],
  [abi.HC_TLB_FLUSH_CURRENT, 'TLB_FLUSH_CURRENT'],
  [abi.HC_TLB_INVLPG, 'TLB_INVLPG'],
  [abi.HC_LOAD_GS, 'LOAD_GS'],
  [abi.HC_RDMSR, 'RDMSR'],
  [abi.HC_WRMSR, 'WRMSR'],
  [abi.HC_LOAD_TLS, 'LOAD_TLS'],
  [abi.KVM_HC_VAPIC_POLL_IRQ, 'KVM_VAPIC_POLL_IRQ'],
  [abi.KVM_HC_KICK_CPU, 'KVM_KICK_CPU'],
  [abi.KVM_HC_CLOCK_PAIRING, 'KVM_CLOCK_PAIRING'],
  [abi.KVM_HC_SEND_IPI, 'KVM_SEND_IPI'],
  [abi.KVM_HC_SCHED_YIELD, 'KVM_SCHED_YIELD'],
]);

/** Name of a hypercall for the ledger. */
export function hypercallName(number: number): string {
  return NAMES.get(number) ?? 'unknown';
}

/**
 * Perform the hypercall of the SYSCALL at RIP (`length` bytes): RAX, RBX, R10, RDX in, RAX out; RCX and R11 are clobbered as SYSCALL does.
 *
 * @throws TripleFault
 */
export function hypercall(vcpu: PvmVcpu, clock: KvmClock, devices: Devices, length: number): void {
  vcpu.skip(length);
  vcpu.copy64(S_GPR + 8 * RCX, S_RIP);
  vcpu.setRegNumber(R11, vcpu.rflags);
  const result = dispatch(vcpu, clock, devices, vcpu.reg32(RAX));
  if (typeof result === 'bigint') vcpu.setReg(RAX, result);
  else vcpu.setRegNumber(RAX, result);
}

/** RAX of the call: a number where that is wide enough. */
function dispatch(vcpu: PvmVcpu, clock: KvmClock, devices: Devices, number: number): number | bigint {
  switch (number) {
    case abi.HC_LOAD_PGTBL: {
      const flags = vcpu.reg32(RBX);
      const cr4 = vcpu.get64(S_CR4);
      vcpu.set64(S_CR4, (flags & abi.LOAD_PGTBL_LA57) !== 0 ? cr4 | CR4_LA57 : cr4 & ~CR4_LA57);
      vcpu.revision.setRoots(vcpu);
      vcpu.loadRoots((flags & abi.LOAD_PGTBL_FLUSH) !== 0);
      return 0;
    }
    case abi.HC_IRQ_WIN:
      vcpu.clearInterruptWaits();
      return 0;
    case abi.HC_IRQ_HALT:
      vcpu.clearInterruptWaits();
      vcpu.setVirtualIf(true);
      vcpu.halted = !vcpu.interruptPending;
      return 0;
    case abi.HC_TLB_FLUSH:
      vcpu.mmu.flushAll(vcpu.index);
      return 0;
    case abi.HC_TLB_FLUSH_CURRENT:
      vcpu.mmu.flushCurrent(vcpu.index);
      return 0;
    case abi.HC_TLB_INVLPG:
      vcpu.mmu.invlpg(vcpu.index, vcpu.reg32(RBX), vcpu.get32(S_GPR + 8 * RBX + 4));
      return 0;
    case abi.HC_LOAD_GS:
      return loadGs(vcpu, vcpu.reg32(RBX) & 0xffff);
    case abi.HC_RDMSR:
      return readMsr(vcpu, clock, devices, vcpu.reg32(RBX)) ?? 0;
    case abi.HC_WRMSR:
      return writeMsr(vcpu, clock, devices, vcpu.reg32(RBX), vcpu.reg(R10)) ? 0 : EIO;
    case abi.HC_LOAD_TLS:
      [RBX, R10, RDX].forEach((register, i) => {
        vcpu.tls[i] = sanitise(vcpu.reg(register));
      });
      return vcpu.revision.loadTlsResult;
    case abi.KVM_HC_VAPIC_POLL_IRQ:
      return 0;
    case abi.KVM_HC_KICK_CPU:
      return devices.kvm === undefined ? -abi.KVM_ENOSYS : kick(devices.kvm, vcpu.reg32(R10));
    case abi.KVM_HC_SEND_IPI:
      return devices.kvm === undefined ? -abi.KVM_ENOSYS : sendIpis(vcpu, devices.kvm, R10);
    case abi.KVM_HC_SCHED_YIELD:
      return devices.kvm === undefined ? -abi.KVM_ENOSYS : yieldTo(devices.kvm, vcpu.reg32(RBX));
    case abi.KVM_HC_CLOCK_PAIRING:
      if (vcpu.reg(R10) !== 0n) return EOPNOTSUPP;
      return clock.writePairing(Number(vcpu.reg(RBX))) ? 0 : EFAULT;
    default:
      return -abi.KVM_ENOSYS;
  }
}

/** What a selector names in the hypervisor's GDT: base and attributes of a data segment, or undefined. */
export function lookupDataSegment(vcpu: PvmVcpu, selector: number): { base: bigint; limit: number; attributes: number } | undefined {
  if ((selector & 7) !== 3) return undefined;
  if (selector === abi.USER_DS) return { base: 0n, limit: 0xffff_ffff, attributes: ATTR_DATA };
  const descriptor = vcpu.tls[(selector >> 3) - abi.GDT_TLS_FIRST] ?? 0n;
  if (descriptor === 0n) return undefined;
  const base = ((descriptor >> 16n) & 0xff_ffffn) | ((descriptor >> 32n) & 0xff00_0000n);
  const raw = Number((descriptor & 0xffffn) | ((descriptor >> 32n) & 0xf_0000n));
  const attributes = Number((descriptor >> 40n) & 0xf0ffn);
  return { base, limit: (attributes & 0x8000) !== 0 ? ((raw << 12) | 0xfff) >>> 0 : raw, attributes };
}

/** The selector is loaded, the base of the kernel stays: the guest stores the returned one as the user's. */
function loadGs(vcpu: PvmVcpu, selector: number): bigint {
  const segment = lookupDataSegment(vcpu, selector);
  vcpu.setSelector(GS, segment === undefined ? 0 : selector);
  return segment?.base ?? 0n;
}

/** LOAD_TLS takes present 32-bit data segments of DPL 3; anything else becomes an empty entry. */
function sanitise(descriptor: bigint): bigint {
  const access = Number((descriptor >> 40n) & 0xffn);
  const flags = Number((descriptor >> 52n) & 0xfn);
  // Present, DPL 3, S, not code; L clear, D/B set. The accessed bit is set as the CPU would do.
  const ok = (access & 0xf8) === 0xf0 && (flags & 2) === 0 && (flags & 4) !== 0;
  return ok ? descriptor | (1n << 40n) : 0n;
}
