/** One connection of GDB: the commands of the remote serial protocol (GDB manual, appendix E). */
import { CpuError, type Watchpoint } from '@pvm/cpu-jit';
import type { Debugger, DebugStop } from '../debug/debugger.ts';
import { frame, fromHex, MAX_PACKET, PacketReader, toHex } from './packet.ts';
import type { GdbRegisters } from './registers.ts';

const INVALID = 'E22';
const NOT_MAPPED = 'E14';
const SIGINT = '02';
const SIGTRAP = '05';
const SIGSEGV = '0b';
/** Types of `Z` packets. */
const SOFTWARE_BREAK = '0';
const HARDWARE_BREAK = '1';
const WRITE_WATCH = '2';
const ACCESS_WATCH = '4';

export interface SessionOptions {
  readonly debugger: Debugger;
  readonly registers: GdbRegisters;
  readonly send: (bytes: Uint8Array) => void;
  /** GDB wants the machine gone. */
  readonly kill: () => void;
  /** GDB lets go. */
  readonly close: () => void;
  /** Answers `monitor` commands by name. */
  readonly monitor: Readonly<Record<string, { readonly help: string; readonly run: () => string }>>;
}

/** Registers and memory belong to the vCPU of the last stop, until GDB chooses another (`Hg`). Threads are vCPUs, counted from 1. */
export class GdbSession {
  private readonly options: SessionOptions;
  private readonly reader = new PacketReader(() => this.resend());
  private vcpu = 0;
  private isAcknowledging = true;
  private last: Uint8Array | undefined;
  /** `continue` or `step` has no answer yet. */
  private isRunning = false;

  constructor(options: SessionOptions) {
    this.options = options;
    this.options.debugger.onStop = (stop) => this.stopped(stop);
  }

  receive(chunk: Uint8Array): void {
    for (const received of this.reader.push(chunk)) {
      if (received.kind === 'interrupt') this.options.debugger.pause();
      else if (received.kind === 'damaged') this.acknowledge('-');
      else {
        this.acknowledge('+');
        this.handle(received.data);
      }
    }
  }

  /** The machine has ended. */
  ended(exitCode: number): void {
    if (this.isRunning) this.reply(`W${(exitCode & 0xff).toString(16).padStart(2, '0')}`);
  }

  private acknowledge(sign: '+' | '-'): void {
    if (this.isAcknowledging) this.options.send(Buffer.from(sign));
  }
  private resend(): void {
    if (this.last !== undefined) this.options.send(this.last);
  }
  private reply(data: string | Uint8Array): void {
    this.last = frame(data);
    this.options.send(this.last);
  }

  private stopped(stop: DebugStop): void {
    this.vcpu = stop.vcpu;
    if (!this.isRunning) return;
    this.isRunning = false;
    if (stop.kind === 'dead') this.print(`${stop.message}\n`);
    this.reply(stopReply(stop));
  }

  /** Text that GDB shows while it waits. */
  private print(text: string): void {
    this.options.send(frame(`O${toHex(Buffer.from(text))}`));
  }

  private handle(data: Uint8Array): void {
    const text = Buffer.from(data).toString('latin1');
    try {
      const answer = this.answer(text, data);
      if (answer !== undefined) this.reply(answer);
    } catch (e) {
      // Values that the CPU refuses are GDB's user's mistake.
      if (!(e instanceof CpuError)) throw e;
      this.reply(INVALID);
    }
  }

  /** Undefined: there is none, or it comes later. Empty: the command is not known. */
  private answer(text: string, data: Uint8Array): string | Uint8Array | undefined {
    const { debugger: machine, registers } = this.options;
    const rest = text.slice(1);
    switch (text[0]) {
      case '?':
        return machine.stop === undefined ? `S${SIGTRAP}` : stopReply(machine.stop);
      case 'g':
        return toHex(registers.all(this.file()));
      case 'G': {
        const bytes = fromHex(rest);
        return bytes !== undefined && registers.writeAll(this.file(), bytes) ? 'OK' : INVALID;
      }
      case 'p': {
        const bytes = registers.read(this.file(), Number.parseInt(rest, 16));
        return bytes === undefined ? INVALID : toHex(bytes);
      }
      case 'P': {
        const [number = '', value = ''] = rest.split('=');
        const bytes = fromHex(value);
        return bytes !== undefined && registers.write(this.file(), Number.parseInt(number, 16), bytes) ? 'OK' : INVALID;
      }
      case 'm':
        return this.readMemory(rest);
      case 'M':
      case 'X':
        return this.writeMemory(text, data);
      case 'Z':
      case 'z':
        return this.point(text[0] === 'Z', rest);
      case 'c':
      case 's':
        return this.goAt(text[0] === 's', rest);
      case 'C':
      case 'S':
        // The signal is for programs; machines have none.
        return this.goAt(text[0] === 'S', rest.split(';')[1] ?? '');
      case 'H':
        return this.chooseThread(rest);
      case 'T':
        return this.vcpuOf(rest) === undefined ? INVALID : 'OK';
      case 'D':
        this.reply('OK');
        machine.detach();
        this.options.close();
        return undefined;
      case 'k':
        this.options.kill();
        return undefined;
      case 'v':
        return this.extended(text);
      case 'q':
      case 'Q':
        return this.query(text);
      default:
        return '';
    }
  }

  private file() {
    return this.options.debugger.registers(this.vcpu);
  }

  // ------------------------------------------------------------ memory
  private readMemory(where: string): string {
    const range = parseRange(where);
    if (range === undefined || range.length > MAX_PACKET / 2) return INVALID;
    const bytes = this.options.debugger.read(this.vcpu, range.address, range.length);
    return bytes.length === 0 && range.length > 0 ? NOT_MAPPED : toHex(bytes);
  }

  private writeMemory(text: string, data: Uint8Array): string {
    const colon = text.indexOf(':');
    const range = parseRange(text.slice(1, colon));
    const bytes = text[0] === 'X' ? data.subarray(colon + 1) : fromHex(text.slice(colon + 1));
    if (colon < 0 || range === undefined || bytes?.length !== range.length) return INVALID;
    return this.options.debugger.write(this.vcpu, range.address, bytes) ? 'OK' : NOT_MAPPED;
  }

  // ------------------------------------------------------------ breakpoints and watchpoints
  private point(isSet: boolean, rest: string): string {
    const { debugger: machine } = this.options;
    const [type = '', address = '', kind = ''] = (rest.split(';')[0] ?? '').split(',');
    const at = parseAddress(address);
    if (at === undefined) return INVALID;
    if (type === SOFTWARE_BREAK || type === HARDWARE_BREAK) {
      if (isSet) machine.addBreakpoint(at);
      else machine.removeBreakpoint(at);
      return 'OK';
    }
    // There is no watchpoint for reads alone: GDB then takes one for all accesses.
    if (type !== WRITE_WATCH && type !== ACCESS_WATCH) return '';
    const pieces = watchpoints(at, Number.parseInt(kind, 16), type === WRITE_WATCH ? 'write' : 'access');
    if (pieces === undefined) return INVALID;
    if (!isSet) {
      for (const piece of pieces) machine.removeWatchpoint(piece);
      return 'OK';
    }
    const added = pieces.filter((piece) => machine.addWatchpoint(piece));
    if (added.length === pieces.length) return 'OK';
    for (const piece of added) machine.removeWatchpoint(piece);
    return INVALID;
  }

  // ------------------------------------------------------------ running
  private goAt(isStep: boolean, address: string): string | undefined {
    if (address !== '') {
      const at = parseAddress(address);
      if (at === undefined) return INVALID;
      this.file().set('rip', at);
    }
    return this.go(isStep ? this.vcpu : undefined);
  }

  private go(stepping: number | undefined): undefined {
    const { debugger: machine } = this.options;
    this.isRunning = true;
    if (stepping === undefined) machine.resume();
    else machine.step(stepping);
    return undefined;
  }

  /** `vCont` with its actions; all threads run or stand together, so a step of one is a step of that one alone. */
  private extended(text: string): string | undefined {
    if (text === 'vCont?') return 'vCont;c;C;s;S';
    if (text.startsWith('vCont;')) {
      const actions = text.slice(6).split(';');
      const step = actions.find((action) => /^[sS]/.test(action));
      if (step !== undefined) return this.go(this.vcpuOf(step.split(':')[1] ?? '') ?? this.vcpu);
      return actions.some((action) => /^[cC]/.test(action)) ? this.go(undefined) : INVALID;
    }
    if (text.startsWith('vKill')) {
      this.reply('OK');
      this.options.kill();
      return undefined;
    }
    return '';
  }

  // ------------------------------------------------------------ threads
  /** Undefined: there is no such thread. 0 and -1 mean any and all. */
  private vcpuOf(thread: string): number | undefined {
    const n = thread === '-1' || thread === '' ? 0 : Number.parseInt(thread, 16);
    if (n === 0) return this.vcpu;
    return n >= 1 && n <= this.options.debugger.vcpus ? n - 1 : undefined;
  }

  private chooseThread(rest: string): string {
    const vcpu = this.vcpuOf(rest.slice(1));
    if (vcpu === undefined) return INVALID;
    if (rest[0] === 'g') this.vcpu = vcpu;
    return 'OK';
  }

  // ------------------------------------------------------------ queries
  private query(text: string): string | Uint8Array {
    const { debugger: machine, registers } = this.options;
    const name = /^[^:,;]*/.exec(text)?.[0] ?? '';
    switch (name) {
      case 'qSupported':
        return `PacketSize=${MAX_PACKET.toString(16)};QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+`;
      case 'QStartNoAckMode':
        this.isAcknowledging = false;
        return 'OK';
      case 'qAttached':
        return '1';
      case 'qC':
        return `QC${thread(this.vcpu)}`;
      case 'qfThreadInfo':
        return `m${Array.from({ length: machine.vcpus }, (_, vcpu) => thread(vcpu)).join(',')}`;
      case 'qsThreadInfo':
        return 'l';
      case 'qThreadExtraInfo': {
        const vcpu = this.vcpuOf(text.split(',')[1] ?? '');
        return vcpu === undefined ? INVALID : toHex(Buffer.from(`vCPU ${vcpu}`));
      }
      case 'qXfer':
        return transfer(text, registers.xml);
      case 'qRcmd':
        return this.monitor(text.slice(6));
      default:
        return '';
    }
  }

  private monitor(hex: string): string {
    const { monitor } = this.options;
    const command = Buffer.from(fromHex(hex) ?? [])
      .toString()
      .trim();
    const found = Object.hasOwn(monitor, command) ? monitor[command] : undefined;
    const help = Object.entries(monitor).map(([name, { help: what }]) => `${name}: ${what}\n`);
    const text =
      found !== undefined && command !== 'help'
        ? found.run()
        : `${command === 'help' || command === '' ? '' : `there is no command "${command}"; there are:\n`}${help.join('')}`;
    return text === '' ? 'OK' : toHex(Buffer.from(text.endsWith('\n') ? text : `${text}\n`));
  }
}

function stopReply(stop: DebugStop): string {
  const signal = stop.kind === 'pause' ? SIGINT : stop.kind === 'dead' ? SIGSEGV : SIGTRAP;
  let why = '';
  if (stop.kind === 'breakpoint') why = 'swbreak:;';
  if (stop.kind === 'watchpoint') why = `${stop.watchpoint.kind === 'write' ? 'watch' : 'awatch'}:${stop.watchpoint.address.toString(16)};`;
  return `T${signal}${why}thread:${thread(stop.vcpu)};`;
}

function thread(vcpu: number): string {
  return (vcpu + 1).toString(16);
}

function parseAddress(text: string): bigint | undefined {
  return /^[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text}`) : undefined;
}

function parseRange(text: string): { address: bigint; length: number } | undefined {
  const [start = '', length = ''] = text.split(',');
  const address = parseAddress(start);
  return address === undefined || !/^[0-9a-f]{1,8}$/i.test(length) ? undefined : { address, length: Number.parseInt(length, 16) };
}

/** A range as watchpoints that debug registers can hold; undefined: it has no sensible size. */
function watchpoints(address: bigint, length: number, kind: Watchpoint['kind']): Watchpoint[] | undefined {
  if (!(length >= 1 && length <= 32)) return undefined;
  const pieces: Watchpoint[] = [];
  for (let at = address; at < address + BigInt(length); ) {
    const left = address + BigInt(length) - at;
    const size = ([8, 4, 2, 1] as const).find((n) => BigInt(n) <= left && at % BigInt(n) === 0n) ?? 1;
    pieces.push({ address: at, size, kind });
    at += BigInt(size);
  }
  return pieces;
}

/** `qXfer:features:read:target.xml:offset,length`. */
function transfer(text: string, xml: string): string {
  const wanted = /^qXfer:features:read:target\.xml:([0-9a-f]+),([0-9a-f]+)$/i.exec(text);
  if (wanted === null) return text.startsWith('qXfer:features:read:') ? 'E00' : '';
  const [offset, length] = [Number.parseInt(wanted[1] ?? '', 16), Number.parseInt(wanted[2] ?? '', 16)];
  const part = xml.slice(offset, offset + length);
  return `${offset + length < xml.length ? 'm' : 'l'}${part}`;
}
