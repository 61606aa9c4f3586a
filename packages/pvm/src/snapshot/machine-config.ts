import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { type CheckedOptions, checkOptions, type VmOptions } from '../options.ts';
import { PC_ONLY } from '../pc/options.ts';
import { badSnapshot, mismatch } from './format.ts';

/** What an option is for a machine that is restored: `machine`: fixed by the snapshot; `boot`: over; `host`: chosen anew. */
const ROLE = {
  program: 'boot',
  args: 'boot',
  argv0: 'boot',
  env: 'boot',
  files: 'boot',
  kernel: 'boot',
  initrd: 'boot',
  commandLine: 'boot',
  memory: 'machine',
  shadowMemory: 'machine',
  abi: 'machine',
  design: 'machine',
  stock: 'machine',
  optimisations: 'machine',
  cpu: 'machine',
  clock: 'machine',
  vcpus: 'machine',
  kvmPv: 'machine',
  vsock: 'machine',
  balloon: 'machine',
  virtio: 'machine',
  debugExitPort: 'machine',
  drives: 'machine',
  shares: 'machine',
  consolePorts: 'machine',
  restore: 'host',
  stdin: 'host',
  jit: 'host',
  sampleTiers: 'host',
  codeMemory: 'host',
  codeCache: 'host',
  nameRegion: 'host',
  onConsole: 'host',
  onStderr: 'host',
  onSerial: 'host',
  terminals: 'host',
  maxInstructions: 'host',
  checkMmu: 'host',
  countTlb: 'host',
  ledger: 'host',
  traceLimit: 'host',
  signal: 'host',
  reboot: 'host',
  onRestart: 'host',
} as const satisfies Readonly<Record<keyof VmOptions, 'machine' | 'boot' | 'host'>>;
type MachineOption = { [K in keyof typeof ROLE]: (typeof ROLE)[K] extends 'machine' ? K : never }[keyof typeof ROLE];

/** Everything about a machine that its state depends on. */
export type MachineConfig = ReturnType<typeof machineConfig>;

export function machineConfig(o: CheckedOptions) {
  return {
    platform: o.platform,
    design: o.design,
    abi: o.abi ?? null,
    stock: o.stock ?? null,
    optimisations: o.optimisations,
    memory: o.memory,
    shadowMemory: o.shadowMemory,
    cpu: o.cpu,
    clock: o.clock,
    vcpus: o.vcpus,
    kvmPv: o.kvmPv,
    vsock: o.vsock,
    balloon: o.balloon,
    virtio: o.virtio,
    debugExitPort: o.debugExitPort,
    drives: o.drives.map(({ readOnly = false, snapshot = false, serial = null }) => ({ readOnly, snapshot, serial })),
    shares: o.shares.map(({ tag, readOnly = false }) => ({ tag, readOnly })),
    consolePorts: o.consolePorts.map(({ name = null }) => ({ name })),
  } satisfies Readonly<Record<MachineOption | 'platform', unknown>>;
}

/** An image as it was: a disk that others wrote to is not the one that the guest remembers. */
interface ImageSource {
  /** Absolute path; null: it was in memory. */
  readonly file: string | null;
  readonly size: number;
  readonly mtimeMs: number;
}

/** Where the machine had its files from, for people and to find them again. */
export interface MachineSources {
  /** What it ran: path of the program or kernel, null: it was in memory. */
  readonly image: string | null;
  readonly commandLine: string;
  readonly drives: readonly ImageSource[];
  /** Shared folders, absolute. */
  readonly shares: readonly string[];
}

export function machineSources(o: CheckedOptions): MachineSources {
  const image = o.platform === 'program' ? o.program : o.kernel;
  return {
    image: typeof image === 'string' ? resolve(image) : null,
    commandLine: o.commandLine,
    drives: o.drives.map(({ file }) => imageSource(file)),
    shares: o.shares.map(({ folder }) => resolve(folder)),
  };
}

function imageSource(file: string | Uint8Array): ImageSource {
  if (typeof file !== 'string') return { file: null, size: file.length, mtimeMs: 0 };
  const { size, mtimeMs } = statSync(file);
  return { file: resolve(file), size, mtimeMs };
}

/**
 * The options of the machine that a snapshot is of, with what `given` says about this host.
 *
 * @throws PvmError `bad-option` for options that have no meaning any more, `snapshot-mismatch` for those that ask for another machine
 */
export function restoredOptions(given: VmOptions, config: MachineConfig, sources: MachineSources): VmOptions {
  const keys = (Object.keys(given) as (keyof VmOptions)[]).filter((key) => given[key] !== undefined);
  const over = keys.find((key) => ROLE[key] === 'boot');
  if (over !== undefined) throw mismatch(`option ${over} has no effect on a restored machine, which goes on from where it was; leave it out`);
  const own = optionsOf(config, sources, given);
  const wanted: VmOptions = { ...own, ...Object.fromEntries(keys.map((key) => [key, given[key]])) };
  const want = machineConfig(checkOptions(wanted)) as Readonly<Record<string, unknown>>;
  for (const [key, value] of Object.entries(machineConfig(checkOptions(own)))) {
    const [has, asked] = [JSON.stringify(value), JSON.stringify(want[key])];
    if (has !== asked) throw mismatch(`the snapshot is of a machine with ${key} ${has}, not ${asked}; leave the option out, or give the same`);
  }
  checkImages(wanted, sources);
  return wanted;
}

function optionsOf(config: MachineConfig, sources: MachineSources, given: VmOptions): VmOptions {
  const { platform, abi, stock, drives, shares, consolePorts, ...same } = config;
  const isPc = platform === 'pc';
  return {
    ...(isPc ? same : Object.fromEntries(Object.entries(same).filter(([key]) => !PC_ONLY.some((name) => name === key)))),
    // Never loaded: it says which platform it is.
    ...(isPc ? { kernel: new Uint8Array(0) } : { program: new Uint8Array(0) }),
    ...(abi === null ? {} : { abi }),
    ...(stock === null ? {} : { stock }),
    ...(drives.length === 0
      ? {}
      : { drives: drives.map(({ serial, ...drive }, i) => ({ ...drive, ...(serial === null ? {} : { serial }), file: imageOf(i) })) }),
    ...(shares.length === 0 ? {} : { shares: shares.map((share, i) => ({ ...share, folder: sources.shares[i] ?? '' })) }),
    ...(consolePorts.length === 0 ? {} : { consolePorts: consolePorts.map(({ name }) => (name === null ? {} : { name })) }),
  };
  function imageOf(i: number): string | Uint8Array {
    const source = sources.drives[i]?.file;
    if (typeof source === 'string') return source;
    const image = given.drives?.[i]?.file;
    if (image === undefined) throw mismatch(`drive ${i} of the snapshot was an image in memory: give it again (option drives)`);
    return image;
  }
}

function checkImages({ drives = [] }: VmOptions, sources: MachineSources): void {
  drives.forEach(({ file }, i) => {
    const was = sources.drives[i];
    if (was?.file == null || typeof file !== 'string') return;
    const now = statSync(file, { throwIfNoEntry: false });
    if (now === undefined) throw mismatch(`${file}: no such file; it was drive ${i} of the machine`);
    if (now.size !== was.size || now.mtimeMs !== was.mtimeMs)
      throw mismatch(`${file}: was changed after the snapshot, whose guest remembers it as it was; restore a copy made then (with its time: cp -p)`);
  });
}

/** Whether `value` looks like what `machineConfig` and `machineSources` make; values are checked as options are. @throws PvmError `bad-snapshot` */
export function checkConfigShape(config: unknown, sources: unknown): void {
  const isObject = (v: unknown): v is Readonly<Record<string, unknown>> => typeof v === 'object' && v !== null && !Array.isArray(v);
  const lists = (v: Readonly<Record<string, unknown>>, names: readonly string[]) => names.every((name) => Array.isArray(v[name]));
  const fits =
    isObject(config) &&
    isObject(sources) &&
    (config['platform'] === 'pc' || config['platform'] === 'program') &&
    lists(config, ['drives', 'shares', 'consolePorts']) &&
    (config['drives'] as unknown[]).every(isObject) &&
    (config['shares'] as unknown[]).every(isObject) &&
    (config['consolePorts'] as unknown[]).every(isObject) &&
    lists(sources, ['drives', 'shares']) &&
    (sources['drives'] as unknown[]).every(isObject);
  if (!fits) throw badSnapshot('the header describes no machine');
}
