import { describe, expect, it } from 'vitest';
import { testBoard, xorshift } from '../testing/test-board.ts';

const IO_APIC = 0xfec0_0000;

function board() {
  const t = testBoard();
  const sink = t.board.interrupts[0];
  if (sink === undefined) throw new Error('no vCPU');
  const out = (port: number, value: number) => void t.board.writePort(port, 1, value);
  const initialisePics = () => {
    for (const [port, base, cascade] of [
      [0x20, 0x20, 4],
      [0xa0, 0x28, 2],
    ] as const) {
      out(port, 0x11);
      out(port + 1, base);
      out(port + 1, cascade);
      out(port + 1, 0x01);
      out(port + 1, 0);
    }
  };
  const entry = (pin: number, low: number, high = 0) => {
    t.board.writeMmio(0, IO_APIC, 4, 0x10 + pin * 2 + 1);
    t.board.writeMmio(0, IO_APIC + 0x10, 4, high);
    t.board.writeMmio(0, IO_APIC, 4, 0x10 + pin * 2);
    t.board.writeMmio(0, IO_APIC + 0x10, 4, low);
  };
  const readEntry = (pin: number) => {
    t.board.writeMmio(0, IO_APIC, 4, 0x10 + pin * 2);
    return t.board.readMmio(0, IO_APIC + 0x10, 4);
  };
  const eoi = () => void t.board.writeMmio(0, 0xfee0_00b0, 4, 0);
  return { ...t, sink, out, initialisePics, entry, readEntry, eoi };
}

describe('i8259 pair', () => {
  it('delivers through LINT0 as firmware leaves it, lower lines first, until EOI', () => {
    const { board: b, sink, initialisePics, out } = board();
    initialisePics();
    b.setIrq(4, true);
    b.setIrq(1, true);
    expect(sink.pendingVector()).toBe(0x21);
    expect(sink.acknowledge()).toBe(0x21);
    expect(sink.pendingVector()).toBe(-1);
    out(0x20, 0x20);
    expect(sink.acknowledge()).toBe(0x24);
    out(0x20, 0x64); // specific EOI of line 4
    expect(sink.hasWork()).toBe(false);
  });

  it('cascades the slave', () => {
    const { board: b, sink, initialisePics, out } = board();
    initialisePics();
    b.setIrq(8, true);
    expect(sink.acknowledge()).toBe(0x28);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    expect(sink.pendingVector()).toBe(-1);
    b.setIrq(8, false);
    b.setIrq(8, true);
    expect(sink.pendingVector()).toBe(0x28);
  });

  it('answers a vanished request with the spurious vector and masks lines', () => {
    const { board: b, sink, initialisePics, out } = board();
    initialisePics();
    out(0x21, 0xff);
    b.setIrq(4, true);
    expect(sink.pendingVector()).toBe(-1);
    out(0x21, 0);
    b.setIrq(4, false);
    expect(b.pic.acknowledge()).toBe(0x27);
  });

  it('repeats a level-triggered line until it falls', () => {
    const { board: b, sink, initialisePics, out } = board();
    initialisePics();
    b.setIrq(11, true);
    expect(sink.acknowledge()).toBe(0x2b);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    expect(sink.pendingVector()).toBe(0x2b);
    b.setIrq(11, false);
    expect(sink.pendingVector()).toBe(-1);
  });

  it('is cut off when LINT0 is masked', () => {
    const { board: b, sink, initialisePics } = board();
    initialisePics();
    b.writeMmio(0, 0xfee0_0350, 4, 0x1_0700);
    b.setIrq(4, true);
    expect(sink.pendingVector()).toBe(-1);
  });
});

describe('IOAPIC', () => {
  it('sends an edge once and a level until it falls', () => {
    const { board: b, sink, entry, readEntry, eoi } = board();
    b.writeMmio(0, 0xfee0_00f0, 4, 0x1ff);
    b.writeMmio(0, 0xfee0_0350, 4, 0x1_0000);
    entry(4, 0x34);
    b.setIrq(4, true);
    expect(sink.acknowledge()).toBe(0x34);
    eoi();
    expect(sink.pendingVector()).toBe(-1);
    entry(16, 0x8044);
    b.ioApic.setPin(16, true);
    expect(sink.acknowledge()).toBe(0x44);
    expect(readEntry(16) & 0x4000).toBe(0x4000);
    eoi();
    expect(sink.acknowledge()).toBe(0x44);
    b.ioApic.setPin(16, false);
    eoi();
    expect(sink.pendingVector()).toBe(-1);
    expect(readEntry(16)).toBe(0x8044);
  });

  it('gets the timer at pin 2 and holds masked pins back', () => {
    const { board: b, sink, entry } = board();
    b.writeMmio(0, 0xfee0_00f0, 4, 0x1ff);
    b.writeMmio(0, 0xfee0_0350, 4, 0x1_0000);
    entry(2, 0x1_0030);
    b.setIrq(0, true);
    b.setIrq(0, false);
    expect(sink.pendingVector()).toBe(-1);
    entry(2, 0x30);
    b.setIrq(0, true);
    expect(sink.pendingVector()).toBe(0x30);
  });

  it('forgets remote IRR when an entry turns edge-triggered', () => {
    const { board: b, entry, readEntry } = board();
    b.writeMmio(0, 0xfee0_00f0, 4, 0x1ff);
    entry(16, 0x8044);
    b.ioApic.setPin(16, true);
    entry(16, 0x44);
    expect(readEntry(16)).toBe(0x44);
  });
});

describe('board under random register accesses', () => {
  it('never throws and never runs away', () => {
    const { board: b, advance } = board();
    const random = xorshift(0x1234_5678);
    const ports = [
      0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0x60, 0x64, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x600, 0x602, 0x604, 0x608,
      0xcf8, 0xcfc, 0x510, 0x511, 0x514, 0x518, 0x80,
    ];
    for (let i = 0; i < 60_000; i++) {
      const size = ([1, 2, 4] as const)[random() % 3] ?? 1;
      const port = random() % 8 === 0 ? random() & 0xffff : (ports[random() % ports.length] ?? 0);
      if (random() & 1) b.writePort(port, size, (random() % 2 ** (8 * size)) >>> 0);
      else expect(b.readPort(port, size)).toSatisfy((v: number) => v >= 0 && v < 2 ** (8 * size));
      const gpa = (random() & 1 ? IO_APIC : 0xfee0_0000) + (random() & 0xfff);
      if (random() & 1) b.writeMmio(0, gpa, size, random());
      else b.readMmio(0, gpa, size);
      if ((i & 255) === 0) advance(random() % 1_000_000);
      if (b.interrupts[0]?.pendingVector() !== -1) b.interrupts[0]?.acknowledge();
    }
    b.reset();
  });
});
