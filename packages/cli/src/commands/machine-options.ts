import {
  ABI_REVISIONS,
  type AbiChoice,
  CPU_LEVELS,
  type CpuLevel,
  DESIGN_NAMES,
  type DesignName,
  designInfo,
  nearest,
  OPTIMISATIONS,
  type Optimisation,
  STOCK_CHOICES,
  type StockChoice,
  type VmOptions,
} from '@pvm/pvm';
import type { Options } from 'yargs';
import { UsageError } from '../errors.ts';

/** Options that every command that builds a machine has. */
export interface MachineArgs {
  readonly memory: string | undefined;
  readonly shadowMemory: string | undefined;
  readonly smp: number | undefined;
  readonly kvmPv: boolean | undefined;
  readonly cpu: CpuLevel | 'max' | undefined;
  readonly jit: 'on' | 'off' | 'sync';
  readonly abi: AbiChoice | undefined;
  readonly design: DesignName | undefined;
  readonly stock: StockChoice | undefined;
  readonly opt: readonly string[];
  readonly directSwitch: boolean | undefined;
  readonly prefault: boolean | undefined;
}

/** Their descriptions for yargs. */
export const MACHINE_OPTIONS: Readonly<Record<string, Options>> = {
  memory: { alias: 'm', type: 'string', requiresArg: true, describe: 'Guest RAM, 8M to 3584M, a number alone in MiB; default 64M, with a stock kernel 512M' },
  'shadow-memory': { type: 'string', defaultDescription: '16M', requiresArg: true, describe: 'Memory for shadow page tables' },
  smp: { type: 'number', requiresArg: true, describe: 'vCPUs of a stock kernel, 1 to 8; default 1' },
  'kvm-pv': { type: 'boolean', describe: "Offer KVM's paravirtual interface to a stock kernel (default; --no-kvm-pv: hide it)" },
  cpu: {
    choices: [...CPU_LEVELS, 'max'],
    defaultDescription: 'v2',
    requiresArg: true,
    describe: 'Processor level of the x86-64 psABI; v3 has AVX, AVX2, FMA, F16C, BMI; max: the highest there is',
  },
  jit: {
    choices: ['on', 'off', 'sync'],
    default: 'on',
    requiresArg: true,
    describe: 'Compile hot code: in the background, never, or at once on the main thread',
  },
  abi: {
    choices: ['auto', ...ABI_REVISIONS],
    requiresArg: true,
    describe:
      'Revision of the PVM guest ABI; auto: v2, until the guest turns out to speak rfc-v1. With a kernel: it speaks the ABI. Default for a program: auto',
  },
  design: {
    choices: DESIGN_NAMES,
    requiresArg: true,
    describe: `${DESIGN_NAMES.map((name) => `${name}: ${designInfo(name).title}`).join('; ')}. Default: pvm for a program, bare for a stock kernel`,
  },
  stock: {
    choices: STOCK_CHOICES,
    requiresArg: true,
    describe: 'Unmodified kernel under design pvm: its privileged instructions become hypercalls and direct switches (auto, default) or trap one by one (trap)',
  },
  opt: {
    type: 'string',
    array: true,
    nargs: 1,
    default: [],
    describe: `Switches of the design, on or with no- off, separated by commas: ${Object.entries(OPTIMISATIONS)
      .map(([name, what]) => `${name} (${what})`)
      .join(', ')}`,
  },
  'direct-switch': { type: 'boolean', describe: 'The same as --opt direct-switch (--no-direct-switch: no-direct-switch)' },
  prefault: { type: 'boolean', describe: 'The same as --opt prefault' },
};

/** `a,no-b` and so on, the last word about a switch counts. */
function parseOptimisations(a: MachineArgs): Partial<Record<Optimisation, boolean>> {
  const wanted: Partial<Record<Optimisation, boolean>> = {
    ...(a.directSwitch === undefined ? {} : { 'direct-switch': a.directSwitch }),
    ...(a.prefault === undefined ? {} : { prefault: a.prefault }),
  };
  for (const word of a.opt.flatMap((list) => list.split(','))) {
    const name = word.startsWith('no-') ? word.slice(3) : word;
    if (!(name in OPTIMISATIONS)) throw new UsageError(`--opt ${word}: no such switch; did you mean ${nearest(name, Object.keys(OPTIMISATIONS))}?`);
    wanted[name as Optimisation] = name === word;
  }
  return wanted;
}

/** The part of `VmOptions` that they set. */
export function machineSettings(
  a: MachineArgs,
): Pick<VmOptions, 'memory' | 'shadowMemory' | 'vcpus' | 'kvmPv' | 'cpu' | 'jit' | 'abi' | 'design' | 'stock' | 'optimisations'> {
  const optimisations = parseOptimisations(a);
  return {
    // As in QEMU, a number alone is in MiB.
    ...(a.memory === undefined ? {} : { memory: /^\d+$/.test(a.memory) ? `${a.memory}M` : a.memory }),
    ...(a.design === undefined ? {} : { design: a.design }),
    ...(a.stock === undefined ? {} : { stock: a.stock }),
    ...(a.shadowMemory === undefined ? {} : { shadowMemory: a.shadowMemory }),
    ...(a.smp === undefined ? {} : { vcpus: a.smp }),
    ...(a.kvmPv === undefined ? {} : { kvmPv: a.kvmPv }),
    ...(a.cpu === undefined ? {} : { cpu: a.cpu === 'max' ? (CPU_LEVELS.at(-1) ?? 'v2') : a.cpu }),
    jit: a.jit,
    ...(a.abi === undefined ? {} : { abi: a.abi }),
    ...(Object.keys(optimisations).length === 0 ? {} : { optimisations }),
  };
}
