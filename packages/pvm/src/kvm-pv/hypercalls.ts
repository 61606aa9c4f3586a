import { S_CODE_SIZE, S_CPL, S_GPR } from '@pvm/cpu-jit/layout';
import * as abi from '../abi/constants.ts';
import { RAX, RBX, RCX, RDX, RSI, type VcpuState } from '../vcpu-state.ts';
import type { KvmPv } from './kvm-pv.ts';

const EPERM = 1;
const EINVAL = 22;
const EFAULT = 14;
const EOPNOTSUPP = 95;
const CLOCK_WALL = 0;
/** Delivery modes of an interrupt command (SDM vol. 3, 11.6.1) that SEND_IPI takes. */
const ICR_MODE = 0x700;
const MODE_FIXED = 0;
const MODE_NMI = 0x400;
const NMI = 4;
/** vCPUs that the two bit maps of SEND_IPI reach. */
const MAP_BITS = 64;

/** What the calls do to other vCPUs. */
export interface KvmHost {
  readonly vcpus: number;
  kvmPv(vcpu: number): KvmPv | undefined;
  /** Interrupt message to the APIC of a vCPU. `delivery` is 0 (fixed) or 4 (NMI). */
  sendIpi(vcpu: number, delivery: number, vector: number): void;
  /** Wakes a vCPU that halts. */
  wake(vcpu: number): void;
  /** The vCPU that runs gives its turn to another. */
  yieldTo(vcpu: number): void;
}

/**
 * KVM's hypercalls (Linux Documentation/virt/kvm/x86/hypercalls.rst): number in RAX, arguments in RBX, RCX, RDX, RSI, result in RAX.
 *
 * @param host undefined: the guest is offered nothing but the poll that does nothing
 */
export function kvmHypercall(vcpu: VcpuState, host: KvmHost | undefined): void {
  vcpu.setRegNumber(RAX, vcpu.get32(S_CPL) === 0 ? dispatch(vcpu, host) : -EPERM);
}

function dispatch(vcpu: VcpuState, host: KvmHost | undefined): number {
  const number = vcpu.reg32(RAX);
  if (number === abi.KVM_HC_VAPIC_POLL_IRQ) return 0;
  if (host === undefined) return -abi.KVM_ENOSYS;
  switch (number) {
    case abi.KVM_HC_KICK_CPU:
      return kick(host, vcpu.reg32(RCX));
    case abi.KVM_HC_CLOCK_PAIRING:
      if (vcpu.reg32(RCX) !== CLOCK_WALL) return -EOPNOTSUPP;
      return host.kvmPv(vcpu.index)?.clock.writePairing(Number(vcpu.reg(RBX))) === true ? 0 : -EFAULT;
    case abi.KVM_HC_SEND_IPI:
      return sendIpis(vcpu, host);
    case abi.KVM_HC_SCHED_YIELD:
      return yieldTo(host, vcpu.reg32(RBX));
    default:
      return -abi.KVM_ENOSYS;
  }
}

/** KICK_CPU: the HLT that the vCPU with this APIC ID is in, or its next, is over. */
export function kick(host: KvmHost, target: number): 0 {
  host.kvmPv(target)?.kick();
  if (target < host.vcpus) host.wake(target);
  return 0;
}

/** SCHED_YIELD: the vCPU with this APIC ID gets the turn of the caller. */
export function yieldTo(host: KvmHost, target: number): 0 {
  if (target < host.vcpus) host.yieldTo(target);
  return 0;
}

/** Bit maps of the APIC IDs from RDX on in RBX and RCX, or the register `upper`, interrupt command in RSI. @returns how many vCPUs it reached, or an error */
export function sendIpis(vcpu: VcpuState, host: KvmHost, upper = RCX): number {
  const first = vcpu.reg32(RDX);
  const icr = vcpu.reg32(RSI);
  const mode = icr & ICR_MODE;
  if (mode !== MODE_FIXED && mode !== MODE_NMI) return -EINVAL;
  const isLong = vcpu.get32(S_CODE_SIZE) === 64;
  let reached = 0;
  for (let target = first; target < host.vcpus; target++) {
    const bit = target - first;
    const [register, at] = bit < mapBits(isLong) ? [RBX, bit] : [upper, bit - mapBits(isLong)];
    if (at >= mapBits(isLong)) break;
    if (((vcpu.get32(S_GPR + 8 * register + 4 * (at >> 5)) >>> (at & 31)) & 1) === 0) continue;
    host.sendIpi(target, mode === MODE_NMI ? NMI : 0, icr & 0xff);
    reached++;
  }
  return reached;
}

/** Outside 64-bit code registers have 32 bits. */
function mapBits(isLong: boolean): number {
  return isLong ? MAP_BITS : MAP_BITS / 2;
}
