import { OP, type PacketHeader, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './vsock-packet.ts';

/** What a connection asks of its device. */
export interface VsockLink {
  sendControl(connection: VsockConnection, op: number, flags?: number): void;
  /** There may be data to send. */
  pump(): void;
  forget(connection: VsockConnection): void;
}

/** Bytes the guest may send before the host has read them. */
const BUFFER_SIZE = 256 * 1024;

/** The host's end of a stream to the guest. */
export class VsockConnection {
  readonly hostPort: number;
  readonly guestPort: number;
  readonly bufferSize = BUFFER_SIZE;
  /** Called with each piece of data; a copy. Set it before returning from `accept`. */
  onData: (data: Uint8Array) => void = () => undefined;
  /** The guest will send no more. */
  onEnd: () => void = () => undefined;
  /** The connection is over; `failed` when it was refused or reset. */
  onClose: (failed: boolean) => void = () => undefined;
  private readonly link: VsockLink;
  private outgoing: Uint8Array[] = [];
  private waiting = 0;
  private established: boolean;
  private ending = false;
  private closed = false;
  private sent = 0;
  private received = 0;
  private announced = 0;
  private peerBuffer = 0;
  private peerForwarded = 0;

  constructor(link: VsockLink, hostPort: number, guestPort: number, established: boolean) {
    this.link = link;
    this.hostPort = hostPort;
    this.guestPort = guestPort;
    this.established = established;
  }

  /** Bytes handed on to `onData`, modulo 2^32. */
  get forwarded(): number {
    this.announced = this.received;
    return this.received >>> 0;
  }

  /** Bytes that wait to be sent. */
  get pending(): number {
    return this.waiting;
  }

  /** Bytes that could be sent now. */
  get sendable(): number {
    if (!this.established || this.closed) return 0;
    const inFlight = (this.sent - this.peerForwarded) >>> 0;
    return Math.max(0, Math.min(this.waiting, this.peerBuffer - inFlight));
  }

  /** Send data. @returns false: the connection is over, the data is lost */
  write(data: Uint8Array): boolean {
    if (this.closed || this.ending) return false;
    if (data.length > 0) this.outgoing.push(data.slice());
    this.waiting += data.length;
    this.link.pump();
    return true;
  }

  /** No more data from here; closes when everything is sent. */
  end(): void {
    if (this.closed || this.ending) return;
    this.ending = true;
    this.finishIfDrained();
  }

  /** Break the connection off. */
  destroy(): void {
    if (this.closed) return;
    this.link.sendControl(this, OP.reset);
    this.close(false);
  }

  /** Used by the device: take up to `max` bytes to send. */
  take(max: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(max, this.sendable));
    for (let at = 0; at < bytes.length; ) {
      const head = this.outgoing[0];
      if (head === undefined) break;
      const n = Math.min(head.length, bytes.length - at);
      bytes.set(head.subarray(0, n), at);
      at += n;
      if (n === head.length) this.outgoing.shift();
      else this.outgoing[0] = head.subarray(n);
    }
    this.waiting -= bytes.length;
    this.sent = (this.sent + bytes.length) >>> 0;
    // The shutdown must not overtake the packet being built.
    if (this.waiting === 0 && this.ending) queueMicrotask(() => this.finishIfDrained());
    return bytes;
  }

  /** Used by the device: the machine was reset. */
  reset(): void {
    this.close(true);
  }

  /** Used by the device: a packet of the guest. */
  receive(header: PacketHeader, payload: Uint8Array): void {
    this.peerBuffer = header.bufferSize;
    this.peerForwarded = header.forwarded;
    switch (header.op) {
      case OP.response:
        this.established = true;
        break;
      case OP.reset:
        this.close(!this.ending);
        return;
      case OP.shutdown:
        this.peerShutdown(header.flags);
        return;
      case OP.rw:
        this.received += payload.length;
        this.onData(payload);
        if (this.received - this.announced > BUFFER_SIZE / 2) this.link.sendControl(this, OP.creditUpdate);
        break;
      case OP.creditRequest:
        this.link.sendControl(this, OP.creditUpdate);
        break;
      default:
        break;
    }
    this.link.pump();
  }

  private peerShutdown(flags: number): void {
    if ((flags & SHUTDOWN_SEND) !== 0) this.onEnd();
    if ((flags & SHUTDOWN_BOTH) === SHUTDOWN_BOTH || ((flags & SHUTDOWN_RECEIVE) !== 0 && this.ending)) {
      this.link.sendControl(this, OP.reset);
      this.close(false);
    }
  }

  private finishIfDrained(): void {
    if (this.closed || !this.ending || this.waiting > 0) return;
    this.link.sendControl(this, OP.shutdown, SHUTDOWN_BOTH);
  }

  private close(failed: boolean): void {
    if (this.closed) return;
    this.closed = true;
    this.outgoing = [];
    this.waiting = 0;
    this.link.forget(this);
    this.onClose(failed);
  }
}
