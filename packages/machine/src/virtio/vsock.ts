import type { StateIo } from '@pvm/cpu-jit';
import type { GuestRam } from '../ram.ts';
import { VirtioDevice } from './virtio-device.ts';
import { readSegments, subSegments, totalLength, type Virtqueue, writeSegments } from './virtqueue.ts';
import { VsockConnection, type VsockLink } from './vsock-connection.ts';
import { decodeHeader, encodeHeader, HEADER_SIZE, OP, type PacketHeader, SHUTDOWN_BOTH, TYPE_STREAM } from './vsock-packet.ts';

// VIRTIO 1.2, section 5.10: socket device.
const DEVICE_ID = 19;
const RECEIVE = 0;
const TRANSMIT = 1;
const EVENT = 2;
/** VIRTIO_VSOCK_EVENT_TRANSPORT_RESET. */
const EVENT_TRANSPORT_RESET = 0;
const EVENT_SIZE = 4;
export const HOST_CID = 2;
/** Address of the guest unless told otherwise; 0 to 2 are reserved. */
export const DEFAULT_GUEST_CID = 3;
const MAX_PAYLOAD = 65536;
/** Connections and control packets a guest may make the host keep. */
const MAX_CONNECTIONS = 1024;
const MAX_CONTROL = 4096;
const FIRST_HOST_PORT = 0x4000_0000;

/** Stream sockets between host and guest. The host's side is `listen` and `connect`. */
export class VirtioVsock extends VirtioDevice implements VsockLink {
  readonly guestCid: number;
  private readonly listeners = new Map<number, (connection: VsockConnection) => void>();
  private readonly connections = new Map<string, VsockConnection>();
  /** Packets without payload that wait for a buffer of the guest. */
  private control: PacketHeader[] = [];
  private nextPort = FIRST_HOST_PORT;
  private filling = false;
  /** The guest is to be told that its connections are gone. */
  private announcesReset = false;

  constructor(ram: GuestRam, guestCid = DEFAULT_GUEST_CID) {
    super(ram, { name: 'virtio-vsock', deviceId: DEVICE_ID, features: 1n, queues: 3, configSize: 8 });
    this.guestCid = guestCid;
    this.config.setBigUint64(0, BigInt(guestCid), true);
  }

  /** Accept connections of the guest to a port of the host (CID 2). @returns stops listening */
  listen(port: number, accept: (connection: VsockConnection) => void): () => void {
    if (this.listeners.has(port)) throw new RangeError(`vsock port ${port} has a listener already`);
    this.listeners.set(port, accept);
    return () => this.listeners.delete(port);
  }

  /** Connect to a port of the guest. The connection is usable at once; data waits until the guest accepts. */
  connect(guestPort: number): VsockConnection {
    while (this.connections.has(key(this.nextPort, guestPort))) this.nextPort++;
    const connection = new VsockConnection(this, this.nextPort++, guestPort, false);
    this.connections.set(key(connection.hostPort, guestPort), connection);
    this.sendControl(connection, OP.request);
    return connection;
  }

  // ------------------------------------------------------------ VsockLink
  sendControl(connection: VsockConnection, op: number, flags = 0): void {
    this.queueControl(this.header(connection, op, 0, flags));
  }

  pump(): void {
    this.notify(RECEIVE);
  }

  forget(connection: VsockConnection): void {
    this.connections.delete(key(connection.hostPort, connection.guestPort));
  }

  // ------------------------------------------------------------ queues
  protected override onReset(): void {
    this.control = [];
    for (const connection of [...this.connections.values()]) connection.reset();
    this.connections.clear();
  }

  protected override process(queue: Virtqueue, index: number): void {
    if (index === TRANSMIT) {
      for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
        const total = totalLength(chain.readable);
        if (total >= HEADER_SIZE) {
          const header = decodeHeader(readSegments(this.ram, chain.readable, HEADER_SIZE));
          const length = Math.min(header.length, total - HEADER_SIZE, MAX_PAYLOAD);
          this.received(header, readSegments(this.ram, subSegments(chain.readable, HEADER_SIZE, length), length));
        }
        queue.push(chain, 0);
      }
      this.notify(RECEIVE);
    } else if (index === EVENT) {
      this.announceReset(queue);
    } else if (index === RECEIVE && !this.filling) {
      this.filling = true;
      try {
        this.fill(queue);
      } finally {
        this.filling = false;
      }
    }
  }

  private fill(queue: Virtqueue): void {
    for (;;) {
      const sender = this.control.length > 0 ? undefined : this.readySender();
      if (this.control.length === 0 && sender === undefined) return;
      const chain = queue.pop();
      if (chain === undefined) return;
      const room = totalLength(chain.writable) - HEADER_SIZE;
      if (room < 0) {
        queue.push(chain, 0);
        continue;
      }
      const payload = sender?.take(Math.min(room, MAX_PAYLOAD)) ?? new Uint8Array(0);
      const header = sender === undefined ? this.control.shift() : this.header(sender, OP.rw, payload.length);
      if (header === undefined) return;
      writeSegments(this.ram, chain.writable, encodeHeader(header));
      writeSegments(this.ram, subSegments(chain.writable, HEADER_SIZE, payload.length), payload);
      queue.push(chain, HEADER_SIZE + payload.length);
    }
  }

  private readySender(): VsockConnection | undefined {
    for (const connection of this.connections.values()) if (connection.sendable > 0) return connection;
    return undefined;
  }

  private received(header: PacketHeader, payload: Uint8Array): void {
    const forHost = header.destinationCid === HOST_CID && header.sourceCid === this.guestCid && header.type === TYPE_STREAM;
    const connection = this.connections.get(key(header.destinationPort, header.sourcePort));
    if (!forHost) {
      this.refuse(header);
    } else if (connection !== undefined) {
      connection.receive(header, payload);
    } else if (header.op === OP.request) {
      this.accept(header);
    } else if (header.op !== OP.reset) {
      this.refuse(header);
    }
  }

  private accept(header: PacketHeader): void {
    const listener = this.listeners.get(header.destinationPort);
    if (listener === undefined || this.connections.size >= MAX_CONNECTIONS) {
      this.refuse(header);
      return;
    }
    const connection = new VsockConnection(this, header.destinationPort, header.sourcePort, true);
    this.connections.set(key(connection.hostPort, connection.guestPort), connection);
    connection.receive(header, new Uint8Array(0));
    this.sendControl(connection, OP.response);
    listener(connection);
  }

  private refuse(header: PacketHeader): void {
    if (header.op === OP.reset) return;
    this.queueControl({
      sourceCid: header.destinationCid,
      destinationCid: header.sourceCid,
      sourcePort: header.destinationPort,
      destinationPort: header.sourcePort,
      length: 0,
      type: header.type,
      op: OP.reset,
      flags: 0,
      bufferSize: 0,
      forwarded: 0,
    });
  }

  private queueControl(header: PacketHeader): void {
    // A guest that sends without ever giving buffers loses answers, not the host its memory.
    if (this.control.length < MAX_CONTROL) this.control.push(header);
    this.notify(RECEIVE);
  }

  private header(connection: VsockConnection, op: number, length: number, flags = 0): PacketHeader {
    return {
      sourceCid: HOST_CID,
      destinationCid: this.guestCid,
      sourcePort: connection.hostPort,
      destinationPort: connection.guestPort,
      length,
      type: TYPE_STREAM,
      op,
      flags: op === OP.shutdown ? flags & SHUTDOWN_BOTH : 0,
      bufferSize: connection.bufferSize,
      forwarded: connection.forwarded,
    };
  }

  private announceReset(queue: Virtqueue): void {
    const chain = this.announcesReset ? queue.pop() : undefined;
    if (chain === undefined) return;
    this.announcesReset = false;
    const event = new Uint8Array(EVENT_SIZE);
    new DataView(event.buffer).setUint32(0, EVENT_TRANSPORT_RESET, true);
    queue.push(chain, writeSegments(this.ram, chain.writable, event));
  }

  /** Connections end with the process that holds their other side: a restored guest is told that they are gone (VIRTIO 1.2, 5.10.6.7). */
  override state(s: StateIo): void {
    super.state(s);
    s.fields(this, ['nextPort']);
    const isConnected = s.value('isConnected', this.connections.size > 0 || this.control.length > 0 || this.announcesReset);
    if (!s.restoring) return;
    for (const connection of [...this.connections.values()]) connection.reset();
    this.control = [];
    this.announcesReset = isConnected;
  }

  /** After the whole machine was restored. */
  resume(): void {
    if (this.announcesReset) this.notify(EVENT);
  }
}

function key(hostPort: number, guestPort: number): string {
  return `${hostPort}:${guestPort}`;
}
