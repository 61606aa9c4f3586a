import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { VsockConnection } from '@pvm/machine';
import { expect, it } from 'vitest';
import { HostSockets } from './host-sockets.ts';

const [RESPONSE, RESET, SHUTDOWN, RW] = [2, 3, 4, 5];
const HEADER = { sourceCid: 3, destinationCid: 2, sourcePort: 7, destinationPort: 1, length: 0, type: 1, flags: 0, bufferSize: 64, forwarded: 0 };

/** A socket of the host to port 7, and the guest's end of it: what it is sent, and a way to send packets. */
function pair() {
  const sent: string[] = [];
  const link = { sendControl: (_: VsockConnection, op: number) => void sent.push(`op ${op}`), pump: () => undefined, forget: () => undefined };
  const connection = new VsockConnection(link, 1, 7, false);
  const device = { connect: () => connection, listen: () => () => undefined };
  const sockets = new HostSockets(device as unknown as ConstructorParameters<typeof HostSockets>[0]);
  const guest = (op: number, data = '', flags = 0, forwarded = 0) =>
    connection.receive({ ...HEADER, op, flags, forwarded, length: data.length }, new TextEncoder().encode(data));
  const socket: Duplex = sockets.connect(7);
  return { connection, sockets, guest, socket, sent };
}

it('carries data both ways and ends from either side', async () => {
  const { connection, guest, socket } = pair();
  guest(RESPONSE);
  socket.write('ping');
  expect(new TextDecoder().decode(connection.take(100))).toBe('ping');
  guest(RW, 'pong');
  expect(String((await once(socket, 'data'))[0])).toBe('pong');
  guest(SHUTDOWN, '', 3);
  await once(socket, 'end');
});

it('holds writes until the guest has room, and the guest until data is read', async () => {
  const { connection, guest, socket } = pair();
  guest(RESPONSE);
  let drained = false;
  socket.write(new Uint8Array(100), () => {
    drained = true;
  });
  expect(connection.take(100).length).toBe(64);
  await new Promise((resolve) => setImmediate(resolve));
  expect(drained).toBe(false);
  guest(6, '', 0, 64);
  expect(connection.take(100).length).toBe(36);
  await new Promise((resolve) => setImmediate(resolve));
  expect(drained).toBe(true);
  // Nobody reads: what came beyond the stream's own buffer does not count as read.
  for (let i = 0; i < 40; i++) guest(RW, 'x'.repeat(4096));
  expect(connection.forwarded).toBeLessThan(40 * 4096);
  socket.resume();
  await new Promise((resolve) => setImmediate(resolve));
  expect(connection.forwarded).toBe(40 * 4096);
});

it('lets what the guest said be read after it has closed, and fails a write that it has not taken', async () => {
  const { guest, socket } = pair();
  guest(RESPONSE);
  socket.end();
  guest(RW, 'farewell');
  guest(SHUTDOWN, '', 3);
  await new Promise((resolve) => setImmediate(resolve));
  expect(await text(socket)).toBe('farewell');
  const busy = pair();
  busy.guest(RESPONSE);
  const error = once(busy.socket, 'error');
  busy.socket.write(new Uint8Array(100));
  busy.guest(SHUTDOWN, '', 3);
  expect(String((await error)[0])).toMatch(/the guest closed the connection/);
});

it('reports a refused connection, breaks connections off when the machine ends, and knows what a port is', async () => {
  const refused = pair();
  const error = once(refused.socket, 'error');
  refused.guest(RESET);
  expect(String((await error)[0])).toMatch(/port 7 of the guest: connection refused/);
  const open = pair();
  open.guest(RESPONSE);
  open.sockets.dispose();
  expect(open.sent).toContain(`op ${RESET}`);
  expect(() => open.sockets.connect(-1)).toThrow(/vsock port -1: expected/);
  expect(() => open.sockets.listen(2 ** 32, () => undefined)).toThrow(RangeError);
});
