import { afterEach, describe, expect, test } from 'vitest';
import { Cpu } from '../api/index.ts';
import { S_HOT_THRESHOLD } from '../layout.ts';

/** Where masked stores fault, and that they have stored nothing then: each row was tried on an Intel Xeon of the Sapphire Rapids class. */

const CODE = 0x1_0000;
const PAGE = 0x2_0000;
const HLT = 0xf4;
const [RSI, RDI] = ['rsi', 'rdi'] as const;
/** VPMASKMOVD [rsi], ymm1, ymm0; MASKMOVDQU xmm0, xmm1; MASKMOVQ mm0, mm1 after MOVDQ2Q of both. */
const VPMASKMOVD = [0xc4, 0xe2, 0x75, 0x8e, 0x06];
const MASKMOVDQU = [0x66, 0x0f, 0xf7, 0xc1];
const MASKMOVQ = [0xf2, 0x0f, 0xd6, 0xc0, 0xf2, 0x0f, 0xd6, 0xc9, 0x0f, 0xf7, 0xc1];
type Missing = 'first' | 'second' | 'both';
const NONE = -1;

/** Offset of the store from the first of two pages, bit set of its lanes, which page is missing, and where it faults (NONE: nowhere). */
const rows: readonly (readonly [code: readonly number[], at: number, lanes: number, missing: Missing, fault: number])[] = [
  [VPMASKMOVD, 4092, 0x00, 'both', NONE],
  [VPMASKMOVD, 4092, 0x01, 'second', NONE],
  [VPMASKMOVD, 4092, 0x80, 'second', 4120],
  [VPMASKMOVD, 4092, 0x81, 'second', 4123],
  [VPMASKMOVD, 4092, 0x0f, 'second', 4107],
  [VPMASKMOVD, 4086, 0x10, 'second', 4102],
  [VPMASKMOVD, 4086, 0xff, 'second', 4117],
  [VPMASKMOVD, 4074, 0x0f, 'second', NONE],
  [VPMASKMOVD, 4092, 0x80, 'first', NONE],
  [VPMASKMOVD, 4092, 0x81, 'first', 4092],
  [VPMASKMOVD, 4074, 0x10, 'first', 4090],
  [VPMASKMOVD, 4092, 0x80, 'both', 4120],
  [VPMASKMOVD, 4092, 0xff, 'both', 4092],
  [MASKMOVDQU, 4092, 0x0000, 'second', 4100],
  [MASKMOVDQU, 4092, 0x0001, 'second', 4100],
  [MASKMOVDQU, 4084, 0xffff, 'second', 4096],
  [MASKMOVDQU, 4076, 0xffff, 'second', NONE],
  [MASKMOVDQU, 4092, 0x8000, 'first', 4092],
  [MASKMOVDQU, 4076, 0x0001, 'first', 4084],
  [MASKMOVDQU, 4100, 0xffff, 'first', NONE],
  [MASKMOVDQU, 4092, 0xffff, 'both', 4100],
  [MASKMOVQ, 4092, 0x00, 'second', 4096],
  [MASKMOVQ, 4092, 0x01, 'second', 4096],
  [MASKMOVQ, 4084, 0xff, 'second', NONE],
  [MASKMOVQ, 4092, 0x80, 'first', 4092],
  [MASKMOVQ, 4100, 0x01, 'both', 4100],
];

const made: Cpu[] = [];
afterEach(async () => {
  await Promise.all(made.splice(0).map((cpu) => cpu.dispose()));
});

describe.each(['interp', 'sync'] as const)('tier %s', (tier) => {
  test.each([
    ['VPMASKMOVD', VPMASKMOVD, 4],
    ['MASKMOVDQU', MASKMOVDQU, 1],
    ['MASKMOVQ', MASKMOVQ, 1],
  ] as const)('%s', async (_, code, laneBytes) => {
    const cpu = await Cpu.create({ memory: 4 << 20, tier, cpu: 'v3' });
    made.push(cpu);
    cpu.load(CODE, [...code, HLT]);
    cpu.map(PAGE, 8192, 'rw');
    const all = new Uint8Array(8192);
    for (const [, at, lanes, missing, fault] of rows.filter((row) => row[0] === code)) {
      for (let turn = 0; turn < 2; turn++) {
        cpu.write(PAGE, all.fill(0));
        cpu.core.u32[(cpu.core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = tier === 'sync' ? 1 : 0;
        if (missing !== 'second') cpu.protect(PAGE, 4096, '');
        if (missing !== 'first') cpu.protect(PAGE + 4096, 4096, '');
        cpu.set('ymm0', 2n ** 256n - 1n);
        let mask = 0n;
        for (let lane = 0; lane < 32 / laneBytes; lane++) if ((lanes >>> lane) & 1) mask |= 0x80n << BigInt(8 * (lane * laneBytes + laneBytes - 1));
        cpu.set('ymm1', mask);
        for (const name of [RSI, RDI]) cpu.set(name, PAGE + at);
        cpu.set('rip', CODE);
        const stop = cpu.run();
        const what = `${at} ${lanes.toString(16)} ${missing}`;
        if (fault === NONE) expect([what, stop.kind]).toEqual([what, 'hlt']);
        else expect([what, stop]).toMatchObject([what, { kind: 'memory', access: 'write', address: BigInt(PAGE + fault) }]);
        cpu.protect(PAGE, 8192, 'rw');
        const stored = cpu.read(PAGE, 8192).filter((b) => b === 0xff).length;
        const selected = lanes.toString(2).replaceAll('0', '').length * laneBytes;
        expect([what, stored]).toEqual([what, fault === NONE ? selected : 0]);
      }
    }
  });
});
