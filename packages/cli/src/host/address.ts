import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { UsageError } from '../errors.ts';

/** Where a socket of the host is. */
export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

const FORM = 'unix:PATH or tcp:HOST:PORT';

/** @throws UsageError that names the `option` */
export function parseAddress(option: string, text: string): Address {
  const unix = /^unix:(.+)$/.exec(text)?.[1];
  if (unix !== undefined) return { path: unix };
  const tcp = /^tcp:(.*):(\d{1,5})$/.exec(text);
  const port = Number(tcp?.[2]);
  if (tcp === null || port < 1 || port > 65_535) throw new UsageError(`${option}: expected an address ${FORM}, got "${text}"`);
  return { host: tcp[1] === '' ? 'localhost' : (tcp[1] ?? '').replace(/^\[(.*)\]$/, '$1'), port };
}

export function formatAddress(address: Address): string {
  return 'path' in address ? `unix:${address.path}` : `tcp:${address.host}:${address.port}`;
}

export function connectTo(address: Address): Socket {
  return createConnection({ ...address, allowHalfOpen: true });
}

/** Listens before it returns. @throws UsageError when the address is taken or cannot be had */
export async function listenAt(option: string, address: Address, onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, onConnection);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(address, resolve);
    });
  } catch (cause) {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new UsageError(`${option}: cannot listen at ${formatAddress(address)} (${reason === 'EADDRINUSE' ? 'something is there already' : reason})`);
  }
  return server;
}
