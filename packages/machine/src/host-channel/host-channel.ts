import { StateError, type StateIo } from '@pvm/cpu-jit';
import type { PortDevice, PortSize } from '../devices/port-device.ts';
import type { GuestRam } from '../ram.ts';

/** I/O port whose write is the doorbell and whose read is the signature. */
export const HOST_CHANNEL_PORT = 0x500;
/** What the port reads: "PVMC". */
export const HOST_CHANNEL_SIGNATURE = 0x434d_5650;

/** Commands of a request block; see README.md beside this file. */
const WRITE_STDOUT = 1;
const WRITE_STDERR = 2;
const READ_STDIN = 3;
const POWEROFF = 4;
const REPORT = 5;
const WALL_CLOCK = 6;
const RANDOM = 7;
const TTY = 8;
const MARK = 16;
const SLEEP = 17;

const REQUEST_SIZE = 32;
const EFAULT = -14;
const ENOSYS = -38;

/** How the guest's program ended. */
export interface GuestPowerOff {
  /** 0 to 255. */
  readonly exitCode: number;
  /** Signal that killed the program, 0: none. */
  readonly signal: number;
}

/** The host's side of the channel. All byte arrays are copies that the receiver may keep. */
export interface HostChannelBackend {
  /** Output of the program; a promise suspends the vCPU until it settles. */
  stdout(data: Uint8Array): Promise<void> | undefined;
  stderr(data: Uint8Array): Promise<void> | undefined;
  /** Up to `max` bytes of input; an empty array is the end of the input. */
  stdin(max: number): Promise<Uint8Array> | Uint8Array;
  powerOff(how: GuestPowerOff): void;
  /** Unknown syscalls of the guest's program: number and count. */
  unknownSyscalls(calls: ReadonlyMap<number, number>): void;
  /** Nanoseconds since 1970-01-01 UTC. */
  wallClock(): bigint;
  /** Fill with random bytes. */
  random(buffer: Uint8Array): void;
  /** Bit 0 stdin, 1 stdout, 2 stderr is a terminal. */
  terminals(): number;
  /** A measured interval of so many operations begins; 0: it ends. A promise suspends the vCPU until it settles. */
  mark(operations: number, id: number): Promise<void> | undefined;
  /** Let `ns` nanoseconds pass on the guest's clock. */
  sleep(ns: number): Promise<void> | undefined;
}

/** A read of the standard input: where its request block is, and the buffer. */
type InputRequest = { readonly request: number; readonly gpa: number; readonly length: number };

/** The paravirtual console, file-less and interrupt-free: one I/O exit per request. */
export class HostChannel implements PortDevice {
  readonly name = 'host-channel';
  readonly ports = [{ first: HOST_CHANNEL_PORT, last: HOST_CHANNEL_PORT + 3 }];
  private readonly ram: GuestRam;
  private readonly backend: HostChannelBackend;
  /** The guest waits for input. */
  private waiting: InputRequest | undefined;

  constructor(ram: GuestRam, backend: HostChannelBackend) {
    this.ram = ram;
    this.backend = backend;
  }

  read(): number {
    return HOST_CHANNEL_SIGNATURE;
  }

  write(_port: number, size: PortSize, request: number): Promise<void> | undefined {
    if (size !== 4 || !this.ram.contains(request, REQUEST_SIZE)) return undefined;
    const { view } = this.ram;
    const command = view.getUint32(request, true);
    const gpa = Number(view.getBigUint64(request + 8, true));
    const length = Number(view.getBigUint64(request + 16, true));
    const finish = (result: number): undefined => {
      view.setInt32(request + 4, result, true);
      this.ram.written(request + 4, 4);
    };
    if (command === POWEROFF) {
      finish(0);
      this.backend.powerOff({ exitCode: length & 0xff, signal: Number(view.getBigUint64(request + 24, true) & 0xffn) });
      return undefined;
    }
    if (command === TTY) return finish(this.backend.terminals());
    if (command === MARK) {
      const wait = this.backend.mark(length, view.getUint32(request + 24, true));
      finish(0);
      return wait;
    }
    if (command === SLEEP) {
      finish(0);
      return this.backend.sleep(length);
    }
    if (!this.ram.contains(gpa, length) || length > 2 ** 30) return finish(EFAULT);
    switch (command) {
      case WRITE_STDOUT:
      case WRITE_STDERR: {
        const data = this.ram.bytes.slice(gpa, gpa + length);
        const wait = command === WRITE_STDOUT ? this.backend.stdout(data) : this.backend.stderr(data);
        finish(length);
        return wait;
      }
      case READ_STDIN:
        return length === 0 ? finish(0) : this.readInput({ request, gpa, length });
      case REPORT: {
        const calls = new Map<number, number>();
        for (let at = gpa; at + 8 <= gpa + length; at += 8) calls.set(view.getUint32(at, true), view.getUint32(at + 4, true));
        this.backend.unknownSyscalls(calls);
        return finish(0);
      }
      case WALL_CLOCK:
        if (length < 8) return finish(EFAULT);
        view.setBigUint64(gpa, BigInt.asUintN(64, this.backend.wallClock()), true);
        this.ram.written(gpa, 8);
        return finish(0);
      case RANDOM: {
        // Random sources refuse shared memory, so the bytes take a detour.
        const bytes = new Uint8Array(length);
        this.backend.random(bytes);
        this.ram.write(gpa, bytes);
        return finish(length);
      }
      default:
        return finish(ENOSYS);
    }
  }

  private readInput(read: InputRequest): Promise<void> | undefined {
    const { request, gpa, length } = read;
    const take = (data: Uint8Array): void => {
      const n = Math.min(data.length, length);
      this.ram.write(gpa, data.subarray(0, n));
      this.ram.view.setInt32(request + 4, n, true);
      this.ram.written(request + 4, 4);
    };
    const data = this.backend.stdin(length);
    if (!(data instanceof Promise)) {
      take(data);
      return undefined;
    }
    this.waiting = read;
    return data.then((bytes) => {
      this.waiting = undefined;
      take(bytes);
    });
  }

  /** After a restore: makes the request again that the guest was waiting for. The vCPU does not go on before the promise settles. */
  resume(): Promise<void> | undefined {
    const { waiting } = this;
    this.waiting = undefined;
    return waiting === undefined ? undefined : this.readInput(waiting);
  }

  /** A read that waits is a part of it; output has been handed over. */
  state(s: StateIo): void {
    const waiting = s.value('waiting', this.waiting);
    if (!s.restoring) return;
    if (waiting !== undefined && !(this.ram.contains(waiting.request, REQUEST_SIZE) && this.ram.contains(waiting.gpa, waiting.length)))
      throw new StateError('the guest waits for input outside its RAM');
    this.waiting = waiting;
  }
}
