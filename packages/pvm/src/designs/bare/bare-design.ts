import { EXIT_PRIVILEGED } from '@pvm/cpu-jit/layout';
import { kvmHypercall } from '../../kvm-pv/hypercalls.ts';
import type { DesignInfo, ExitOutcome } from '../design.ts';
import { NativeDesign } from '../native/native-design.ts';
import { perVcpu } from '../per-vcpu.ts';

const VECTOR_UD = 6;

/**
 * No hypervisor under the guest: the CPU walks the guest's page tables, delivers its events and does its privileged
 * instructions. Only what the devices have to answer leaves it: ports, memory outside RAM, some MSRs, HLT.
 */
class BareDesign extends NativeDesign {
  readonly name = 'bare';
  readonly interruptRow = -1;
  readonly timerRow = -1;

  /** VMCALL and VMMCALL: calls of the paravirtual interface, and without one undefined instructions. @throws TripleFault for any other exit */
  protected override designExit(reason: number, outcome: ExitOutcome): void {
    if (reason !== EXIT_PRIVILEGED) return super.designExit(reason, outcome);
    outcome.row = this.ledger.row('VMCALL');
    if (this.platform.kvm === undefined) {
      this.core.raise(this.index, VECTOR_UD);
      return;
    }
    kvmHypercall(this.vcpu, this.platform.kvm);
    this.core.complete(this.index);
  }

  /** The walker raises #PF by itself. */
  mmuFault(): 1 {
    return 1;
  }
}

export const bare: DesignInfo = {
  title: 'no hypervisor: only accesses to devices leave the guest',
  platforms: ['program', 'pc'],
  abiKernels: false,
  optimisations: { kpti: false },
  switcher: false,
  smp: true,
  create: (context) => perVcpu(context, (index) => new BareDesign(context, undefined, index)),
};
