import { type ConsolePortOptions, type DriveOptions, isShareTag, MAX_BOARD_VCPUS, MAX_CONSOLE_PORTS, type ShareOptions } from '@pvm/machine';
import { type Check, isBoolean, isBytes, isFunction, isString, oneOf, parseSize } from '../option-checks.ts';
import { type Input, isInput, isOutput, type Output, type OutputHandler, outputHandler } from '../streams.ts';

/** How virtio devices are attached. */
export const VIRTIO_TRANSPORTS = ['pci', 'mmio'] as const;
export type VirtioTransport = (typeof VIRTIO_TRANSPORTS)[number];

/** A port of the virtio console: without a name a terminal (hvc0, hvc1, ...), with one a channel (/dev/virtio-ports/NAME). */
export interface ConsolePort {
  /** Name of a channel: 1 to 63 letters, digits, `.`, `_`, `-`. */
  readonly name?: string;
  /** What the guest writes. Default: dropped. */
  readonly output?: Output;
  /** What the guest reads. A channel's input waits until the guest opens it. Default: nothing. */
  readonly input?: Input;
}

/** Options for stock kernels: the devices of their PC. */
export interface PcOptions {
  /** Offer KVM's paravirtual interface by CPUID: clock, end of interrupt, IPIs, steal time and more. Default true. */
  kvmPv?: boolean;
  /** vCPUs, 1 to 8, which take turns on one thread. Default 1. */
  vcpus?: number;
  /** RAM disk. Default none. */
  initrd?: string | Uint8Array;
  /** Disks, raw images on virtio: vda, vdb, ... Default none. */
  drives?: readonly DriveOptions[];
  /** Folders of the host, mounted by `mount -t 9p -o trans=virtio,version=9p2000.L TAG DIR`. Default none. */
  shares?: readonly ShareOptions[];
  /** Ports of a virtio console. Default: there is none. */
  consolePorts?: readonly ConsolePort[];
  /** Sockets between host and guest (`Vm.devices.vsock`); the guest is CID 3. Default false. */
  vsock?: boolean;
  /** A memory balloon (`Vm.devices.balloon`); a size is what the guest is asked to give back when it starts. Default false. */
  balloon?: boolean | number | string;
  /** Default `pci`. MMIO devices (at most 8) are announced by ACPI; for kernels without it, by `virtio_mmio.device=` on the command line. */
  virtio?: VirtioTransport;
  /** First of the four ports that end the machine with exit code `(value << 1) | 1`; `false`: there are none. Default 0xf4. */
  debugExitPort?: number | false;
  /** A reset that the guest asks for, or a triple fault, starts the machine anew; otherwise, and after `restore`, it stops. Default false. */
  reboot?: boolean;
  /** Called when the machine starts anew. */
  onRestart?: (cause: RestartCause) => void;
}

/** Why a machine started anew. */
export type RestartCause = 'reset' | 'triple-fault';

export interface CheckedConsolePort extends Omit<ConsolePortOptions, 'output'> {
  readonly output: OutputHandler;
  readonly input: Input | undefined;
}

/** The same with defaults filled in and sizes in bytes. */
export interface CheckedPcOptions {
  readonly kvmPv: boolean;
  readonly vcpus: number;
  readonly initrd: string | Uint8Array | undefined;
  readonly drives: readonly DriveOptions[];
  readonly shares: readonly ShareOptions[];
  readonly consolePorts: readonly CheckedConsolePort[];
  readonly vsock: boolean;
  readonly balloon: boolean;
  /** Bytes that the guest is asked for at first. */
  readonly balloonTarget: number;
  readonly virtio: VirtioTransport;
  readonly debugExitPort: number | false;
  readonly reboot: boolean;
  readonly onRestart: (cause: RestartCause) => void;
}

/** An object with these keys and no others; absent ones pass where they may. */
const shape =
  (keys: Readonly<Record<string, (v: unknown) => boolean>>, required: readonly string[]) =>
  (value: unknown): boolean => {
    if (typeof value !== 'object' || value === null) return false;
    const given = Object.entries(value).filter(([, v]) => v !== undefined);
    return given.every(([key, v]) => keys[key]?.(v) === true) && required.every((key) => given.some(([name]) => name === key));
  };
const passes = (check: Check) => (v: unknown) => check(v) === undefined;
const listOf =
  (item: (v: unknown) => boolean, what: string, max = Number.POSITIVE_INFINITY): Check =>
  (v) =>
    Array.isArray(v) && v.length <= max && v.every(item) ? undefined : what;

const isDrive = shape({ file: passes(isBytes), readOnly: passes(isBoolean), snapshot: passes(isBoolean), serial: passes(isString) }, ['file']);
const isShare = shape({ folder: passes(isString), tag: (v) => typeof v === 'string' && isShareTag(v), readOnly: passes(isBoolean) }, ['folder', 'tag']);
const isPort = shape({ name: (v) => typeof v === 'string' && /^[\w.-]{1,63}$/.test(v), output: isOutput, input: isInput }, []);

export const PC_CHECKS: Readonly<Record<keyof PcOptions, Check>> = {
  kvmPv: isBoolean,
  vcpus: (v) => (Number.isInteger(v) && Number(v) >= 1 && Number(v) <= MAX_BOARD_VCPUS ? undefined : `a whole number from 1 to ${MAX_BOARD_VCPUS}`),
  initrd: isBytes,
  drives: listOf(isDrive, 'an array of { file, readOnly?, snapshot?, serial? }'),
  shares: listOf(isShare, 'an array of { folder, tag, readOnly? }; a tag has 1 to 31 characters without commas and spaces'),
  consolePorts: listOf(isPort, `an array of at most ${MAX_CONSOLE_PORTS} { name?, output?, input? }`, MAX_CONSOLE_PORTS),
  vsock: isBoolean,
  balloon: (v) => (typeof v === 'boolean' || v === 0 || parseSize(v) !== undefined ? undefined : 'true, false, or a size such as "64M"'),
  virtio: oneOf(...VIRTIO_TRANSPORTS),
  debugExitPort: (v) => (v === false || (Number.isInteger(v) && Number(v) >= 0 && Number(v) <= 0xfffc) ? undefined : 'false or a port from 0 to 0xfffc'),
  reboot: isBoolean,
  onRestart: isFunction,
};

/** Options that mean nothing to a program on the embedded kernel. */
export const PC_ONLY = Object.keys(PC_CHECKS) as (keyof PcOptions)[];

/** Fills in defaults; what is given has passed `PC_CHECKS`. */
export function checkedPcOptions(options: PcOptions): CheckedPcOptions {
  const { balloon = false } = options;
  return {
    kvmPv: options.kvmPv ?? true,
    vcpus: options.vcpus ?? 1,
    initrd: options.initrd,
    drives: options.drives ?? [],
    shares: options.shares ?? [],
    consolePorts: (options.consolePorts ?? []).map(({ name, output, input }) => ({
      ...(name === undefined ? {} : { name }),
      output: outputHandler(output),
      input,
    })),
    vsock: options.vsock ?? false,
    balloon: balloon !== false,
    balloonTarget: parseSize(balloon) ?? 0,
    virtio: options.virtio ?? 'pci',
    debugExitPort: options.debugExitPort ?? 0xf4,
    reboot: options.reboot ?? false,
    onRestart: options.onRestart ?? (() => undefined),
  };
}
