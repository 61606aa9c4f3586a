import binaryen from 'binaryen';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  BD_COUNT,
  BD_FN,
  BD_HPA,
  BD_MODE,
  BD_PAGE_LIST,
  BD_PAGES,
  BD_REC,
  BD_REGION_PAGES,
  BLOCK_DESC_SIZE,
  BLOCK_DESCS,
  BLOCK_HEAD_COUNT,
  BLOCK_HEADS,
  CPUID_COUNT,
  CPUID_ENTRIES,
  EXC_RESTART,
  EXIT_DECODE,
  EXIT_EXCEPTION,
  EXIT_HLT,
  EXIT_LIMIT,
  EXIT_RESTART,
  FLAGS_ADD,
  FLAGS_DEC,
  FLAGS_INC,
  FLAGS_LOGIC,
  FLAGS_SUB,
  NEXT,
  NEXT_CHECK,
  RECORD_ARENA,
  S_BLOCK_RIP,
  S_CC_KIND,
  S_CC_RES,
  S_CC_SRC,
  S_CR4,
  S_EXC,
  S_EXIT_BLOCK,
  S_HOT_THRESHOLD,
  S_ICOUNT,
  S_ICOUNT_LIMIT,
  S_MXCSR,
  S_RIP,
  S_SCRATCH,
  S_TSC_OFFSET,
  S_X87,
  S_X87_CW,
  S_X87_TAGS,
  S_X87_TOP,
  S_XCR0,
  S_XMM,
  S_YMM_HIGH,
  V_TSC_MUL,
  V_TSC_SHIFT,
} from './layout.ts';
import { CPU, RAM_BASE, RuntimeMachine, random } from './testing/runtime-machine.ts';

const m = await RuntimeMachine.create();
beforeEach(() => m.startAnew());
const mask = (n: bigint | number) => (1n << BigInt(n)) - 1n;

describe('lazy flags', () => {
  const parity = (v: bigint) => {
    let p = 0x4;
    for (let i = 0n; i < 8n; i++) if ((v >> i) & 1n) p ^= 4;
    return p;
  };
  it('give the flags of the operation for every kind and size', () => {
    const r = random(11);
    const edge = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0x7fff_ffffn, 0x8000_0000n, 0x7fff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n, -1n];
    const pick = () => (r(2) ? (edge[r(edge.length)] ?? 0n) : (BigInt(r(0xffff_ffff)) << 32n) | BigInt(r(0xffff_ffff)));
    for (let n = 0; n < 3000; n++) {
      const log = r(4);
      const bits = 8 << log;
      const a = BigInt.asUintN(bits, pick());
      const b = BigInt.asUintN(bits, pick());
      const sign = (v: bigint) => (v >> BigInt(bits - 1)) & 1n;
      const carry = r(2);
      let kind = 0,
        result = 0n,
        cf = 0n,
        of = 0n,
        af = 0n,
        src = b;
      switch (n % 5) {
        case 0:
          kind = FLAGS_ADD + log;
          result = BigInt.asUintN(bits, a + b);
          cf = (a + b) >> BigInt(bits);
          of = sign((a ^ result) & (b ^ result));
          af = ((a ^ b ^ result) >> 4n) & 1n;
          break;
        case 1:
          kind = FLAGS_SUB + log;
          result = BigInt.asUintN(bits, a - b);
          cf = a < b ? 1n : 0n;
          of = sign((a ^ b) & (a ^ result));
          af = ((a ^ b ^ result) >> 4n) & 1n;
          break;
        case 2:
          kind = FLAGS_LOGIC;
          result = a & b;
          break;
        case 3:
          kind = FLAGS_INC + log;
          result = BigInt.asUintN(bits, a + 1n);
          cf = BigInt(carry);
          of = result === 1n << BigInt(bits - 1) ? 1n : 0n;
          af = (a & 15n) === 15n ? 1n : 0n;
          src = cf;
          break;
        default:
          kind = FLAGS_DEC + log;
          result = BigInt.asUintN(bits, a - 1n);
          cf = BigInt(carry);
          of = a === 1n << BigInt(bits - 1) ? 1n : 0n;
          af = (a & 15n) === 0n ? 1n : 0n;
          src = cf;
      }
      m.set(S_CC_KIND, kind);
      m.set64(S_CC_RES, BigInt.asIntN(bits, result));
      m.set64(S_CC_SRC, src);
      const expected = Number(cf | (af << 4n) | (of << 11n) | (sign(result) << 7n)) | parity(result) | (result === 0n ? 0x40 : 0);
      expect(m.rt.getFlags(CPU).toString(16), `kind ${kind} a ${a.toString(16)} b ${b.toString(16)}`).toBe(expected.toString(16));
    }
  });

  it('hold any combination that is set, and answer every condition code', () => {
    for (let v = 0; v < 64; v++) {
      const [c, p, a, z, s, o] = [0, 1, 2, 3, 4, 5].map((i) => (v >> i) & 1) as [number, number, number, number, number, number];
      const flags = c | (p << 2) | (a << 4) | (z << 6) | (s << 7) | (o << 11);
      m.rt.setFlags(CPU, flags | 0x700);
      expect(m.rt.getFlags(CPU)).toBe(flags);
      const l = s ^ o;
      const yes = [o, c, z, c | z, s, p, l, l | z];
      for (let cc = 0; cc < 16; cc++) expect(m.rt.condition(CPU, cc)).toBe((yes[cc >> 1] ?? 0) ^ (cc & 1));
    }
  });
});

describe('arithmetic helpers', () => {
  it('multiply and divide 128 bits', () => {
    const r = random(5);
    const pick = () => {
      const v = (BigInt(r(0xffff_ffff)) << 32n) | BigInt(r(0xffff_ffff));
      return [v, v >> 32n, ~0n & mask(64), 1n << BigInt(r(64)), v | (1n << 63n), v & 0xffn][r(6)] ?? v;
    };
    for (let n = 0; n < 4000; n++) {
      const [a, b, c] = [pick(), pick(), pick()];
      expect(BigInt.asUintN(64, m.rt.mul64hi_u(a, b))).toBe((a * b) >> 64n);
      expect(m.rt.mul64hi_s(a, b)).toBe((BigInt.asIntN(64, a) * BigInt.asIntN(64, b)) >> 64n);
      if (c === 0n) continue;
      const high = a % c;
      expect(BigInt.asUintN(64, m.rt.div128_u(high, b, c)), `${high} ${b} / ${c}`).toBe(((high << 64n) | b) / c);
    }
  });

  it('extract, deposit and checksum bits', () => {
    expect(BigInt.asUintN(64, m.rt.pext(0x1234_5678_9abc_def0n, 0xff00_0f0f_0000_f00fn))).toBe(0x1_268_d0n);
    expect(BigInt.asUintN(64, m.rt.pdep(0x1_268_d0n, 0xff00_0f0f_0000_f00fn))).toBe(0x1200_0608_0000_d000n);
    expect(BigInt.asUintN(64, m.rt.pext(0xf123n, mask(64)))).toBe(0xf123n);
    // "123456789": the check value of CRC-32C is 0xe3069283.
    let crc = 0xffff_ffff;
    crc = m.rt.crc32c(crc, 0x3837_3635_3433_3231n, 8);
    crc = m.rt.crc32c(crc, 0x39n, 1);
    expect(~crc >>> 0).toBe(0xe306_9283);
  });
});

describe('run', () => {
  /** Handlers 1.. in the table, each a list of statements. */
  function handlers(build: (b: binaryen.Module) => binaryen.ExpressionRef[]): void {
    const b = new binaryen.Module();
    b.setFeatures(binaryen.Features.All);
    b.setMemory(1, 65536, null, [], true);
    b.addMemoryImport('0', 'env', 'memory', true);
    build(b).forEach((body, i) => {
      // Interpreter handlers take (cpu, rec), regions (cpu).
      const params = i === 3 ? binaryen.i32 : binaryen.createType([binaryen.i32, binaryen.i32]);
      b.addFunction(`h${i + 1}`, params, binaryen.i32, [], body);
      b.addFunctionExport(`h${i + 1}`, `h${i + 1}`);
    });
    const instance = new WebAssembly.Instance(new WebAssembly.Module(b.emitBinary() as Uint8Array<ArrayBuffer>), { env: { memory: m.memory } });
    for (const [name, f] of Object.entries(instance.exports)) if (name.startsWith('h')) m.table.set(Number(name.slice(1)), f as never);
  }
  let descs = 0;
  beforeEach(() => {
    descs = 0;
    m.u8.fill(0, BLOCK_HEADS, BLOCK_HEADS + BLOCK_HEAD_COUNT * 4);
  });
  function block(gpa: number, handler: number): number {
    const d = BLOCK_DESCS + ++descs * BLOCK_DESC_SIZE;
    m.u8.fill(0, d, d + BLOCK_DESC_SIZE);
    const rec = RECORD_ARENA + descs * 32;
    m.view.setUint32(rec, handler, true);
    m.view.setUint32(d + BD_HPA, RAM_BASE + gpa, true);
    m.view.setUint32(d + BD_MODE, 64, true);
    m.view.setUint32(d + BD_REC, rec, true);
    const head = m.rt.blockHead(RAM_BASE + gpa);
    m.view.setUint32(head, d, true);
    return d;
  }
  const state = (b: binaryen.Module, offset: number, value: binaryen.ExpressionRef) => b.i64.store(offset, 8, b.local.get(0, binaryen.i32), value);
  const add = (b: binaryen.Module, offset: number, n: bigint) =>
    state(b, offset, b.i64.add(b.i64.load(offset, 8, b.local.get(0, binaryen.i32)), b.i64.const(n)));

  beforeEach(() => {
    handlers((b) => [
      // 1: one instruction, go on 16 bytes further.
      b.block(null, [add(b, S_ICOUNT, 1n), add(b, S_RIP, 16n), b.return(b.i32.const(NEXT))], binaryen.none),
      // 2: one instruction, jump back.
      b.block(null, [add(b, S_ICOUNT, 1n), add(b, S_RIP, -16n), b.return(b.i32.const(NEXT_CHECK))], binaryen.none),
      // 3: HLT.
      b.return(b.i32.const(EXIT_HLT)),
      // 4: a region.
      b.block(null, [add(b, S_ICOUNT, 100n), add(b, S_RIP, 16n), b.return(b.i32.const(NEXT))], binaryen.none),
      // 5: wants to be restarted.
      b.block(null, [b.i32.store(S_EXC, 4, b.local.get(0, binaryen.i32), b.i32.const(EXC_RESTART)), b.return(b.i32.const(EXIT_EXCEPTION))], binaryen.none),
    ]);
    m.map(0x40_0000n, 0x8_0000n, 3n);
    m.set64(S_RIP, 0x40_0000n);
  });

  it('interprets decoded blocks, asks for others, and checks the limit at backward branches', () => {
    expect(m.rt.run(CPU)).toBe(EXIT_DECODE);
    expect(m.get(S_EXIT_BLOCK)).toBe(RAM_BASE + 0x8_0000);
    block(0x8_0000, 1);
    expect(m.rt.run(CPU)).toBe(EXIT_DECODE);
    expect(m.get(S_EXIT_BLOCK)).toBe(RAM_BASE + 0x8_0010);
    block(0x8_0010, 2);
    m.set64(S_ICOUNT_LIMIT, 100n);
    expect(m.rt.run(CPU)).toBe(EXIT_LIMIT);
    expect([m.get64(S_ICOUNT), m.get64(S_RIP), m.get64(S_BLOCK_RIP)]).toEqual([100n, 0x40_0000n, 0x40_0010n]);
  });

  it('reports a hot block once and enters what was compiled meanwhile', () => {
    const d = block(0x8_0000, 1);
    block(0x8_0010, 2);
    m.set(S_HOT_THRESHOLD, 10);
    m.set64(S_ICOUNT_LIMIT, 50n);
    const seen: number[] = [];
    m.hooks.hot = () => seen.push(m.get(S_EXIT_BLOCK));
    expect(m.rt.run(CPU)).toBe(EXIT_LIMIT);
    expect(seen).toEqual([d, d + BLOCK_DESC_SIZE]);
    m.view.setUint32(d + BD_FN, 4, true);
    m.set64(S_ICOUNT_LIMIT, 150n);
    expect(m.rt.run(CPU)).toBe(EXIT_LIMIT);
    // 50 interpreted, then 100 by the region and one by the jump back.
    expect(m.get64(S_ICOUNT)).toBe(50n + 101n);
  });

  it('uses a region only while the pages it depends on map as they did', () => {
    const d = block(0x8_0000, 1);
    block(0x8_0010, 3);
    m.view.setUint32(d + BD_FN, 4, true);
    m.view.setUint16(d + BD_PAGES, 0, true);
    m.view.setUint16(d + BD_REGION_PAGES, 1, true);
    m.view.setInt32(d + BD_PAGE_LIST, 1, true);
    m.view.setUint32(d + BD_PAGE_LIST + 4, RAM_BASE + 0x9_0000, true);
    expect(m.rt.run(CPU)).toBe(EXIT_HLT);
    expect(m.get64(S_ICOUNT)).toBe(1n);
    m.map(0x40_1000n, 0x9_0000n, 3n);
    m.rt.tlbFlushAll(CPU);
    m.set64(S_RIP, 0x40_0000n);
    expect(m.rt.run(CPU)).toBe(EXIT_HLT);
    expect(m.get64(S_ICOUNT)).toBe(101n);
    expect(m.view.getUint32(d + BD_COUNT, true)).toBe(1);
    // The second page changes its frame: INVLPG of it must be enough.
    m.map(0x40_1000n, 0xa_0000n, 3n);
    m.rt.tlbInvlpg(CPU, 0, 0x40_1000n);
    m.set64(S_RIP, 0x40_0000n);
    expect(m.rt.run(CPU)).toBe(EXIT_HLT);
    expect(m.get64(S_ICOUNT)).toBe(102n);
  });

  it('turns pseudo-exceptions into exits and leaves real ones pending', () => {
    block(0x8_0000, 5);
    expect(m.rt.run(CPU)).toBe(EXIT_RESTART);
    expect(m.get(S_EXC)).toBe(0);
    m.set64(S_RIP, 0x50_0000n);
    expect(m.rt.run(CPU)).toBe(EXIT_EXCEPTION);
    expect(m.takeException()).toEqual({ vector: 14, error: 0x10, address: 0x50_0000n });
  });
});

describe('state images', () => {
  beforeEach(() => {
    m.map(0x40_0000n, 0x8_0000n, 3n);
    m.map(0x40_1000n, 0x9_0000n, 3n);
    m.set(S_XCR0, 7);
    m.set(S_MXCSR, 0x1f80);
    m.set(S_X87_CW, 0x37f);
    m.set(S_X87_TOP, 6);
    m.set(S_X87_TAGS, 0xc0);
    for (let i = 0; i < 256; i++) {
      m.u8[CPU + S_XMM + i] = i;
      m.u8[CPU + S_YMM_HIGH + i] = 255 - i;
    }
    for (let i = 0; i < 8; i++) m.set64(S_X87 + i * 16, BigInt(i) + (1n << 63n));
  });
  const snapshot = () => m.u8.slice(CPU + S_XMM, CPU + S_SCRATCH);
  const clear = () => m.u8.fill(0, CPU + S_XMM, CPU + S_SCRATCH);

  it('put registers where the SDM says and come back whole, across a page too', () => {
    const before = snapshot();
    m.rt.fxsave(CPU, 0x40_0f00n, 1);
    expect(m.get(S_EXC)).toBe(0);
    expect(m.view.getUint16(RAM_BASE + 0x8_0f02, true)).toBe(6 << 11);
    // ST(0) is physical register 6.
    expect(m.view.getBigUint64(RAM_BASE + 0x8_0f20, true)).toBe(6n + (1n << 63n));
    expect(m.u8[RAM_BASE + 0x8_0fa0]).toBe(0);
    expect(m.u8[RAM_BASE + 0x8_0fa1]).toBe(1);
    clear();
    m.u8.copyWithin(CPU + S_YMM_HIGH, CPU + S_YMM_HIGH);
    m.rt.fxrstor(CPU, 0x40_0f00n, 1);
    const after = snapshot();
    after.set(before.subarray(256, 512), 256);
    expect(Buffer.compare(after, before)).toBe(0);
    m.rt.fxsave(CPU, 0x40_0f08n, 1);
    expect(m.takeException()?.vector).toBe(13);
  });

  it.each([0, 1, 2])('XSAVE kind %i and XRSTOR keep all components, and initialise those not saved', (kind) => {
    const before = snapshot();
    m.setReg(0, 7n);
    m.rt.xsave(CPU, 0x40_0e00n, 1, kind);
    expect(m.get(S_EXC)).toBe(0);
    expect(m.view.getBigUint64(RAM_BASE + 0x9_0000, true)).toBe(7n);
    clear();
    m.rt.xrstor(CPU, 0x40_0e00n, 1);
    expect(m.get(S_EXC)).toBe(0);
    expect(Buffer.compare(snapshot(), before)).toBe(0);
    m.view.setBigUint64(RAM_BASE + 0x9_0000, 1n, true);
    m.rt.xrstor(CPU, 0x40_0e00n, 1);
    expect(m.u8.slice(CPU + S_XMM, CPU + S_X87).every((v) => v === 0)).toBe(true);
    m.view.setBigUint64(RAM_BASE + 0x9_0000, 8n, true);
    m.rt.xrstor(CPU, 0x40_0e00n, 1);
    expect(m.takeException()?.vector).toBe(13);
  });
});

describe('CPUID and time', () => {
  it('answers from the table with the bits that mirror CR4', () => {
    const rows = [
      [1, -1, 0x306a9, 2, 3, 4],
      [7, 0, 5, 6, 7, 8],
      [7, 1, 9, 0, 0, 0],
    ];
    m.set(CPUID_COUNT, rows.length);
    for (const [i, v] of rows.flat().entries()) m.set(CPUID_ENTRIES + i * 4, v);
    m.set(S_CR4, 1 << 18);
    const ask = (leaf: number, sub: number) => {
      m.setReg(0, BigInt(leaf) | (1n << 40n));
      m.setReg(1, BigInt(sub));
      m.rt.cpuid(CPU);
      return [m.reg(0), m.reg(3), m.reg(1), m.reg(2)];
    };
    expect(ask(1, 5)).toEqual([0x306a9n, 2n, 3n | (1n << 27n), 4n]);
    expect(ask(7, 0)).toEqual([5n, 6n, 7n & ~16n, 8n]);
    expect(ask(7, 1)).toEqual([9n, 0n, 0n, 0n]);
    expect(ask(7, 2)).toEqual([0n, 0n, 0n, 0n]);
  });

  it('derives the TSC from retired instructions', () => {
    m.set64(S_ICOUNT, 1000n);
    m.set64(S_TSC_OFFSET, 5n);
    expect(m.rt.rdtsc(CPU)).toBe(1005n);
    m.set(V_TSC_MUL, 3);
    m.set(V_TSC_SHIFT, 1);
    expect(m.rt.rdtsc(CPU)).toBe(1505n);
    expect(m.rt.rdrand(CPU)).not.toBe(m.rt.rdrand(CPU));
  });
});
