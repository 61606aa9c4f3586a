import { describe, expect, it } from 'vitest';
import { GuestRam } from '../ram.ts';
import { type GuestPowerOff, HOST_CHANNEL_PORT, HostChannel } from './host-channel.ts';

function setup() {
  const ram = new GuestRam(new ArrayBuffer(4 << 20), 0, 4 << 20);
  const log = { out: '', err: '', off: [] as GuestPowerOff[], marks: [] as unknown[], unknown: new Map<number, number>() as ReadonlyMap<number, number> };
  const input = ['ab', ''];
  const text = new TextDecoder();
  const channel = new HostChannel(ram, {
    stdout: (d) => {
      log.out += text.decode(d);
      return undefined;
    },
    stderr: (d) => {
      log.err += text.decode(d);
      return undefined;
    },
    stdin: async () => new TextEncoder().encode(input.shift()),
    powerOff: (how) => log.off.push(how),
    unknownSyscalls: (calls) => (log.unknown = calls),
    wallClock: () => 12345n,
    random: (b) => b.fill(7),
    terminals: () => 2,
    mark: (operations, id) => {
      log.marks.push([operations, id]);
      return undefined;
    },
    sleep: async (ns) => void log.marks.push(['sleep', ns]),
  });
  const request = async (command: number, gpa = 0, length = 0, arg2 = 0): Promise<number> => {
    ram.view.setUint32(0x1000, command, true);
    ram.view.setBigUint64(0x1008, BigInt(gpa), true);
    ram.view.setBigUint64(0x1010, BigInt(length), true);
    ram.view.setBigUint64(0x1018, BigInt(arg2), true);
    await channel.write(HOST_CHANNEL_PORT, 4, 0x1000);
    return ram.view.getInt32(0x1004, true);
  };
  return { ram, log, channel, request };
}

describe('host channel', () => {
  it('keeps stdout and stderr apart', async () => {
    const { ram, log, request } = setup();
    ram.write(0x2000, new TextEncoder().encode('out err'));
    expect(await request(1, 0x2000, 3)).toBe(3);
    expect(await request(2, 0x2004, 3)).toBe(3);
    expect(log).toMatchObject({ out: 'out', err: 'err' });
  });

  it('reads stdin until its end', async () => {
    const { ram, request } = setup();
    expect(await request(3, 0x2000, 100)).toBe(2);
    expect(ram.bytes[0x2001]).toBe(0x62);
    expect(await request(3, 0x2000, 100)).toBe(0);
  });

  it('powers off with exit code and signal', async () => {
    const { log, request } = setup();
    await request(4, 0, 139, 11);
    expect(log.off).toEqual([{ exitCode: 139, signal: 11 }]);
  });

  it('reports unknown syscalls, the clock, random bytes and terminals', async () => {
    const { ram, log, request } = setup();
    ram.view.setUint32(0x2000, 435, true);
    ram.view.setUint32(0x2004, 2, true);
    expect(await request(5, 0x2000, 8)).toBe(0);
    expect([...log.unknown]).toEqual([[435, 2]]);
    expect(await request(6, 0x3000, 8)).toBe(0);
    expect(ram.view.getBigUint64(0x3000, true)).toBe(12345n);
    expect(await request(7, 0x3000, 4)).toBe(4);
    expect(ram.bytes[0x3003]).toBe(7);
    expect(await request(8)).toBe(2);
  });

  it('marks intervals and sleeps', async () => {
    const { log, request } = setup();
    await request(16, 0, 200, 3);
    await request(16, 0, 0, 3);
    await request(17, 0, 5000);
    expect(log.marks).toEqual([
      [200, 3],
      [0, 3],
      ['sleep', 5000],
    ]);
  });

  it.each([
    ['a buffer outside RAM', 1, 0x3ff_fff0, 0x20, -14],
    ['a length near 2^63', 1, 0, 2 ** 62, -14],
    ['an unknown command', 99, 0, 0, -38],
  ])('answers %s with an errno', async (_name, command, gpa, length, expected) => {
    expect(await setup().request(command, gpa, length)).toBe(expected);
  });

  it('ignores a request block outside RAM', () => {
    const { channel } = setup();
    expect(channel.write(HOST_CHANNEL_PORT, 4, 0xffff_fff0)).toBeUndefined();
  });
});
