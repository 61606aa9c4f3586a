import { P_EVENT_ENTRY, P_RETS_RIP, P_SUPERVISOR_RSP, P_SWITCH_CR3, S_CR2, S_CR3, S_GPR, S_RIP } from '@pvm/cpu-jit/layout';
import type { PvmVcpu } from '../abi/pvm-vcpu.ts';
import type { Revision } from '../abi/revision.ts';
import { vectorName } from '../abi/vectors.ts';
import { TripleFault } from '../designs/design.ts';
import { GuestPageFault, readVirtual, writeVirtual } from '../guest-memory.ts';
import { R10, R11, RCX, RDX, RSP } from '../vcpu-state.ts';
import * as abi from './constants.ts';

const RSP_FIELD = S_GPR + 8 * RSP;

/** MSRs that are a field of the state block. */
const FIELDS: ReadonlyMap<number, number> = new Map([
  [abi.MSR_PVM_SUPERVISOR_RSP, P_SUPERVISOR_RSP],
  [abi.MSR_PVM_RETS_RIP, P_RETS_RIP],
  [abi.MSR_PVM_SWITCH_CR3, P_SWITCH_CR3],
]);

/** RSP below the red zone, aligned. */
function eventStack(vcpu: PvmVcpu): bigint {
  return BigInt.asUintN(64, vcpu.reg(RSP) - vcpu.redZone) & ~15n;
}

/** An exception or NMI in smod: its frame goes to the stack. */
function pushException(vcpu: PvmVcpu, vector: number, error: number): void {
  const rsp = eventStack(vcpu) - BigInt(abi.FRAME_SIZE);
  const frame = new DataView(new ArrayBuffer(abi.FRAME_SIZE));
  frame.setUint32(abi.FRAME_ERRCODE_VECTOR, error, true);
  frame.setUint32(abi.FRAME_ERRCODE_VECTOR + 4, vector, true);
  frame.setBigUint64(abi.FRAME_RIP, vcpu.rip, true);
  frame.setBigUint64(abi.FRAME_CS, BigInt(abi.USER_CS), true);
  frame.setBigUint64(abi.FRAME_RFLAGS, BigInt(vcpu.virtualRflags), true);
  frame.setBigUint64(abi.FRAME_RSP, vcpu.reg(RSP), true);
  frame.setBigUint64(abi.FRAME_SS, BigInt(abi.USER_DS), true);
  frame.setBigUint64(abi.FRAME_RCX, vcpu.reg(RCX), true);
  frame.setBigUint64(abi.FRAME_R11, vcpu.reg(R11), true);
  try {
    writeVirtual(vcpu, rsp, new Uint8Array(frame.buffer));
  } catch (e) {
    if (!(e instanceof GuestPageFault)) throw e;
    throw new TripleFault(`${vectorName(vector)} in supervisor mode: the stack at 0x${rsp.toString(16)} cannot be written`);
  }
  if (vector === abi.VECTOR_PF) vcpu.store64(vcpu.pvcs + abi.PVCS_CR2, S_CR2);
  vcpu.setReg(RSP, rsp);
  vcpu.setVirtualIf(false);
  vcpu.enterAt(P_EVENT_ENTRY, abi.EVENT_ENTRY_SMOD_EXCEPTION);
}

/** An interrupt in smod: what it interrupted goes to the PVCS. */
function saveInterrupted(vcpu: PvmVcpu, vector: number): void {
  const { pvcs } = vcpu;
  const { u32 } = vcpu.core;
  u32[(pvcs + abi.PVCS_EFLAGS) >>> 2] = vcpu.virtualRflags;
  u32[(pvcs + abi.PVCS_EVENT_VECTOR) >>> 2] = vector;
  vcpu.store64(pvcs + abi.PVCS_RIP, S_RIP);
  vcpu.store64(pvcs + abi.PVCS_RSP, RSP_FIELD);
  vcpu.store64(pvcs + abi.PVCS_RCX, S_GPR + 8 * RCX);
  vcpu.store64(pvcs + abi.PVCS_R11, S_GPR + 8 * R11);
  vcpu.setReg(RSP, eventStack(vcpu));
  vcpu.setVirtualIf(false);
  vcpu.enterAt(P_EVENT_ENTRY, abi.EVENT_ENTRY_SMOD_INTERRUPT);
}

/** Revision rfc-v1: tables and stack pointer are exchanged with every change of mode; exceptions of smod have a frame on the stack, and ERETS returns from it. */
export const rfcV1: Revision = {
  name: 'rfc-v1',
  pvcs: {
    cr2: abi.PVCS_CR2,
    userGsBase: abi.PVCS_USER_GSBASE,
    eflags: abi.PVCS_EFLAGS,
    pkru: abi.PVCS_PKRU,
    rip: abi.PVCS_RIP,
    rcx: abi.PVCS_RCX,
    r11: abi.PVCS_R11,
  },
  pvcsShift: 8,
  smep: false,
  /** Index of the first entry. */
  loadTlsResult: abi.GDT_TLS_FIRST,

  roots(vcpu) {
    return { kernel: vcpu.get64(S_CR3), user: vcpu.get64(P_SWITCH_CR3) };
  },
  setRoots(vcpu) {
    vcpu.copy64(S_CR3, S_GPR + 8 * R10);
    vcpu.copy64(P_SWITCH_CR3, S_GPR + 8 * RDX);
  },
  // A guest that uses one table for both modes marks one of the values in its low bits.
  canSwitch: (vcpu) => !vcpu.nmiBlocked && !vcpu.equal64(S_CR3, P_SWITCH_CR3),
  changeMode(vcpu, toSmod) {
    const { pvcs } = vcpu;
    if (toSmod) {
      vcpu.store64(pvcs + abi.PVCS_RSP, RSP_FIELD);
      vcpu.copy64(RSP_FIELD, P_SUPERVISOR_RSP);
    } else {
      vcpu.copy64(P_SUPERVISOR_RSP, RSP_FIELD);
      vcpu.load64(RSP_FIELD, pvcs + abi.PVCS_RSP);
      vcpu.nmiBlocked = false;
    }
    const other = vcpu.get64(P_SWITCH_CR3);
    vcpu.copy64(P_SWITCH_CR3, S_CR3);
    vcpu.set64(S_CR3, other);
  },

  storeUserEvent(vcpu, vector, error) {
    const { pvcs } = vcpu;
    const { u32 } = vcpu.core;
    u32[(pvcs + abi.PVCS_EVENT_VECTOR) >>> 2] = vector;
    u32[(pvcs + abi.PVCS_EVENT_ERRCODE) >>> 2] = error;
    if (vector === abi.VECTOR_PF) vcpu.store64(pvcs + abi.PVCS_CR2, S_CR2);
    if (vector === abi.VECTOR_NMI) vcpu.nmiBlocked = true;
  },
  deliverFromSmod(vcpu, vector, error) {
    if (vector >= abi.FIRST_INTERRUPT) saveInterrupted(vcpu, vector);
    else pushException(vcpu, vector, error);
    if (vector === abi.VECTOR_NMI) vcpu.nmiBlocked = true;
  },
  takesInterrupt: () => true,
  takesNmi: (vcpu) => !vcpu.nmiBlocked,

  /** ERETS: RIP, RFLAGS with the virtual IF, RSP, RCX and R11 from the frame at RSP. */
  syntheticReturn(vcpu) {
    if (!vcpu.equal64(S_RIP, P_RETS_RIP)) return undefined;
    const frame = readVirtual(vcpu, vcpu.reg(RSP), abi.FRAME_SIZE);
    const rflags = frame.getUint32(abi.FRAME_RFLAGS, true);
    vcpu.rip = frame.getBigUint64(abi.FRAME_RIP, true);
    vcpu.setReg(RSP, frame.getBigUint64(abi.FRAME_RSP, true));
    vcpu.setReg(RCX, frame.getBigUint64(abi.FRAME_RCX, true));
    vcpu.setReg(R11, frame.getBigUint64(abi.FRAME_R11, true));
    vcpu.rflags = (rflags & abi.RFLAGS_ERETU) | abi.RFLAGS_SMOD;
    vcpu.setVirtualIf((rflags & abi.RFLAGS_IF) !== 0);
    vcpu.clearInterruptWaits();
    vcpu.nmiBlocked = false;
    vcpu.retire();
    return 'ERETS';
  },

  readMsr(vcpu, index) {
    const field = FIELDS.get(index);
    if (field !== undefined) return vcpu.get64(field);
    return index === abi.MSR_PVM_SUPERVISOR_REDZONE ? vcpu.redZone : undefined;
  },
  writeMsr(vcpu, index, value) {
    const field = FIELDS.get(index);
    if (field !== undefined) {
      vcpu.set64(field, value);
      // Nothing is flushed: the tables are only switched to.
      if (index === abi.MSR_PVM_SWITCH_CR3) vcpu.loadRoots(false);
      return true;
    }
    if (index !== abi.MSR_PVM_SUPERVISOR_REDZONE) return undefined;
    vcpu.redZone = value;
    return true;
  },
};
