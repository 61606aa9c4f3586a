import { describe, expect, it } from 'vitest';
import { testBoard } from '../testing/test-board.ts';

const APIC = 0xfee0_0000;
const SVR = 0xf0;
const LVT_TIMER = 0x320;

function enabled(vcpus = 1) {
  const t = testBoard({ vcpus });
  for (let cpu = 0; cpu < vcpus; cpu++) t.board.writeMmio(cpu, APIC + SVR, 4, 0x1ff);
  const sinks = t.board.interrupts;
  const [sink, second] = [sinks[0], sinks[1] ?? sinks[0]];
  if (sink === undefined || second === undefined) throw new Error('no vCPU');
  const write = (register: number, value: number, cpu = 0) => t.board.writeMmio(cpu, APIC + register, 4, value);
  const read = (register: number, cpu = 0) => t.board.readMmio(cpu, APIC + register, 4);
  return { ...t, sink, second, write, read };
}

describe('local APIC', () => {
  it('delivers a self IPI, holds it in service until EOI, and orders by priority', () => {
    const { sink, write, read } = enabled();
    write(0x300, 0x4_0041);
    write(0x300, 0x4_0051);
    expect(sink.acknowledge()).toBe(0x51);
    expect(sink.pendingVector()).toBe(-1);
    expect(read(0xa0)).toBe(0x50);
    write(0xb0, 0);
    expect(sink.pendingVector()).toBe(0x41);
    expect(sink.acknowledge()).toBe(0x41);
    write(0xb0, 0);
    expect(sink.hasWork()).toBe(false);
  });

  it('withholds vectors whose class is not above the task priority', () => {
    const { sink, write } = enabled();
    write(0x300, 0x4_0041);
    write(0x80, 0x40);
    expect(sink.pendingVector()).toBe(-1);
    write(0x80, 0x30);
    expect(sink.pendingVector()).toBe(0x41);
  });

  it('counts one-shot down by the divide configuration and fires once', () => {
    const { sink, write, read, advance } = enabled();
    write(LVT_TIMER, 0x40);
    write(0x3e0, 0x3); // divide by 16
    write(0x380, 1000);
    advance(8000);
    expect(read(0x390)).toBe(500);
    expect(sink.pendingVector()).toBe(-1);
    advance(8000);
    expect(sink.acknowledge()).toBe(0x40);
    write(0xb0, 0);
    expect(read(0x390)).toBe(0);
    advance(1e6);
    expect(sink.pendingVector()).toBe(-1);
  });

  it('fires periodically without drift', () => {
    const { sink, write, advance, board } = enabled();
    write(LVT_TIMER, 0x2_0040);
    write(0x3e0, 0xb); // divide by 1
    write(0x380, 100_000);
    let fired = 0;
    for (let i = 0; i < 100; i++) {
      advance(50_000);
      if (sink.pendingVector() === 0x40) {
        sink.acknowledge();
        write(0xb0, 0);
        fired++;
      }
    }
    expect(fired).toBe(50);
    expect(board.nextDeadline()).toBe(5_100_000);
  });

  it('fires at the TSC deadline and then reads it as zero', () => {
    const { sink, write, advance, board } = enabled();
    write(LVT_TIMER, 0x4_0040);
    expect(board.writeMsr(0, 0x6e0, 5000n)).toBe(true);
    expect(board.readMsr(0, 0x6e0)).toBe(5000n);
    advance(4999);
    expect(sink.pendingVector()).toBe(-1);
    advance(1);
    expect(sink.pendingVector()).toBe(0x40);
    expect(board.readMsr(0, 0x6e0)).toBe(0n);
  });

  it('starts a second vCPU by INIT and SIPI', () => {
    const { second, write } = enabled(2);
    write(0x310, 1 << 24);
    write(0x300, 0xc500);
    expect(second.takeInit()).toBe(true);
    write(0x300, 0x8500);
    expect(second.takeInit()).toBe(false);
    write(0x300, 0x0699);
    expect(second.takeSipi()).toBe(0x99);
    expect(second.takeSipi()).toBe(-1);
  });

  it('works as x2APIC by MSRs, with 32-bit logical destinations', () => {
    const { sink, second, board } = enabled(2);
    for (const cpu of [0, 1]) expect(board.writeMsr(cpu, 0x1b, 0xfee0_0c00n)).toBe(true);
    expect(board.readMsr(1, 0x802)).toBe(1n);
    expect(board.readMsr(1, 0x80d)).toBe(2n);
    board.writeMsr(0, 0x80f, 0x1ffn);
    board.writeMsr(1, 0x80f, 0x1ffn);
    board.writeMsr(0, 0x830, (2n << 32n) | 0x0841n);
    expect(second.pendingVector()).toBe(0x41);
    expect(sink.pendingVector()).toBe(-1);
    expect(board.writeMsr(0, 0x83f, 0x51n)).toBe(true);
    expect(sink.acknowledge()).toBe(0x51);
    expect(board.writeMsr(0, 0x80b, 0n)).toBe(true);
    expect(board.writeMsr(0, 0x80b, 1n)).toBe(false);
    expect(board.readMsr(0, 0x831)).toBeUndefined();
    expect(board.readMmio(0, APIC + 0x30, 4)).toBe(0xffff_ffff);
    expect(board.writeMsr(0, 0x1b, 0xfee0_0800n)).toBe(false);
  });

  it('addresses flat logical destinations and the lowest priority among them', () => {
    const { sink, second, board, write } = enabled(2);
    write(0xd0, 1 << 24, 0);
    write(0xd0, 2 << 24, 1);
    board.sendMsi(0xfee0_2004, 0x0061);
    expect([sink.pendingVector(), second.pendingVector()]).toEqual([-1, 0x61]);
    write(0x80, 0x20, 0);
    board.sendMsi(0xfee0_300c, 0x0162);
    expect([sink.pendingVector(), second.pendingVector()]).toEqual([-1, 0x62]);
  });

  it('reports an illegal vector in the error register', () => {
    const { write, read } = enabled();
    write(0x300, 0x4_0005);
    write(0x280, 0);
    expect(read(0x280)).toBe(0x20);
  });

  it('keeps LVT entries masked while it is software-disabled', () => {
    const { write, read } = enabled();
    write(LVT_TIMER, 0x40);
    write(SVR, 0xff);
    expect(read(LVT_TIMER)).toBe(0x1_0040);
    write(LVT_TIMER, 0x41);
    expect(read(LVT_TIMER)).toBe(0x1_0041);
  });
});
