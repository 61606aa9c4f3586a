import type { Server } from 'node:net';
import { type Duplex, pipeline } from 'node:stream';
import type { HostSockets } from '@pvm/pvm';
import type { PcArgs } from '../commands/pc-options.ts';
import { UsageError } from '../errors.ts';
import { type Address, connectTo, formatAddress, listenAt, parseAddress } from './address.ts';

interface Forward {
  readonly port: number;
  readonly address: Address;
}

/** Connections between sockets of the host and AF_VSOCK ports. */
export interface VsockPlan {
  /** From the guest, to a socket of the host. */
  readonly fromGuest: readonly Forward[];
  /** From a socket of the host, to the guest. */
  readonly toGuest: readonly Forward[];
}

function forward(option: string, spec: string, port: string | undefined, address: string | undefined): Forward {
  const number = /^\d{1,10}$/.test(port ?? '') ? Number(port) : Number.NaN;
  if (!(number <= 0xffff_fffe)) throw new UsageError(`${option} ${spec}: expected a port, a number up to 4294967294`);
  return { port: number, address: parseAddress(`${option} ${spec}`, address ?? '') };
}

/** @throws UsageError */
export function vsockPlan(a: PcArgs): VsockPlan {
  const fromGuest = a.vsock.map((spec) => {
    const [port, address] = spec.split(/:(.*)/s);
    return forward('--vsock', spec, port, address);
  });
  const toGuest = a.vsockListen.map((spec) => {
    const at = spec.lastIndexOf(':');
    return forward('--vsock-listen', spec, spec.slice(at + 1), spec.slice(0, Math.max(0, at)));
  });
  return { fromGuest, toGuest };
}

/** Each end that fails or closes takes the other one along. */
function join(a: Duplex, b: Duplex, onError: (error: Error) => void): void {
  const done = (error: Error | null | undefined) => {
    if (error == null || ('code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE')) return;
    a.destroy();
    b.destroy();
    onError(error);
  };
  pipeline(a, b, done);
  pipeline(b, a, done);
}

/** @param warn gets one line when a connection cannot be made. @returns stops listening. @throws UsageError */
export async function bridgeVsock(plan: VsockPlan, sockets: HostSockets, warn: (line: string) => void): Promise<() => void> {
  const servers: Server[] = [];
  const stop = (): void => {
    for (const server of servers) server.close();
  };
  try {
    for (const { port, address } of plan.fromGuest)
      sockets.listen(port, (socket) => join(socket, connectTo(address), (error) => warn(`--vsock ${port}:${formatAddress(address)}: ${error.message}`)));
    for (const { port, address } of plan.toGuest)
      servers.push(
        await listenAt(`--vsock-listen ${formatAddress(address)}`, address, (client) =>
          join(client, sockets.connect(port), (error) => warn(`--vsock-listen ${formatAddress(address)}:${port}: ${error.message}`)),
        ),
      );
  } catch (e) {
    stop();
    throw e;
  }
  return stop;
}
