import type { VmOptions } from '@pvm/pvm';
import type { Options } from 'yargs';

/** Options that every command that builds a machine has. */
export interface MachineArgs {
  readonly memory: string | undefined;
  readonly shadowMemory: string;
  readonly jit: 'on' | 'off' | 'sync';
  readonly abi: 'auto' | 'v2';
  readonly design: 'pvm' | 'bare' | undefined;
  readonly directSwitch: boolean;
  readonly prefault: boolean;
}

/** Their descriptions for yargs. */
export const MACHINE_OPTIONS: Readonly<Record<string, Options>> = {
  memory: { alias: 'm', type: 'string', requiresArg: true, describe: 'Guest RAM, 8M to 3584M; default 64M, with a stock kernel 512M' },
  'shadow-memory': { type: 'string', default: '16M', requiresArg: true, describe: 'Memory for shadow page tables' },
  jit: {
    choices: ['on', 'off', 'sync'],
    default: 'on',
    requiresArg: true,
    describe: 'Compile hot code: in the background, never, or at once on the main thread',
  },
  abi: { choices: ['auto', 'v2'], default: 'auto', requiresArg: true, describe: 'Revision of the PVM guest ABI' },
  design: {
    choices: ['pvm', 'bare'],
    requiresArg: true,
    describe: 'pvm: a program on a PVM guest kernel; bare: a stock kernel on a PC, no hypervisor; default: pvm if there is a program',
  },
  'direct-switch': { type: 'boolean', default: true, describe: 'Serve syscalls in the switcher, without a VM exit (--no-direct-switch: not)' },
  prefault: { type: 'boolean', default: true, describe: "Fill the shadow page table when the guest's fault handler returns" },
};

/** The part of `VmOptions` that they set. */
export function machineSettings(a: MachineArgs): Pick<VmOptions, 'memory' | 'shadowMemory' | 'jit' | 'abi' | 'design' | 'directSwitch' | 'prefault'> {
  return {
    ...(a.memory === undefined ? {} : { memory: a.memory }),
    ...(a.design === undefined ? {} : { design: a.design }),
    shadowMemory: a.shadowMemory,
    jit: a.jit,
    abi: a.abi,
    directSwitch: a.directSwitch,
    prefault: a.prefault,
  };
}
