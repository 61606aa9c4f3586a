import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { S_CR3, S_CR4, S_HOT_THRESHOLD } from '../layout.ts';
import { AT, END, EventMachine, VEC } from '../testing/event-machine.ts';

/** Which translations an instruction invalidates, and what INVPCID refuses (SDM vol. 3, 4.10.4; vol. 2, INVPCID). */

const [RAX, RCX, RBX, RSI, RDI] = [0, 1, 3, 6, 7];
const [PGE, PCIDE] = [1n << 7n, 1n << 17n];
const NO_FLUSH = 1n << 63n;
const GLOBAL = 1n << 8n;
/** Two pages of 4 KiB above everything else, whose places in the TLB nothing else here takes, and the two frames that they are moved between. */
const PAGES = { plain: 0x4000_a000n, global: 0x4000_b000n } as const;
const FRAMES = [0x30_0000, 0x30_1000] as const;
const DESCRIPTOR = AT.data;
const MOV_CR3 = [0x0f, 0x22, 0xd8];
const MOV_CR4 = [0x0f, 0x22, 0xe0];
const INVPCID = [0x66, 0x0f, 0x38, 0x82, 0x0e];
const MINE = 5n;
const OTHER = 9n;

type Fate = 'stays' | 'gone';
interface Operation {
  readonly what: string;
  readonly does: () => void;
  readonly plain: Fate;
  readonly global: Fate;
}

for (const jit of ['off', 'sync'] as const) {
  describe(`invalidation (JIT ${jit})`, () => {
    let m: EventMachine;
    beforeAll(async () => {
      m = await EventMachine.create(jit);
    });
    afterAll(() => m.dispose());
    const exec = (code: readonly number[], registers: Readonly<Record<number, bigint>> = {}) => {
      m.bytes(AT.code, [...code, END]);
      m.core.setRip(0, BigInt(AT.code));
      m.core.setReg(0, 4, BigInt(AT.stack0));
      for (const [n, v] of Object.entries(registers)) m.core.setReg(0, Number(n), v);
      if (jit === 'sync') m.field(S_HOT_THRESHOLD, 1);
      m.core.setLimit(0, m.core.stats(0).instructions + 1000n);
      return m.run();
    };
    const done = (code: readonly number[], registers: Readonly<Record<number, bigint>> = {}) => expect(exec(code, registers).vector).toBe(VEC.BP);
    const load = (address: bigint) => {
      done([0x8b, 0x07], { [RDI]: address });
      return m.reg(RAX);
    };
    const mapTo = (frame: number) => {
      m.u64(AT.tables + 0x4050, BigInt(frame) | 7n);
      m.u64(AT.tables + 0x4058, BigInt(frame) | 7n | GLOBAL);
    };
    const cr3 = (pcid: bigint, flags = 0n) => done(MOV_CR3, { [RAX]: BigInt(AT.tables) | pcid | flags });
    const invpcid = (type: bigint, pcid: bigint, address = 0n) => {
      m.u64(DESCRIPTOR, pcid);
      m.u64(DESCRIPTOR + 8, address);
      return exec(INVPCID, { [RCX]: type, [RSI]: BigInt(DESCRIPTOR) });
    };
    const flushed = (type: bigint, pcid: bigint, address = 0n) => expect(invpcid(type, pcid, address).vector).toBe(VEC.BP);
    const toggle = (bit: bigint) => {
      const cr4 = m.get64(S_CR4);
      done(MOV_CR4, { [RAX]: cr4 ^ bit });
      done(MOV_CR4, { [RAX]: cr4 });
    };
    /** Paging with both pages, in PCID 5, global pages on; both translations are cached and then moved. */
    const prepare = () => {
      m.reset('long');
      m.u64(AT.tables + 0x1008, BigInt(AT.tables + 0x3007));
      m.u64(AT.tables + 0x3000, BigInt(AT.tables + 0x4007));
      for (const [i, frame] of FRAMES.entries()) m.u32(frame, i);
      mapTo(FRAMES[0]);
      done(MOV_CR4, { [RAX]: m.get64(S_CR4) | PGE | PCIDE });
      cr3(MINE);
      for (const page of Object.values(PAGES)) expect(load(page)).toBe(0);
      mapTo(FRAMES[1]);
    };

    const operations: readonly Operation[] = [
      { what: 'nothing', does: () => {}, plain: 'stays', global: 'stays' },
      { what: 'a load of CR3', does: () => cr3(MINE), plain: 'gone', global: 'stays' },
      { what: 'a load of CR3 with bit 63', does: () => cr3(MINE, NO_FLUSH), plain: 'stays', global: 'stays' },
      {
        what: 'a visit to another PCID and back without flushing',
        does: () => {
          cr3(OTHER);
          cr3(MINE, NO_FLUSH);
        },
        plain: 'stays',
        global: 'stays',
      },
      {
        what: 'a visit to another PCID and back',
        does: () => {
          cr3(OTHER, NO_FLUSH);
          cr3(MINE);
        },
        plain: 'gone',
        global: 'stays',
      },
      {
        what: 'INVLPG of both pages',
        does: () => {
          for (const page of Object.values(PAGES)) done([0x0f, 0x01, 0x3f], { [RDI]: page });
        },
        plain: 'gone',
        global: 'gone',
      },
      { what: 'INVLPG of another page', does: () => done([0x0f, 0x01, 0x3f], { [RDI]: 0x4000_c000n }), plain: 'stays', global: 'stays' },
      { what: 'INVPCID of the address', does: () => flushed(0n, MINE, PAGES.plain), plain: 'gone', global: 'stays' },
      { what: 'INVPCID of the address in another PCID', does: () => flushed(0n, OTHER, PAGES.plain), plain: 'stays', global: 'stays' },
      { what: 'INVPCID of the PCID', does: () => flushed(1n, MINE), plain: 'gone', global: 'stays' },
      { what: 'INVPCID of another PCID', does: () => flushed(1n, OTHER), plain: 'stays', global: 'stays' },
      { what: 'INVPCID of everything', does: () => flushed(2n, 0n), plain: 'gone', global: 'gone' },
      { what: 'INVPCID of everything but global pages', does: () => flushed(3n, 0n), plain: 'gone', global: 'stays' },
      { what: 'CR4.PGE off and on', does: () => toggle(PGE), plain: 'gone', global: 'gone' },
      {
        what: 'CR4.PCIDE off',
        does: () => {
          cr3(0n, NO_FLUSH);
          done(MOV_CR4, { [RAX]: m.get64(S_CR4) & ~PCIDE });
        },
        plain: 'gone',
        global: 'gone',
      },
      {
        what: 'INVPCID of the PCID from another one',
        does: () => {
          cr3(OTHER, NO_FLUSH);
          flushed(1n, MINE);
          cr3(MINE, NO_FLUSH);
        },
        plain: 'gone',
        global: 'stays',
      },
    ];
    test.each(operations)('after $what the plain page is $plain, the global one $global', ({ does, plain, global }) => {
      prepare();
      does();
      expect({ plain: load(PAGES.plain), global: load(PAGES.global) }).toEqual({ plain: plain === 'gone' ? 1 : 0, global: global === 'gone' ? 1 : 0 });
    });

    test('INVPCID refuses types beyond 3, reserved bits, PCIDs while they are off, and addresses that are not canonical', () => {
      const bad = 1n << 50n;
      for (const on of [true, false]) {
        prepare();
        if (!on) {
          cr3(0n, NO_FLUSH);
          done(MOV_CR4, { [RAX]: m.get64(S_CR4) & ~PCIDE });
        }
        for (const type of [0n, 1n, 2n, 3n, 4n, 5n, 1n << 32n, (1n << 64n) - 1n]) {
          for (const pcid of [0n, 1n, 0xfffn, 0x1000n, 1n << 63n]) {
            for (const address of [0n, 0x7fff_ffff_ffffn, bad, (1n << 64n) - 1n]) {
              const refused = type > 3n || (type < 2n && (pcid > 0xfffn || (!on && pcid !== 0n))) || (type === 0n && address === bad);
              const o = invpcid(type, pcid, address);
              const what = `type ${type} pcid ${pcid} address ${address.toString(16)} PCIDs ${on}`;
              expect([what, o.vector, o.error]).toEqual([what, ...(refused ? [VEC.GP, 0] : [VEC.BP, undefined])]);
            }
          }
        }
      }
    });
    test('INVPCID is undefined with a register, without its prefix and with LOCK, and a descriptor may fault', () => {
      for (const code of [[0x66, 0x0f, 0x38, 0x82, 0xce], INVPCID.slice(1), [0xf0, ...INVPCID]]) {
        prepare();
        expect(exec(code, { [RSI]: BigInt(DESCRIPTOR) })).toMatchObject({ vector: VEC.UD, ip: AT.code });
      }
      prepare();
      expect(exec(INVPCID, { [RCX]: 0n, [RSI]: 0x4000_5000n })).toMatchObject({ vector: VEC.PF, error: 0, ip: AT.code });
      expect(m.cr2).toBe(0x4000_5000n);
      prepare();
      m.toUser();
      expect(exec(INVPCID, { [RCX]: 2n, [RSI]: BigInt(DESCRIPTOR) })).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code });
    });
    test('CR3 takes bit 63 only while PCIDs are on, and is read without it', () => {
      prepare();
      cr3(OTHER, NO_FLUSH);
      expect(m.get64(S_CR3)).toBe(BigInt(AT.tables) | OTHER);
      cr3(0n, NO_FLUSH);
      done(MOV_CR4, { [RAX]: m.get64(S_CR4) & ~PCIDE });
      expect(exec(MOV_CR3, { [RAX]: BigInt(AT.tables) | NO_FLUSH })).toMatchObject({ vector: VEC.GP, error: 0 });
      // Only from PCID 0, and only in long mode, are they turned on.
      done(MOV_CR3, { [RAX]: BigInt(AT.tables) | 8n });
      expect(exec(MOV_CR4, { [RAX]: m.get64(S_CR4) | PCIDE })).toMatchObject({ vector: VEC.GP, error: 0 });
      m.reset('protected');
      expect(exec(MOV_CR4, { [RAX]: m.get64(S_CR4) | PCIDE, [RBX]: 0n })).toMatchObject({ vector: VEC.GP, error: 0 });
    });
  });
}
