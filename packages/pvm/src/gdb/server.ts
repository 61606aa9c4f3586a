import { createServer, type Server, type Socket } from 'node:net';
import type { CpuLevel } from '@pvm/cpu-jit';
import type { Debugger } from '../debug/debugger.ts';
import { PvmError } from '../errors.ts';
import { GdbRegisters } from './registers.ts';
import { GdbSession, type SessionOptions } from './session.ts';

export interface GdbServerOptions extends Pick<SessionOptions, 'monitor' | 'kill'> {
  readonly debugger: Debugger;
  readonly cpu: CpuLevel;
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
}

/** Where GDB can connect; one connection at a time. When GDB connects, the machine stops. */
export class GdbServer {
  private readonly server: Server;
  private readonly options: GdbServerOptions;
  private readonly registers: GdbRegisters;
  private socket: Socket | undefined;
  private session: GdbSession | undefined;

  /** @throws PvmError `bad-option`: the address cannot be listened at */
  static async listen(options: GdbServerOptions): Promise<GdbServer> {
    const server = new GdbServer(options);
    await new Promise<void>((resolve, reject) => {
      server.server.once('error', (e) => {
        reject(new PvmError('bad-option', `cannot listen for gdb at ${options.host}:${options.port}: ${e.message}; choose another port`, { cause: e }));
      });
      server.server.listen(options.port, options.host, resolve);
    });
    return server;
  }

  private constructor(options: GdbServerOptions) {
    this.options = options;
    this.registers = new GdbRegisters(options.cpu === 'v3');
    this.server = createServer((socket) => this.connected(socket));
  }

  /** The port that is listened at. */
  get port(): number {
    const address = this.server.address();
    return typeof address === 'object' && address !== null ? address.port : this.options.port;
  }

  private connected(socket: Socket): void {
    if (this.socket !== undefined) {
      socket.end();
      return;
    }
    const { debugger: machine, monitor, kill } = this.options;
    this.socket = socket;
    socket.setNoDelay(true);
    const session = new GdbSession({
      debugger: machine,
      registers: this.registers,
      send: (bytes) => socket.write(bytes),
      close: () => socket.end(),
      kill,
      monitor,
    });
    this.session = session;
    machine.pause();
    // GDB asks at once, and must find a machine that stands still.
    let early: Uint8Array[] | undefined = [];
    void machine.untilStopped().then(() => {
      for (const chunk of early ?? []) session.receive(chunk);
      early = undefined;
    });
    socket.on('data', (chunk) => {
      if (early === undefined) session.receive(chunk);
      else early.push(chunk);
    });
    // A connection that breaks is one that ends.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.socket = undefined;
      this.session = undefined;
      machine.detach();
    });
  }

  /** The machine has ended: GDB is told, and nobody can connect any more. */
  async close(exitCode: number): Promise<void> {
    this.session?.ended(exitCode);
    this.socket?.end();
    await new Promise<void>((resolve) => {
      this.server.close(() => resolve());
    });
  }
}
