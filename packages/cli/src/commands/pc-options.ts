import { nearest, type PcOptions, parseSize, VIRTIO_TRANSPORTS, type VirtioTransport } from '@pvm/pvm';
import type { Options } from 'yargs';
import { UsageError } from '../errors.ts';

/** Options of `run` for the PC of a stock kernel. */
export interface PcArgs {
  readonly initrd: string | undefined;
  readonly drive: readonly string[];
  readonly share: readonly string[];
  readonly device: readonly string[];
  readonly virtio: VirtioTransport | undefined;
  readonly balloon: string | undefined;
  readonly vsock: readonly string[];
  readonly vsockListen: readonly string[];
  readonly serial: string | undefined;
  readonly virtioConsole: string | undefined;
  readonly channel: readonly string[];
  readonly nographic: boolean | undefined;
  readonly display: 'none' | 'curses' | undefined;
}

const list = (describe: string): Options => ({ type: 'string', array: true, nargs: 1, default: [], describe: `${describe}; may be given again` });

/** Their descriptions for yargs. QEMU's spelling of each is taken as well: `-drive` for `--drive`. */
export const PC_OPTIONS: Readonly<Record<string, Options>> = {
  initrd: { type: 'string', requiresArg: true, describe: 'RAM disk of a stock kernel' },
  drive: list('file=IMAGE[,readonly=on][,snapshot=on], a virtio disk (raw image): vda, vdb, ...'),
  share: list('FOLDER:TAG[:ro], a folder of the host; in the guest: mount -t 9p -o trans=virtio,version=9p2000.L TAG DIR'),
  serial: { type: 'string', requiresArg: true, describe: 'First serial port: stdio (default), none or file:PATH' },
  'virtio-console': { type: 'string', requiresArg: true, describe: 'A virtio console (hvc0): stdio, none or file:PATH' },
  channel: list('NAME:ADDRESS, a channel (/dev/virtio-ports/NAME) that the host reaches by a socket at ADDRESS: unix:PATH or tcp:HOST:PORT'),
  vsock: list("PORT:ADDRESS, the guest's connections to port PORT of CID 2 go to ADDRESS"),
  'vsock-listen': list('ADDRESS:PORT, connections to ADDRESS go to port PORT of the guest (CID 3)'),
  balloon: { type: 'string', describe: 'A memory balloon; with =SIZE the guest is asked to give so much back' },
  virtio: { choices: VIRTIO_TRANSPORTS, requiresArg: true, describe: 'How virtio devices are attached; default pci' },
  device: list('isa-debug-exit[,iobase=PORT]: moves the debug-exit port, 0xf4 by default'),
  display: {
    choices: ['none', 'curses'],
    requiresArg: true,
    describe: 'curses: the text screen (VGA, 80 x 25) and the PS/2 keyboard instead of the serial port, for kernels that use them; default none',
  },
  nographic: { type: 'boolean', describe: 'Taken as in QEMU: there is no graphics anyway' },
};

/** `key=value,...`; a key alone is on. */
function keyValues(option: string, spec: string, known: readonly string[], form: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const word of spec.split(',')) {
    const [key = '', value = 'on'] = word.split(/=(.*)/s);
    if (!known.includes(key)) throw new UsageError(`${option} ${spec}: do not know "${key}"; did you mean ${nearest(key, known)}? (expected ${form})`);
    found.set(key, value);
  }
  return found;
}

const DRIVE_FORM = 'file=IMAGE[,readonly=on][,snapshot=on]';
const DRIVE_KEYS = ['file', 'readonly', 'snapshot', 'serial', 'if', 'format', 'id', 'index', 'media', 'cache', 'aio', 'discard'];

/** QEMU's words; those that mean what we do anyway are taken and forgotten. */
function parseDrive(spec: string): { file: string; readOnly: boolean; snapshot: boolean; serial?: string } {
  const fail = (what: string): never => {
    throw new UsageError(`--drive ${spec}: ${what}; expected ${DRIVE_FORM}`);
  };
  const keys = keyValues('--drive', spec, DRIVE_KEYS, DRIVE_FORM);
  const toggle = (key: string): boolean => {
    const value = keys.get(key) ?? 'off';
    if (value !== 'on' && value !== 'off') fail(`${key} is on or off`);
    return value === 'on';
  };
  const only = (key: string, value: string): void => {
    if ((keys.get(key) ?? value) !== value) fail(`only ${key}=${value} is there`);
  };
  only('if', 'virtio');
  only('format', 'raw');
  only('media', 'disk');
  const file = keys.get('file');
  if (file === undefined || file === '' || file === 'on') return fail('names no image');
  const serial = keys.get('serial');
  return { file, readOnly: toggle('readonly'), snapshot: toggle('snapshot'), ...(serial === undefined ? {} : { serial }) };
}

function parseShare(spec: string): { folder: string; tag: string; readOnly: boolean } {
  const match = /^(.+?):([^:]+)(?::(ro|rw))?$/.exec(spec);
  if (match === null) throw new UsageError(`--share ${spec}: expected FOLDER:TAG or FOLDER:TAG:ro`);
  return { folder: match[1] ?? '', tag: match[2] ?? '', readOnly: match[3] === 'ro' };
}

/** The debug-exit port that the devices ask for. */
function parseDevices(specs: readonly string[]): number | undefined {
  let port: number | undefined;
  for (const spec of specs) {
    const [device = '', rest] = spec.split(/,(.*)/s);
    if (device !== 'isa-debug-exit')
      throw new UsageError(`--device ${spec}: only isa-debug-exit can be named; --drive, --share, --vsock, --balloon and --virtio-console make the others`);
    const keys = rest === undefined ? new Map<string, string>() : keyValues('--device', rest, ['iobase', 'iosize'], 'iobase=PORT');
    const base = keys.get('iobase') ?? '0x501';
    port = /^(0x[0-9a-f]+|\d+)$/i.test(base) ? Number(base) : Number.NaN;
    if (!(port <= 0xfffc)) throw new UsageError(`--device ${spec}: expected iobase=PORT, a number up to 0xfffc`);
  }
  return port;
}

function parseBalloon(value: string): true | string {
  if (value === '') return true;
  if (parseSize(value) === undefined) throw new UsageError(`--balloon=${value}: expected a size such as 64M`);
  return value;
}

/** The part of `VmOptions` that they set, without where input and output go. @throws UsageError */
export function pcSettings(a: PcArgs): PcOptions {
  const debugExitPort = parseDevices(a.device);
  return {
    ...(a.initrd === undefined ? {} : { initrd: a.initrd }),
    ...(a.drive.length > 0 ? { drives: a.drive.map(parseDrive) } : {}),
    ...(a.share.length > 0 ? { shares: a.share.map(parseShare) } : {}),
    ...(a.virtio === undefined ? {} : { virtio: a.virtio }),
    ...(a.balloon === undefined ? {} : { balloon: parseBalloon(a.balloon) }),
    ...(a.vsock.length + a.vsockListen.length > 0 ? { vsock: true } : {}),
    ...(debugExitPort === undefined ? {} : { debugExitPort }),
  };
}
