import type { DesignInfo } from '../design.ts';
import { PvmDesign } from './pvm-design.ts';

export const pvm: DesignInfo = {
  title: 'PVM: guest kernel and user at privilege level 3 on shadow page tables',
  platforms: ['program'],
  abiKernels: true,
  optimisations: { 'direct-switch': true, prefault: true },
  switcher: true,
  create: ({ core, ram, ledger, platform, time, options }) =>
    new PvmDesign({
      core,
      ram,
      ledger,
      platform,
      tsc: (vcpu) => time.tsc(vcpu),
      wallClock: () => time.wallClock(),
      abi: options.abi ?? 'auto',
      directSwitch: options.optimisations['direct-switch'] === true,
      prefault: options.optimisations.prefault === true,
    }),
};
