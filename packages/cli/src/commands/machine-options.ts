import type { VmOptions } from '@pvm/pvm';
import type { Options } from 'yargs';

/** Options that every command that builds a machine has. */
export interface MachineArgs {
  readonly memory: string;
  readonly shadowMemory: string;
  readonly jit: 'on' | 'off' | 'sync';
  readonly abi: 'auto' | 'v2';
  readonly design: 'pvm';
  readonly directSwitch: boolean;
  readonly prefault: boolean;
}

/** Their descriptions for yargs. */
export const MACHINE_OPTIONS: Readonly<Record<string, Options>> = {
  memory: { alias: 'm', type: 'string', default: '64M', requiresArg: true, describe: 'Guest RAM: 8M to 3584M' },
  'shadow-memory': { type: 'string', default: '16M', requiresArg: true, describe: 'Memory for shadow page tables' },
  jit: {
    choices: ['on', 'off', 'sync'],
    default: 'on',
    requiresArg: true,
    describe: 'Compile hot code: in the background, never, or at once on the main thread',
  },
  abi: { choices: ['auto', 'v2'], default: 'auto', requiresArg: true, describe: 'Revision of the PVM guest ABI' },
  design: { choices: ['pvm'], default: 'pvm', requiresArg: true, describe: 'Virtualisation design' },
  'direct-switch': { type: 'boolean', default: true, describe: 'Serve syscalls in the switcher, without a VM exit (--no-direct-switch: not)' },
  prefault: { type: 'boolean', default: true, describe: "Fill the shadow page table when the guest's fault handler returns" },
};

/** The part of `VmOptions` that they set. */
export function machineSettings(a: MachineArgs): Pick<VmOptions, 'memory' | 'shadowMemory' | 'jit' | 'abi' | 'design' | 'directSwitch' | 'prefault'> {
  return { memory: a.memory, shadowMemory: a.shadowMemory, jit: a.jit, abi: a.abi, design: a.design, directSwitch: a.directSwitch, prefault: a.prefault };
}
