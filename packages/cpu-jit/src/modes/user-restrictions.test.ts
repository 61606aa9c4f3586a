import { afterAll, describe, expect, test } from 'vitest';
import { S_CR4, S_XCR0 } from '../layout.ts';
import { AT, END, EventMachine, type Mode, VEC } from '../testing/event-machine.ts';

/** What control registers forbid: UMIP, TSD, PCE, XSETBV's rules, values of CR0, CR4 and CR8 (SDM vol. 3, 2.5; vol. 2 by instruction). */

const [RAX, RCX, RDX, RSI] = [0, 1, 2, 6];
const BIT = { TSD: 1 << 2, PCE: 1 << 8, UMIP: 1 << 11, OSXSAVE: 1 << 18 } as const;

for (const jit of ['off', 'sync'] as const) {
  describe(`control registers (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());
    const run = (mode: Mode, code: readonly number[], prepare: () => void) =>
      m.runCase(() => {
        m.reset(mode);
        m.bytes(AT.code, [...code, END]);
        m.core.setReg(0, RSI, BigInt(AT.data));
        prepare();
      });
    const GP = { vector: VEC.GP, error: 0, ip: AT.code };
    const FINE = { vector: VEC.BP };

    const informers: readonly (readonly [string, readonly number[]])[] = [
      ['sgdt (%rsi)', [0x0f, 0x01, 0x06]],
      ['sidt (%rsi)', [0x0f, 0x01, 0x0e]],
      ['sldt %eax', [0x0f, 0x00, 0xc0]],
      ['sldt (%rsi)', [0x0f, 0x00, 0x06]],
      ['str %eax', [0x0f, 0x00, 0xc8]],
      ['smsw %eax', [0x0f, 0x01, 0xe0]],
      ['smsw (%rsi)', [0x0f, 0x01, 0x26]],
    ];
    test.each(informers)('%s raises #GP(0) exactly at privilege 3 with CR4.UMIP', (_, code) => {
      for (const mode of ['protected', 'long'] as const) {
        for (const umip of [false, true]) {
          for (const user of [false, true]) {
            const o = run(mode, code, () => {
              if (umip) m.cr4(BIT.UMIP);
              if (user) m.toUser();
            });
            expect(o).toMatchObject(umip && user ? GP : FINE);
          }
        }
      }
    });

    test('RDTSC and RDTSCP raise #GP(0) exactly at privilege 3 with CR4.TSD', () => {
      for (const code of [
        [0x0f, 0x31],
        [0x0f, 0x01, 0xf9],
      ]) {
        for (const tsd of [false, true]) {
          for (const user of [false, true]) {
            const o = run('long', code, () => {
              if (tsd) m.cr4(BIT.TSD);
              if (user) m.toUser();
            });
            expect(o).toMatchObject(tsd && user ? GP : FINE);
          }
        }
      }
    });
    test('RDPMC raises #GP(0) at privilege 3 without CR4.PCE', () => {
      expect(run('long', [0x0f, 0x33], () => m.toUser())).toMatchObject(GP);
    });

    describe('XSETBV', () => {
      const XSETBV = [0x0f, 0x01, 0xd1];
      const xsetbv = (value: bigint, index = 0n, prepare: () => void = () => {}) =>
        run('long', XSETBV, () => {
          m.cr4(BIT.OSXSAVE);
          m.core.setReg(0, RCX, index);
          m.core.setReg(0, RAX, value & 0xffff_ffffn);
          m.core.setReg(0, RDX, value >> 32n);
          prepare();
        });
      test('takes the components there are, x87 always, and nothing else', () => {
        for (let value = 0n; value < 64n; value++) {
          const isAllowed = value === 1n || value === 3n;
          expect([value, xsetbv(value).vector]).toEqual([value, isAllowed ? VEC.BP : VEC.GP]);
          if (isAllowed) expect(m.get64(S_XCR0)).toBe(value);
        }
        for (let bit = 6n; bit < 64n; bit++) expect(xsetbv(3n | (1n << bit)).vector).toBe(VEC.GP);
      });
      test('has one register, is for privilege 0, and is undefined without CR4.OSXSAVE', () => {
        for (const index of [1n, 2n, 0xffff_ffffn]) expect(xsetbv(1n, index)).toMatchObject(GP);
        expect(xsetbv(1n, 1n << 32n)).toMatchObject(FINE);
        expect(xsetbv(1n, 0n, () => m.toUser())).toMatchObject(GP);
        const off = () => m.set64(S_CR4, m.get64(S_CR4) & ~BigInt(BIT.OSXSAVE));
        expect(xsetbv(1n, 0n, off)).toMatchObject({ vector: VEC.UD, ip: AT.code });
      });
    });

    test('CR8 holds four bits; the others are reserved', () => {
      const MOV_CR8 = [0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc1];
      for (let bit = 0n; bit < 64n; bit++) {
        const o = run('long', MOV_CR8, () => m.core.setReg(0, RAX, 1n << bit));
        expect([bit, o.vector]).toEqual([bit, bit < 4n ? VEC.BP : VEC.GP]);
        if (bit < 4n) expect(m.reg(RCX)).toBe(1 << Number(bit));
      }
      expect(run('long', MOV_CR8, () => m.toUser())).toMatchObject(GP);
    });

    test('control registers that there are not are undefined', () => {
      for (const n of [1, 5, 6, 7]) expect(run('long', [0x0f, 0x20, 0xc0 | (n << 3)], () => {})).toMatchObject({ vector: VEC.UD, ip: AT.code });
      for (const n of [9, 10, 15]) expect(run('long', [0x44, 0x0f, 0x20, 0xc0 | ((n & 7) << 3)], () => {})).toMatchObject({ vector: VEC.UD, ip: AT.code });
    });

    test('CR0 and CR4 refuse reserved bits and combinations that there are not', () => {
      const mov = (register: number, value: bigint, mode: Mode) => run(mode, [0x0f, 0x22, 0xc0 | (register << 3)], () => m.core.setReg(0, RAX, value)).vector;
      const CR0 = { PE: 1n, ET: 1n << 4n, NE: 1n << 5n, NW: 1n << 29n, CD: 1n << 30n, PG: 1n << 31n };
      const flat = CR0.PE | CR0.ET | CR0.NE;
      // CD and NW: table 12-5; PG: section 2.5.
      expect(mov(0, flat | CR0.NW, 'protected')).toBe(VEC.GP);
      expect(mov(0, flat | CR0.NW | CR0.CD, 'protected')).toBe(VEC.BP);
      expect(mov(0, flat | CR0.CD, 'protected')).toBe(VEC.BP);
      expect(mov(0, CR0.ET | CR0.PG, 'protected')).toBe(VEC.GP);
      // In 64-bit code paging cannot be turned off.
      expect(mov(0, flat, 'long')).toBe(VEC.GP);
      for (let bit = 32n; bit < 64n; bit++) expect(mov(0, flat | CR0.PG | (1n << bit), 'long')).toBe(VEC.GP);
      const cr4 = 0x620n;
      // VMXE, SMXE, 15, and 23 and up; LA57 and PAE do not change in long mode. With SMEP and SMAP this code could not go on.
      for (let bit = 0n; bit < 64n; bit++) {
        if (bit === 20n || bit === 21n) continue;
        const isReserved = bit === 13n || bit === 14n || bit === 15n || bit === 19n || bit >= 23n;
        const isRefused = isReserved || bit === 12n || bit === 5n || bit === 0n || bit === 1n;
        expect([bit, mov(4, cr4 ^ (1n << bit), 'long')]).toEqual([bit, isRefused ? VEC.GP : VEC.BP]);
      }
    });
  });
}
