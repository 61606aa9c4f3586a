import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { S_EXC, S_RFLAGS, S_ZERO } from './layout.ts';
import { CPU, PAGE, RAM_BASE, RuntimeMachine, random } from './testing/runtime-machine.ts';

let m: RuntimeMachine;
beforeAll(async () => {
  m = await RuntimeMachine.create();
});
beforeEach(() => m.reset());

const RAX = 0,
  RCX = 1,
  RSI = 6,
  RDI = 7;
const WINDOW = 0x4000;
const PF = 14;
/** Virtual pages 0x100.. map to scattered frames, so that neighbours are not contiguous in memory. */
const FRAMES = [0x80, 0x85, 0x82, 0x81];
const BASE = 0x10_0000n;

type Op = 'movs' | 'stos' | 'lods' | 'cmps' | 'scas';
interface Regs {
  rax: bigint;
  rcx: bigint;
  rsi: bigint;
  rdi: bigint;
}

/** One element at a time, on bytes of the window. Returns the last comparison. */
function model(op: Op, size: number, rep: number, down: boolean, mem: Uint8Array, regs: Regs): [bigint, bigint] | undefined {
  const read = (va: bigint) => {
    let v = 0n;
    for (let i = size - 1; i >= 0; i--) v = (v << 8n) | BigInt(mem[Number(va - BASE) + i] ?? 0);
    return v;
  };
  const write = (va: bigint, v: bigint) => {
    for (let i = 0; i < size; i++) mem[Number(va - BASE) + i] = Number((v >> BigInt(8 * i)) & 255n);
  };
  const mask = (1n << BigInt(8 * size)) - 1n;
  const step = BigInt(down ? -size : size);
  let last: [bigint, bigint] | undefined;
  for (;;) {
    if (rep !== 0 && regs.rcx === 0n) return last;
    if (op === 'movs') write(regs.rdi, read(regs.rsi));
    else if (op === 'stos') write(regs.rdi, regs.rax & mask);
    else if (op === 'lods') regs.rax = size === 4 ? read(regs.rsi) : (regs.rax & ~mask) | read(regs.rsi);
    else last = [op === 'cmps' ? read(regs.rsi) : regs.rax & mask, read(regs.rdi)];
    if (op !== 'stos' && op !== 'scas') regs.rsi += step;
    if (op !== 'lods') regs.rdi += step;
    if (rep === 0) return last;
    regs.rcx -= 1n;
    if (last !== undefined && (last[0] === last[1]) !== (rep === 3)) return last;
  }
}

function setWindow(bytes: Uint8Array): void {
  FRAMES.forEach((frame, i) => {
    m.map(BASE + BigInt(i * PAGE), BigInt(frame * PAGE), 3n);
    m.u8.set(bytes.subarray(i * PAGE, (i + 1) * PAGE), RAM_BASE + frame * PAGE);
  });
}
function getWindow(): Uint8Array {
  const bytes = new Uint8Array(WINDOW);
  for (const [i, frame] of FRAMES.entries()) bytes.set(m.u8.slice(RAM_BASE + frame * PAGE, RAM_BASE + (frame + 1) * PAGE), i * PAGE);
  return bytes;
}
const regs = (): Regs => ({ rax: m.reg(RAX), rcx: m.reg(RCX), rsi: m.reg(RSI), rdi: m.reg(RDI) });

function call(op: Op, size: number, rep: number): number {
  return m.rt[`rep_${op}`](CPU, size, 8, rep, S_ZERO);
}

describe('string instructions', () => {
  it('match one element at a time: overlaps, both directions, page crossings, all sizes', () => {
    const r = random(3);
    const ops = ['movs', 'stos', 'lods', 'cmps', 'scas'] as const;
    for (let n = 0; n < 600; n++) {
      m.clearTables();
      const op = ops[n % 5] ?? 'movs';
      const size = 1 << r(4);
      const rep = [0, 2, 3][r(3)] ?? 0;
      const down = r(3) === 0;
      // Few different byte values make comparisons run long.
      const alphabet = r(2) ? 1 + r(2) : 256;
      const bytes = Uint8Array.from({ length: WINDOW }, () => r(alphabet));
      setWindow(bytes);
      const most = Math.min(r(4) ? 40 : 1000, 7000 / size);
      const count = r(most + 1);
      const span = (Math.max(count, 1) + 1) * size;
      const place = () => BASE + BigInt(down ? span + r(WINDOW - span - 16) : r(WINDOW - span));
      const rsi = place();
      let rdi = place();
      if (r(3) === 0) rdi = rsi + BigInt(r(33) - 16);
      if (rdi < BASE || rdi + BigInt(span) > BASE + BigInt(WINDOW) || rdi - BigInt(span) < BASE) rdi = rsi;
      m.set(S_RFLAGS, down ? 0x402 : 2);
      m.setReg(RAX, BigInt(r(2) ? (bytes[0] ?? 0) : r(0x7fff_ffff)) * 0x1_0000_0001n);
      m.setReg(RCX, BigInt(count));
      m.setReg(RSI, rsi);
      m.setReg(RDI, rdi);
      m.rt.setFlags(CPU, 0x10);
      const expected = regs();
      const last = model(op, size, rep, down, bytes, expected);
      let calls = 0;
      while (call(op, size, rep) === 0) {
        expect(m.get(S_EXC)).toBe(0);
        if (++calls > 3000) throw new Error('no progress');
      }
      const context = `${n}: ${op} size ${size} rep ${rep} down ${down} count ${count} rsi ${rsi.toString(16)} rdi ${rdi.toString(16)}`;
      expect(regs(), context).toEqual(expected);
      expect(Buffer.compare(getWindow(), bytes), context).toBe(0);
      const flags = m.rt.getFlags(CPU);
      if (last === undefined) expect(flags, context).toBe(0x10);
      else expect([flags & 0x40, flags & 1], context).toEqual([last[0] === last[1] ? 0x40 : 0, last[0] < last[1] ? 1 : 0]);
    }
  });

  it('fault in the middle with the registers at the faulting element', () => {
    m.clearTables();
    setWindow(new Uint8Array(WINDOW).fill(9));
    m.map(BASE + 0x2000n, 0n, 0n);
    m.setReg(RCX, 0x1000n);
    m.setReg(RDI, BASE + 0x1800n);
    m.setReg(RAX, 0x77n);
    m.set(S_RFLAGS, 2);
    expect(call('stos', 1, 3)).toBe(0);
    expect(m.takeException()).toEqual({ vector: 14, error: 2, address: BASE + 0x2000n });
    expect([m.reg(RCX), m.reg(RDI)]).toEqual([0x800n, BASE + 0x2000n]);
    expect(m.u8[RAM_BASE + 0x85 * PAGE + 0xfff]).toBe(0x77);
    // An element across the hole: nothing of it is stored.
    m.setReg(RCX, 2n);
    m.setReg(RDI, BASE + 0x1ffcn);
    expect(call('stos', 8, 3)).toBe(0);
    expect(m.takeException()?.address).toBe(BASE + 0x2000n);
    expect(m.u8[RAM_BASE + 0x85 * PAGE + 0xffc]).toBe(0x77);
  });

  it('fill and copy sixteen pages at a time', () => {
    m.clearTables();
    for (let page = 0n; page < 0x20n; page++) m.map(BASE + page * 0x1000n, 0xa_0000n + page * 0x1000n, 3n);
    m.set(S_RFLAGS, 2);
    m.setReg(RAX, 0x5an);
    m.setReg(RCX, 0x1_1800n);
    m.setReg(RDI, BASE);
    expect(call('stos', 1, 3)).toBe(0);
    expect([m.reg(RCX), m.reg(RDI), m.get(S_EXC)]).toEqual([0x1800n, BASE + 0x1_0000n, 0]);
    expect(call('stos', 1, 3)).toBe(1);
    m.setReg(RCX, 0x7000n);
    m.setReg(RSI, BASE + 0x10n);
    m.setReg(RDI, BASE + 0x1_8000n);
    expect(call('movs', 1, 3)).toBe(1);
    const at = (offset: number) => m.u8[RAM_BASE + 0xa_0000 + offset];
    expect([at(0x1_17ff), at(0x1_1800), at(0x1_8000), at(0x1_efff), at(0x1_f000)]).toEqual([0x5a, 0, 0x5a, 0x5a, 0]);
    expect(m.reg(RDI)).toBe(BASE + 0x1_f000n);
  });

  it('wrap 16- and 32-bit addresses and keep the upper halves as the address size says', () => {
    m.clearTables();
    m.map(0n, 0x9_0000n, 3n);
    m.map(0xf000n, 0x9_1000n, 3n);
    m.map(0xffff_f000n, 0x9_1000n, 3n);
    m.set(S_RFLAGS, 2);
    m.setReg(RAX, 0x55n);
    for (const [addrSize, top, high] of [
      [2, 0xfffen, 0x1234_0000_0000n],
      [4, 0xffff_fffen, 0x12_0000_0000n],
    ] as const) {
      m.setReg(RCX, high | 4n);
      m.setReg(RDI, high | top);
      expect(m.rt.rep_stos(CPU, 1, addrSize, 3, S_ZERO)).toBe(1);
      expect(m.reg(RDI)).toBe(addrSize === 2 ? high | 2n : 2n);
      expect(m.reg(RCX)).toBe(addrSize === 2 ? high : 0n);
      expect(m.view.getUint16(RAM_BASE + 0x9_0000, true)).toBe(0x5555);
      m.view.setUint16(RAM_BASE + 0x9_0000, 0, true);
    }
  });

  it('keep the flags of before while a comparison is not over, which a fault in it must find', () => {
    m.clearTables();
    m.map(0n, 0x9_0000n, 3n);
    m.set(S_RFLAGS, 2);
    for (const name of ['scas', 'cmps'] as const) {
      m.rt.setFlags(CPU, 0x8d5);
      m.setReg(RAX, 0x55n);
      m.setReg(RCX, 0x3000n);
      m.setReg(RSI, 0n);
      m.setReg(RDI, 0x800n);
      // REPNE SCAS finds nothing in zeros, REPE CMPS no difference.
      const run = () => m.rt[`rep_${name}`](CPU, 1, 8, name === 'scas' ? 2 : 3, S_ZERO);
      expect(run()).toBe(0);
      expect([m.reg(RDI), m.get(S_EXC), m.rt.getFlags(CPU)]).toEqual([0x1000n, 0, 0x8d5]);
      expect(run()).toBe(0);
      expect([m.get(S_EXC), m.rt.getFlags(CPU)]).toEqual([PF + 1, 0x8d5]);
      m.set(S_EXC, 0);
    }
  });
});
