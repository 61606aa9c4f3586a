import type { StateIo } from '@pvm/cpu-jit';
import { MachineError } from '../errors.ts';
import type { GuestRam } from '../ram.ts';
import { ByteQueue } from './byte-queue.ts';
import { VirtioDevice } from './virtio-device.ts';
import { readSegments, subSegments, totalLength, type Virtqueue, VirtqueueError, writeSegments } from './virtqueue.ts';

// VIRTIO 1.2, section 5.3: console device.
const DEVICE_ID = 3;
const F_SIZE = 0;
const F_MULTIPORT = 1;
const CONTROL_RECEIVE = 2;
const CONTROL_TRANSMIT = 3;
const MAX_CHUNK = 65536;
/** Longest piece of output: drivers send some kilobytes, and the host has to keep what its receiver does not take at once. */
const MAX_OUTPUT = 1 << 20;
/** Bytes the host may queue for a port. */
const MAX_INPUT = 1 << 20;
/** Control messages that may wait for a buffer of the guest. */
const MAX_CONTROL = 256;
const CONTROL_SIZE = 8;
/** Events of the control queues (5.3.6.2). */
const EVENT = { deviceReady: 0, deviceAdd: 1, deviceRemove: 2, portReady: 3, consolePort: 4, resize: 5, portOpen: 6, portName: 7 } as const;
/** Most ports: queues are made for each. */
export const MAX_CONSOLE_PORTS = 16;

/** A port of the console device: a terminal (hvc0, ...) or a plain channel (/dev/virtio-ports/NAME). */
export interface ConsolePortOptions {
  /** Name of a channel: 1 to 63 characters of a-z, A-Z, 0-9, `.`, `_`, `-`. Without one the port is a terminal. */
  readonly name?: string;
  /** Bytes from the guest, a copy. */
  output(data: Uint8Array): void;
  /** The guest took bytes of the input. */
  onTaken?(): void;
  /** The guest opened the port, or closed it. */
  onGuestOpen?(open: boolean): void;
}

interface Port {
  readonly options: ConsolePortOptions;
  readonly input: ByteQueue;
  /** Channels that nobody has open in the guest throw input away: it is held back until then. */
  guestOpen: boolean;
}

/** Virtio console with one or several ports. */
export class VirtioConsole extends VirtioDevice {
  private readonly ports: readonly Port[];
  private control: Uint8Array[] = [];
  private columns = 80;
  private rows = 25;
  /** A terminal has said how large it is. */
  private hasSize = false;

  /** @throws MachineError `bad-board-option` */
  constructor(ram: GuestRam, ports: readonly ConsolePortOptions[]) {
    checkPorts(ports);
    const multiport = ports.length > 1 || ports[0]?.name !== undefined;
    const features = (1n << BigInt(F_SIZE)) | (multiport ? 1n << BigInt(F_MULTIPORT) : 0n);
    super(ram, { name: 'virtio-console', deviceId: DEVICE_ID, features, queues: multiport ? 2 * (ports.length + 1) : 2, configSize: 12 });
    this.ports = ports.map((options) => ({ options, input: new ByteQueue(), guestOpen: options.name === undefined }));
    this.config.setUint16(0, this.columns, true);
    this.config.setUint16(2, this.rows, true);
    this.config.setUint32(4, ports.length, true); // max_nr_ports
  }

  /** Bytes for a port. @returns false: the guest does not read, they are lost */
  receive(data: Uint8Array, port = 0): boolean {
    const to = this.port(port);
    if (to.input.length + data.length > MAX_INPUT) return false;
    to.input.put(data);
    this.notify(receiveQueue(port));
    return true;
  }

  /** Bytes of a port that the guest has not taken yet. */
  waiting(port = 0): number {
    return this.port(port).input.length;
  }

  /** The window has a new size: that of all terminals. */
  resize(columns: number, rows: number): void {
    this.hasSize = true;
    this.columns = columns;
    this.rows = rows;
    this.config.setUint16(0, columns, true);
    this.config.setUint16(2, rows, true);
    // 5.3.4: with several ports each is told by a message, and the configuration is not looked at.
    if (this.negotiated(F_MULTIPORT)) {
      for (const [id, port] of this.ports.entries()) if (port.options.name === undefined) this.sendSize(id);
    } else this.configChanged();
  }

  /** Linux reads the size of a device with one port when the configuration changes, and never before. */
  protected override onStart(): void {
    if (this.hasSize && !this.negotiated(F_MULTIPORT)) this.configChanged();
  }

  protected override onReset(): void {
    // A device is reset once by each driver that finds it; what waits is for the guest to come.
    this.control = [];
    for (const port of this.ports) port.guestOpen = port.options.name === undefined;
  }

  protected override process(queue: Virtqueue, index: number): void {
    if (index === CONTROL_RECEIVE) this.fillControl(queue);
    else if (index === CONTROL_TRANSMIT) this.readControl(queue);
    else {
      const id = index < 2 ? 0 : (index >> 1) - 1;
      const port = this.ports[id];
      if (port === undefined) return;
      if ((index & 1) === 1) this.transmit(queue, port);
      else this.fill(queue, port);
    }
  }

  private port(id: number): Port {
    const port = this.ports[id];
    if (port === undefined) throw new RangeError(`the console has no port ${id}`);
    return port;
  }

  private transmit(queue: Virtqueue, port: Port): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      const total = totalLength(chain.readable);
      if (total > MAX_OUTPUT) throw new VirtqueueError(`${total} bytes of output in one piece; at most ${MAX_OUTPUT}`);
      for (let at = 0; at < total; at += MAX_CHUNK) port.options.output(readSegments(this.ram, subSegments(chain.readable, at, MAX_CHUNK), MAX_CHUNK));
      queue.push(chain, 0);
    }
  }

  private fill(queue: Virtqueue, port: Port): void {
    while (port.guestOpen && port.input.length > 0) {
      const chain = queue.pop();
      if (chain === undefined) return;
      const data = port.input.take(totalLength(chain.writable));
      queue.push(chain, writeSegments(this.ram, chain.writable, data));
      port.options.onTaken?.();
    }
  }

  // ------------------------------------------------------------ control queues
  private readControl(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      const message = readSegments(this.ram, chain.readable, CONTROL_SIZE);
      if (message.length === CONTROL_SIZE) {
        const view = new DataView(message.buffer);
        this.heard(view.getUint32(0, true), view.getUint16(4, true), view.getUint16(6, true));
      }
      queue.push(chain, 0);
    }
    this.notify(CONTROL_RECEIVE);
  }

  private heard(id: number, event: number, value: number): void {
    if (event === EVENT.deviceReady) {
      if (value === 1) for (const i of this.ports.keys()) this.send(i, EVENT.deviceAdd, 1);
      return;
    }
    const port = this.ports[id];
    if (port === undefined) return;
    if (event === EVENT.portReady && value === 1) this.describe(id, port);
    else if (event === EVENT.portOpen) {
      const open = value !== 0 || port.options.name === undefined;
      if (open === port.guestOpen) return;
      port.guestOpen = open;
      port.options.onGuestOpen?.(open);
      this.notify(receiveQueue(id));
    }
  }

  private describe(id: number, port: Port): void {
    const { name } = port.options;
    if (name === undefined) {
      this.send(id, EVENT.consolePort, 1);
      this.sendSize(id);
    } else this.send(id, EVENT.portName, 1, new TextEncoder().encode(name));
    this.send(id, EVENT.portOpen, 1);
  }

  private sendSize(id: number): void {
    // struct virtio_console_resize, in Linux's order: columns first.
    const size = new DataView(new ArrayBuffer(4));
    size.setUint16(0, this.columns, true);
    size.setUint16(2, this.rows, true);
    this.send(id, EVENT.resize, 0, new Uint8Array(size.buffer));
  }

  private send(id: number, event: number, value: number, more = new Uint8Array(0)): void {
    // A guest that asks without ever giving buffers loses answers, not the host its memory.
    if (this.control.length >= MAX_CONTROL) return;
    const message = new Uint8Array(CONTROL_SIZE + more.length);
    const view = new DataView(message.buffer);
    view.setUint32(0, id, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    message.set(more, CONTROL_SIZE);
    this.control.push(message);
    this.notify(CONTROL_RECEIVE);
  }

  private fillControl(queue: Virtqueue): void {
    for (let message = this.control[0]; message !== undefined; message = this.control[0]) {
      const chain = queue.pop();
      if (chain === undefined) return;
      this.control.shift();
      queue.push(chain, writeSegments(this.ram, chain.writable, message));
    }
  }

  override state(s: StateIo): void {
    super.state(s);
    s.fields(this, ['columns', 'rows', 'hasSize', 'control']);
    this.ports.forEach((port, i) => {
      s.part(`input ${i}`, port.input);
      port.guestOpen = s.value('guestOpen', port.guestOpen);
    });
  }
}

/** Port 0 has queues 0 and 1, the control queues are 2 and 3, port n from 1 on has 2n + 2 and 2n + 3. */
function receiveQueue(port: number): number {
  return port === 0 ? 0 : 2 * port + 2;
}

function checkPorts(ports: readonly ConsolePortOptions[]): void {
  if (ports.length < 1 || ports.length > MAX_CONSOLE_PORTS)
    throw new MachineError('bad-board-option', `a virtio console has 1 to ${MAX_CONSOLE_PORTS} ports, got ${ports.length}`);
  const names = ports.flatMap((port) => (port.name === undefined ? [] : [port.name]));
  const bad = names.find((name) => !/^[\w.-]{1,63}$/.test(name));
  if (bad !== undefined) throw new MachineError('bad-board-option', `port name "${bad}": expected 1 to 63 letters, digits, ".", "_" or "-"`);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new MachineError('bad-board-option', `two ports of the console are called "${twice}"`);
}
