import { P_EVENT_ENTRY, S_CR2, S_CR3, S_GPR, S_RIP } from '@pvm/cpu-jit/layout';
import type { PvmVcpu } from '../abi/pvm-vcpu.ts';
import type { Revision } from '../abi/revision.ts';
import { vectorName } from '../abi/vectors.ts';
import { TripleFault } from '../designs/design.ts';
import { R10, R11, RCX } from '../vcpu-state.ts';
import * as abi from './constants.ts';

/** Vector and error code, 16 bits each; CR2 for #PF. */
function storeEvent(vcpu: PvmVcpu, vector: number, error: number): void {
  const { pvcs } = vcpu;
  const { view } = vcpu.core;
  view.setUint16(pvcs + abi.PVCS_EVENT_VECTOR, vector, true);
  view.setUint16(pvcs + abi.PVCS_EVENT_ERRCODE, error, true);
  if ((vector & 0xff) === abi.VECTOR_PF) vcpu.store64(pvcs + abi.PVCS_CR2, S_CR2);
}

/** Word `event_vector`; its high byte is not zero while an event of smod has not been taken out of the PVCS. */
function eventVector(vcpu: PvmVcpu): number {
  return vcpu.core.view.getUint16(vcpu.pvcs + abi.PVCS_EVENT_VECTOR, true);
}

/** Revision v2: one CR3 whose tables have a kernel and a user shadow, RSP is the guest's business, and the guest returns within smod by itself. */
export const v2: Revision = {
  name: 'v2',
  pvcs: {
    cr2: abi.PVCS_CR2,
    userGsBase: abi.PVCS_USER_GSBASE,
    eflags: abi.PVCS_EFLAGS,
    pkru: abi.PVCS_PKRU,
    rip: abi.PVCS_RIP,
    rcx: abi.PVCS_RCX,
    r11: abi.PVCS_R11,
  },
  pvcsShift: 0,
  smep: true,
  loadTlsResult: 0,

  roots(vcpu) {
    const cr3 = vcpu.get64(S_CR3);
    return { kernel: cr3, user: cr3 };
  },
  setRoots(vcpu) {
    vcpu.copy64(S_CR3, S_GPR + 8 * R10);
  },
  canSwitch: () => true,
  changeMode() {},

  storeUserEvent: storeEvent,

  deliverFromSmod(vcpu, vector, error) {
    const { pvcs } = vcpu;
    const live = eventVector(vcpu);
    if ((live & 0xff00) !== 0) {
      const bit = vector === abi.VECTOR_NMI ? abi.EVENT_VECTOR_NMI : vector === abi.VECTOR_MC ? abi.EVENT_VECTOR_MCE : 0;
      if (bit === 0) throw new TripleFault(`${vectorName(vector)} in supervisor mode while event ${vectorName(live & 0xff)} is still in the PVCS`);
      vcpu.core.view.setUint16(pvcs + abi.PVCS_EVENT_VECTOR, live | bit, true);
      return;
    }
    vcpu.core.u32[(pvcs + abi.PVCS_EFLAGS) >>> 2] = vcpu.virtualRflags;
    vcpu.store64(pvcs + abi.PVCS_RIP, S_RIP);
    vcpu.store64(pvcs + abi.PVCS_RCX, S_GPR + 8 * RCX);
    vcpu.store64(pvcs + abi.PVCS_R11, S_GPR + 8 * R11);
    storeEvent(vcpu, vector | abi.EVENT_VECTOR_STD, error);
    vcpu.setVirtualIf(false);
    vcpu.enterAt(P_EVENT_ENTRY, abi.EVENT_ENTRY_SMOD_OFFSET);
  },
  takesInterrupt: (vcpu) => (eventVector(vcpu) & 0xff00) === 0,
  takesNmi: () => true,

  syntheticReturn: () => undefined,
  readMsr: () => undefined,
  writeMsr: () => undefined,
};
