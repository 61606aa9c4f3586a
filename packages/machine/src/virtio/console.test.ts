import { describe, expect, it } from 'vitest';
import { GuestRam } from '../ram.ts';
import { xorshift } from '../testing/test-board.ts';
import { TestDriver } from '../testing/virtio-driver.ts';
import { VirtioConsole } from './console.ts';

const DATA = 0x10_0000;
const READY = 0;
const PORT_READY = 3;
const OPEN = 6;

/** A terminal, and a channel called "agent". */
function guest() {
  const ram = new GuestRam(new ArrayBuffer(4 << 20), 0, 4 << 20);
  const output: string[] = [];
  const opened: boolean[] = [];
  const text = (port: number) => (data: Uint8Array) => output.push(`${port}:${new TextDecoder().decode(data)}`);
  const device = new VirtioConsole(ram, [{ output: text(0) }, { name: 'agent', output: text(1), onGuestOpen: (open) => opened.push(open) }]);
  const queues = [0, 1, 2, 3, 4, 5].map((queue) => new TestDriver(ram, device, queue, 0x1_0000 + queue * 0x4000, 32));
  TestDriver.start(device, [0, 1, 2, 3, 4, 5], true);
  const queue = (n: number) => queues[n] ?? queues[0];
  let next = 0;
  /** Gives a receive queue `count` buffers of 64 bytes. */
  const give = (n: number, count: number) => {
    for (let i = 0; i < count; i++) queue(n)?.add([{ gpa: DATA + n * 0x1000 + (i % 32) * 64, length: 64, write: true }]);
    queue(n)?.kick();
  };
  const send = (n: number, bytes: Uint8Array) => {
    ram.write(DATA + 0x8000, bytes);
    queue(n)?.add([{ gpa: DATA + 0x8000, length: bytes.length, write: false }]);
    queue(n)?.kick();
  };
  const control = (id: number, event: number, value: number) => {
    const message = new DataView(new ArrayBuffer(8));
    message.setUint32(0, id, true);
    message.setUint16(4, event, true);
    message.setUint16(6, value, true);
    send(3, new Uint8Array(message.buffer));
  };
  /** Control messages since the last call: id, event, value and the rest. */
  const heard = () =>
    (queue(2)?.completed() ?? []).map((length) => {
      const at = DATA + 2 * 0x1000 + (next++ % 32) * 64;
      const { view } = ram;
      return [view.getUint32(at, true), view.getUint16(at + 4, true), view.getUint16(at + 6, true), ...ram.bytes.slice(at + 8, at + length)];
    });
  const received = (n: number) => {
    const lengths = queue(n)?.completed() ?? [];
    return lengths.map((length, i) => new TextDecoder().decode(ram.bytes.slice(DATA + n * 0x1000 + i * 64, DATA + n * 0x1000 + i * 64 + length)));
  };
  return { ram, device, give, send, control, heard, received, output, opened };
}

const bytes = (text: string) => new TextEncoder().encode(text);

describe('virtio-console with several ports', () => {
  it('names its ports when the driver is ready, and says which is a terminal', () => {
    const { give, control, heard } = guest();
    give(2, 32);
    control(0xffff_ffff, READY, 1);
    expect(heard()).toEqual([
      [0, 1, 1],
      [1, 1, 1],
    ]);
    control(0, PORT_READY, 1);
    expect(heard()).toEqual([
      [0, 4, 1],
      [0, 5, 0, 80, 0, 25, 0],
      [0, 6, 1],
    ]);
    control(1, PORT_READY, 1);
    expect(heard()).toEqual([
      [1, 7, 1, ...bytes('agent')],
      [1, 6, 1],
    ]);
  });

  it('keeps the ports apart, and holds input back until the guest opens a channel', () => {
    const { device, give, send, control, received, output, opened } = guest();
    give(0, 4);
    give(4, 4);
    device.receive(bytes('typed'));
    device.receive(bytes('early'), 1);
    expect(received(0)).toEqual(['typed']);
    expect(received(4)).toEqual([]);
    expect(device.waiting(1)).toBe(5);
    control(1, OPEN, 1);
    expect(received(4)).toEqual(['early']);
    send(1, bytes('screen'));
    send(5, bytes('message'));
    control(1, OPEN, 0);
    expect(output).toEqual(['0:screen', '1:message']);
    expect(opened).toEqual([true, false]);
  });

  it('tells terminals of a new size, in messages; a device with one port in its configuration', () => {
    const { device, give, heard } = guest();
    give(2, 8);
    device.resize(132, 43);
    expect(heard()).toEqual([[0, 5, 0, 132, 0, 43, 0]]);
    const ram = new GuestRam(new ArrayBuffer(4 << 20), 0, 4 << 20);
    const single = new VirtioConsole(ram, [{ output: () => undefined }]);
    let told = 0;
    single.attachTransport({ queueInterrupt: () => undefined, configInterrupt: () => told++ });
    TestDriver.start(single, [], true);
    expect(told).toBe(0);
    single.resize(100, 50);
    expect([single.readConfig(0, 2), single.readConfig(2, 2), told]).toEqual([100, 50, 1]);
    // Linux looks at the size when it changes, and one that was there before the driver is a change to it.
    TestDriver.start(single, [], true);
    expect(told).toBe(2);
  });

  it('survives random messages and does not grow by them', () => {
    const { control, send, device } = guest();
    const random = xorshift(0x5eed);
    for (let i = 0; i < 5000; i++) {
      if (random() % 4 === 0)
        send(
          [1, 3, 5][random() % 3] ?? 1,
          Uint8Array.from({ length: random() % 64 }, () => random() & 0xff),
        );
      else control(random() % 3, random() % 9, random() % 3);
    }
    expect(device.error).toBeUndefined();
  });

  it.each([
    ['no port', []],
    ['a name with a slash', [{ name: '../x', output: () => undefined }]],
    ['two channels of one name', [0, 1].map(() => ({ name: 'a', output: () => undefined }))],
    ['too many', Array.from({ length: 17 }, () => ({ output: () => undefined }))],
  ])('refuses %s', (_, ports) => {
    expect(() => new VirtioConsole(new GuestRam(new ArrayBuffer(4 << 20), 0, 4 << 20), ports)).toThrow(/port/);
  });
});
