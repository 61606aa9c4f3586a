import { type GdbServer, serveGdb, type Vm } from '@pvm/pvm';
import { UsageError } from '../errors.ts';
import { note } from './run-host.ts';

/** @throws UsageError */
export function parseGdbAddress(text: string): { host: string; port: number } {
  const match = /^(?:(.*):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) throw new UsageError(`--gdb ${text}: expected a port, 0 to 65535, or HOST:PORT`);
  return { host: (match[1] || '127.0.0.1').replace(/^\[(.*)\]$/, '$1'), port };
}

/** Starts to listen, and says where; with `wait` the machine does not begin to run. */
export async function listenForGdb(vm: Vm, address: string, wait: boolean): Promise<GdbServer> {
  const { host, port } = parseGdbAddress(address);
  const server = await serveGdb(vm, { host, port });
  if (wait) vm.debugger.pause();
  note(`gdb can connect: target remote ${host.includes(':') ? `[${host}]` : host}:${server.port}${wait ? ' (the machine waits for it)' : ''}`);
  return server;
}
