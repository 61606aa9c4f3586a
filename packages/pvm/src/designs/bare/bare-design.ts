import type { DesignInfo } from '../design.ts';
import { NativeDesign } from '../native/native-design.ts';

/**
 * No hypervisor under the guest: the CPU walks the guest's page tables, delivers its events and does its privileged
 * instructions. Only what the devices have to answer leaves it: ports, memory outside RAM, some MSRs, HLT.
 */
class BareDesign extends NativeDesign {
  readonly name = 'bare';
  readonly interruptRow = -1;
  readonly timerRow = -1;

  /** The walker raises #PF by itself. */
  mmuFault(): 1 {
    return 1;
  }
}

export const bare: DesignInfo = {
  title: 'no hypervisor: only accesses to devices leave the guest',
  platforms: ['pc'],
  optimisations: {},
  switcher: false,
  create: (context) => new BareDesign(context),
};
