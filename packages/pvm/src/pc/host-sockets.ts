import { Duplex } from 'node:stream';
import type { VirtioVsock, VsockConnection } from '@pvm/machine';

const HIGHEST_PORT = 0xffff_fffe;

/** Stream sockets between host and guest (AF_VSOCK). The host is CID 2, the guest CID 3. */
export class HostSockets {
  private readonly device: VirtioVsock;
  private readonly open = new Set<Duplex>();

  constructor(device: VirtioVsock) {
    this.device = device;
  }

  /**
   * Accept the guest's connections to a port of the host.
   *
   * @returns stops listening; connections stay
   * @throws RangeError when the port is none, or taken
   */
  listen(port: number, accept: (socket: Duplex) => void): () => void {
    checkPort(port);
    return this.device.listen(port, (connection) => accept(this.keep(connection)));
  }

  /**
   * Connect to a port of the guest. The socket can be written to at once; it emits `error` when nobody listens there.
   *
   * @throws RangeError when the port is none
   */
  connect(port: number): Duplex {
    checkPort(port);
    return this.keep(this.device.connect(port));
  }

  /** Ends all connections. */
  dispose(): void {
    for (const socket of this.open) socket.destroy();
  }

  private keep(connection: VsockConnection): Duplex {
    const socket = new VsockSocket(connection);
    this.open.add(socket);
    socket.once('close', () => this.open.delete(socket));
    return socket;
  }
}

function checkPort(port: number): void {
  if (!Number.isInteger(port) || port < 0 || port > HIGHEST_PORT) throw new RangeError(`vsock port ${port}: expected a number from 0 to ${HIGHEST_PORT}`);
}

/** One connection as a stream of Node; who does not read slows the guest down, and the other way round. */
class VsockSocket extends Duplex {
  private readonly connection: VsockConnection;
  private isOver = false;
  /** A write that waits for the guest to have room. */
  private unwritten: ((error?: Error) => void) | undefined;

  constructor(connection: VsockConnection) {
    super({ allowHalfOpen: true });
    this.connection = connection;
    connection.onData = (data) => this.push(data);
    connection.onEnd = () => this.push(null);
    connection.onClose = (failed) => {
      this.isOver = true;
      if (failed) this.destroy(new Error(`vsock port ${connection.guestPort} of the guest: connection refused or reset`));
      // What has come and is not read yet can still be read; the stream destroys itself after its end.
      else if (!this.readableEnded) this.push(null);
      this.unwritten?.(new Error('the guest closed the connection'));
    };
  }

  override _read(): void {
    this.connection.consumed();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (!this.connection.write(chunk)) {
      done(new Error('the guest closed the connection'));
      return;
    }
    if (this.connection.pending === 0) done();
    else {
      this.unwritten = done;
      this.connection.onDrain = () => {
        this.unwritten = undefined;
        done();
      };
    }
  }

  override _final(done: (error?: Error | null) => void): void {
    this.connection.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.isOver) this.connection.destroy();
    done(error);
  }
}
