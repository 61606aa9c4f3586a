import type { Server, Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { type ConsolePort, type Output, outputHandler, type VmOptions } from '@pvm/pvm';
import type { PcArgs } from '../commands/pc-options.ts';
import { UsageError } from '../errors.ts';
import { type Address, listenAt, parseAddress } from './address.ts';
import { ConsoleFile } from './console-file.ts';

/** Where a console goes. */
type Place = 'stdio' | 'none' | { readonly file: string };

function parsePlace(option: string, word: string): Place {
  if (word === 'stdio' || word === 'mon:stdio') return 'stdio';
  if (word === 'none' || word === 'null') return 'none';
  const file = /^file:(.+)$/s.exec(word)?.[1];
  if (file === undefined) throw new UsageError(`${option} ${word}: expected stdio, none or file:PATH`);
  return { file };
}

function parseChannel(spec: string): { name: string; address: Address } {
  const match = /^([\w.-]{1,63}):(.+)$/s.exec(spec);
  if (match === null) throw new UsageError(`--channel ${spec}: expected NAME:ADDRESS, such as agent:unix:agent.sock`);
  return { name: match[1] ?? '', address: parseAddress(`--channel ${spec}`, match[2] ?? '') };
}

/** Where the consoles of a PC go, as the command line says. */
export interface ConsolePlan {
  readonly serial: Place;
  /** The text screen and the keyboard have standard input and output. */
  readonly hasScreen: boolean;
  /** Undefined: there is no virtio console. */
  readonly virtio: Place | undefined;
  readonly channels: readonly { name: string; address: Address }[];
}

/** @throws UsageError */
export function consolePlan(a: PcArgs): ConsolePlan {
  const virtio = a.virtioConsole === undefined ? undefined : parsePlace('--virtio-console', a.virtioConsole);
  const hasScreen = a.display === 'curses';
  const serial = a.serial === undefined ? (virtio === 'stdio' || hasScreen ? 'none' : 'stdio') : parsePlace('--serial', a.serial);
  if (hasScreen && (serial === 'stdio' || virtio === 'stdio'))
    throw new UsageError('--display curses has standard input and output; put --serial and --virtio-console into file:PATH, or leave them out');
  if (serial === 'stdio' && virtio === 'stdio') throw new UsageError('--serial and --virtio-console cannot both be stdio; say --serial none or file:PATH');
  return { serial, hasScreen, virtio, channels: a.channel.map(parseChannel) };
}

/** A channel that one client at a time has; what the guest writes while there is none is dropped. */
class Channel {
  readonly port: ConsolePort;
  private readonly input = new PassThrough();
  private client: Socket | undefined;

  constructor(name: string) {
    this.port = {
      name,
      input: this.input,
      output: (chunk) => (this.client === undefined ? undefined : outputHandler(this.client)(chunk)),
    };
  }

  accept(socket: Socket): void {
    if (this.client !== undefined) {
      socket.destroy();
      return;
    }
    this.client = socket;
    // A client that breaks off is no more than one that left.
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      this.client = undefined;
    });
    socket.once('end', () => socket.end());
    socket.pipe(this.input, { end: false });
  }

  close(): void {
    this.client?.destroy();
    this.input.destroy();
  }
}

interface Stdio {
  readonly input: AsyncIterable<Uint8Array>;
  readonly output: Output;
}

/** Input and output of the consoles of a PC. */
export class Consoles {
  /** What `createVm` gets. */
  readonly settings: Pick<VmOptions, 'stdin' | 'onSerial' | 'consolePorts'>;
  private readonly files: readonly ConsoleFile[];
  private readonly channels: Channel[] = [];
  private readonly servers: Server[] = [];

  /**
   * @param stdio of the console that is there
   * @param signal ends waiting for the reader of a pipe
   * @throws UsageError; the reason of `signal`
   */
  static async open(plan: ConsolePlan, stdio: Stdio, signal: AbortSignal): Promise<Consoles> {
    const files = new Map<string, ConsoleFile>();
    for (const [option, place] of [
      ['--serial', plan.serial],
      ['--virtio-console', plan.virtio],
    ] as const) {
      if (typeof place === 'object') files.set(option, await ConsoleFile.open(option, place.file, signal));
    }
    const consoles = new Consoles(plan, stdio, files);
    try {
      for (const [i, { name, address }] of plan.channels.entries()) {
        consoles.servers.push(await listenAt(`--channel ${name}`, address, (socket) => consoles.channels[i]?.accept(socket)));
      }
    } catch (e) {
      await consoles.close();
      throw e;
    }
    return consoles;
  }

  /** @param files by option */
  private constructor(plan: ConsolePlan, stdio: Stdio, files: ReadonlyMap<string, ConsoleFile>) {
    this.files = [...files.values()];
    const serial = plan.serial === 'stdio' ? stdio.output : files.get('--serial')?.stream;
    const virtio = plan.virtio === 'stdio' ? stdio.output : files.get('--virtio-console')?.stream;
    const ports: ConsolePort[] = [];
    if (plan.virtio !== undefined)
      ports.push({ ...(virtio === undefined ? {} : { output: virtio }), ...(plan.virtio === 'stdio' ? { input: stdio.input } : {}) });
    for (const { name } of plan.channels) {
      const channel = new Channel(name);
      this.channels.push(channel);
      ports.push(channel.port);
    }
    this.settings = {
      ...(plan.serial === 'stdio' ? { stdin: stdio.input } : {}),
      ...(serial === undefined ? {} : { onSerial: serial }),
      ...(ports.length === 0 ? {} : { consolePorts: ports }),
    };
  }

  /** Files have everything when this resolves; rejects when one could not be written. */
  async close(): Promise<void> {
    for (const server of this.servers) server.close();
    for (const channel of this.channels) channel.close();
    for (const file of this.files) await file.close();
  }
}
