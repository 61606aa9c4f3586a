import { ByteQueue } from './byte-queue.ts';
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
  /** Called with each piece of data; a copy. Set it before returning from `accept`. Data of which it returns `false` counts as read only after `consumed`. */
  onData: (data: Uint8Array) => unknown = () => undefined;
  /** Everything that waited to be sent has been taken by the guest. */
  onDrain: () => void = () => undefined;
  /** The guest will send no more. */
  onEnd: () => void = () => undefined;
  /** The connection is over; `failed` when it was refused or reset. */
  onClose: (failed: boolean) => void = () => undefined;
  private readonly link: VsockLink;
  private readonly outgoing = new ByteQueue();
  private established: boolean;
  private ending = false;
  /** The guest will send no more. */
  private peerEnded = false;
  private closed = false;
  private sent = 0;
  private received = 0;
  /** Received, but not read by the host yet. */
  private held = 0;
  private announced = 0;
  private peerBuffer = 0;
  private peerForwarded = 0;

  constructor(link: VsockLink, hostPort: number, guestPort: number, established: boolean) {
    this.link = link;
    this.hostPort = hostPort;
    this.guestPort = guestPort;
    this.established = established;
  }

  /** Bytes that the host has read, modulo 2^32. */
  get forwarded(): number {
    this.announced = this.received - this.held;
    return this.announced >>> 0;
  }

  /** All data that `onData` returned `false` for has been read now: the guest may send more. */
  consumed(): void {
    if (this.held === 0) return;
    this.held = 0;
    this.offerRoom();
  }

  /** Bytes that wait to be sent. */
  get pending(): number {
    return this.outgoing.length;
  }

  /** Bytes that could be sent now. */
  get sendable(): number {
    if (!this.established || this.closed) return 0;
    const inFlight = (this.sent - this.peerForwarded) >>> 0;
    return Math.max(0, Math.min(this.outgoing.length, this.peerBuffer - inFlight));
  }

  /** Send data. @returns false: the connection is over, the data is lost */
  write(data: Uint8Array): boolean {
    if (this.closed || this.ending) return false;
    this.outgoing.put(data);
    this.link.pump();
    return true;
  }

  /** No more data from here, once everything is sent. What the guest sends still arrives, until it ends as well. */
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
    const bytes = this.outgoing.take(Math.min(max, this.sendable));
    this.sent = (this.sent + bytes.length) >>> 0;
    // The shutdown must not overtake the packet being built.
    if (this.outgoing.length === 0 && bytes.length > 0)
      queueMicrotask(() => {
        this.onDrain();
        this.finishIfDrained();
      });
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
        if (this.onData(payload) === false) this.held += payload.length;
        this.offerRoom();
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
    if ((flags & SHUTDOWN_SEND) !== 0 && !this.peerEnded) {
      this.peerEnded = true;
      this.onEnd();
    }
    if (this.closed) return;
    if ((flags & SHUTDOWN_BOTH) === SHUTDOWN_BOTH || ((flags & SHUTDOWN_RECEIVE) !== 0 && this.ending)) {
      this.link.sendControl(this, OP.reset);
      this.close(false);
    } else this.finishIfDrained();
  }

  private offerRoom(): void {
    if (!this.closed && this.received - this.held - this.announced > BUFFER_SIZE / 2) this.link.sendControl(this, OP.creditUpdate);
  }

  private finishIfDrained(): void {
    if (this.closed || !this.ending || this.outgoing.length > 0) return;
    // With both directions shut down Linux closes at once, so that nothing that it still has to say would come.
    this.link.sendControl(this, OP.shutdown, this.peerEnded ? SHUTDOWN_BOTH : SHUTDOWN_SEND);
  }

  private close(failed: boolean): void {
    if (this.closed) return;
    this.closed = true;
    this.outgoing.clear();
    this.link.forget(this);
    this.onClose(failed);
  }
}
