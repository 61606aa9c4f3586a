import { describe, expect, it } from 'vitest';
import { GuestRam } from '../ram.ts';
import { xorshift } from '../testing/test-board.ts';
import { TestDriver } from '../testing/virtio-driver.ts';
import { VirtioVsock } from './vsock.ts';
import { decodeHeader, encodeHeader, HEADER_SIZE, OP, type PacketHeader } from './vsock-packet.ts';

const RX = 0x10_0000;
const TX = 0x20_0000;
const BUFFER = 4096;

function guest() {
  const ram = new GuestRam(new ArrayBuffer(8 << 20), 0, 8 << 20);
  const device = new VirtioVsock(ram, 3);
  const receive = new TestDriver(ram, device, 0, 0x1_0000, 64);
  const transmit = new TestDriver(ram, device, 1, 0x2_0000, 64);
  TestDriver.start(device, [0, 1]);
  let next = 0;
  const give = (n: number) => {
    for (let i = 0; i < n; i++) receive.add([{ gpa: RX + ((next + i) % 64) * BUFFER, length: BUFFER, write: true }]);
    receive.kick();
  };
  const send = (op: number, more: Partial<PacketHeader> = {}, payload = new Uint8Array(0)) => {
    const header = {
      sourceCid: 3,
      destinationCid: 2,
      sourcePort: 1000,
      destinationPort: 80,
      length: payload.length,
      type: 1,
      op,
      flags: 0,
      bufferSize: 8192,
      forwarded: 0,
      ...more,
    };
    ram.write(TX, encodeHeader(header));
    ram.write(TX + HEADER_SIZE, payload);
    transmit.add([{ gpa: TX, length: HEADER_SIZE + payload.length, write: false }]);
    transmit.kick();
  };
  const packets = () =>
    receive.completed().map((length) => {
      const at = RX + (next++ % 64) * BUFFER;
      return { ...decodeHeader(ram.slice(at, HEADER_SIZE)), data: new TextDecoder().decode(ram.bytes.slice(at + HEADER_SIZE, at + length)) };
    });
  return { device, give, send, packets };
}

describe('virtio-vsock', () => {
  it('accepts a connection of the guest and carries data both ways', () => {
    const { device, give, send, packets } = guest();
    let heard = '';
    device.listen(80, (connection) => {
      connection.onData = (data) => {
        heard += new TextDecoder().decode(data);
        connection.write(new TextEncoder().encode('world'));
      };
    });
    give(8);
    send(OP.request);
    expect(packets()).toMatchObject([{ op: OP.response, sourcePort: 80, destinationPort: 1000, sourceCid: 2 }]);
    send(OP.rw, {}, new TextEncoder().encode('hello'));
    expect(heard).toBe('hello');
    expect(packets()).toMatchObject([{ op: OP.rw, data: 'world', forwarded: 5 }]);
  });

  it('refuses ports without a listener and unknown connections', () => {
    const { give, send, packets } = guest();
    give(8);
    send(OP.request, { destinationPort: 81 });
    send(OP.rw, { sourcePort: 5 });
    send(OP.reset, { sourcePort: 6 });
    send(OP.request, { destinationCid: 9 });
    expect(packets().map((p) => [p.op, p.sourcePort])).toEqual([
      [OP.reset, 81],
      [OP.reset, 80],
      [OP.reset, 80],
    ]);
  });

  it('sends no more than the guest has room for', () => {
    const { device, give, send, packets } = guest();
    const connection = device.connect(7);
    give(16);
    const request = packets();
    expect(request).toMatchObject([{ op: OP.request, destinationPort: 7 }]);
    connection.write(new Uint8Array(6000).fill(65));
    expect(packets()).toEqual([]);
    const to = { sourcePort: 7, destinationPort: connection.hostPort };
    send(OP.response, { ...to, bufferSize: 5000 });
    expect(packets().reduce((sum, p) => sum + p.length, 0)).toBe(5000);
    send(OP.creditUpdate, { ...to, bufferSize: 5000, forwarded: 5000 });
    expect(packets().reduce((sum, p) => sum + p.length, 0)).toBe(1000);
    expect(connection.pending).toBe(0);
  });

  it('closes from either side and after a reset of the machine', async () => {
    const { device, give, send, packets } = guest();
    const log: string[] = [];
    give(16);
    device.listen(80, (connection) => {
      connection.onEnd = () => log.push('end');
      connection.onClose = (failed) => log.push(`close ${failed}`);
      if (log.length > 0) connection.end();
    });
    send(OP.request);
    send(OP.shutdown, { flags: 3 });
    expect(log).toEqual(['end', 'close false']);
    send(OP.request);
    expect(packets().map((p) => p.op)).toEqual([OP.response, OP.reset, OP.response, OP.shutdown]);
    send(OP.reset);
    const open = device.connect(9);
    open.onClose = (failed) => log.push(`reset ${failed}`);
    device.writeStatus(0);
    expect(log).toEqual(['end', 'close false', 'close false', 'reset true']);
    expect(open.write(new Uint8Array(1))).toBe(false);
  });

  it('closes one direction after the other: what the guest sends after the host has ended arrives', () => {
    const { device, give, send, packets } = guest();
    const log: string[] = [];
    give(16);
    device.listen(80, (connection) => {
      connection.onData = (data) => log.push(new TextDecoder().decode(data));
      connection.onEnd = () => log.push('end');
      connection.onClose = (failed) => log.push(`close ${failed}`);
      connection.end();
    });
    send(OP.request);
    expect(packets()).toMatchObject([{ op: OP.response }, { op: OP.shutdown, flags: 2 }]);
    send(OP.rw, {}, new TextEncoder().encode('answer'));
    send(OP.shutdown, { flags: 2 });
    expect(packets()).toMatchObject([{ op: OP.shutdown, flags: 3 }]);
    send(OP.reset);
    expect(log).toEqual(['answer', 'end', 'close false']);
  });

  it('survives random packets with bounded memory', () => {
    const { device, give, send } = guest();
    const random = xorshift(5);
    device.listen(80, (connection) => {
      connection.onData = (data) => connection.write(data);
    });
    for (let i = 0; i < 20_000; i++) {
      if (random() % 50 === 0) give(1);
      send(
        random() % 9,
        {
          sourcePort: random() % 40,
          destinationPort: random() % 8 === 0 ? 81 : 80,
          flags: random() & 3,
          bufferSize: random(),
          forwarded: random(),
          length: random() % 100,
        },
        new Uint8Array(random() % 64),
      );
    }
  });
});
