import { beforeEach, describe, expect, it } from 'vitest';
import { C_TLB_MISSES, CS, S_CR3, S_CR4, S_CTX, S_RFLAGS, S_SEG, S_TLB, SEG_ATTR, SEG_STRIDE, TLB_WRITE } from './layout.ts';
import { CPU, CR4_PAE, RAM_BASE, RuntimeMachine } from './testing/runtime-machine.ts';

/** Bits of a page-table entry (SDM vol. 3, 5.5.4). */
const P = 1n,
  W = 2n,
  U = 4n,
  D = 0x40n,
  G = 0x100n;
const m = await RuntimeMachine.create();
beforeEach(() => m.startAnew());

/** HPA of a guest-physical address. */
const hpa = (gpa: number) => RAM_BASE + gpa;

describe('TLB', () => {
  it('keeps a translation until INVLPG, and gives a code page a new context then', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.map(0x10_1000n, 0x8_1000n, P | W);
    m.rt.store32(CPU, 0x10_0010n, 0x1234);
    expect(m.rt.translateExec(CPU, 0x10_1000n)).toBe(hpa(0x8_1000));
    m.map(0x10_0000n, 0x9_0000n, P | W);
    m.map(0x10_1000n, 0x9_1000n, P | W);
    expect(m.rt.load32(CPU, 0x10_0010n)).toBe(0x1234);
    const context = m.get(S_CTX);
    m.rt.tlbInvlpg(CPU, 0, 0x10_0fffn);
    expect(m.rt.load32(CPU, 0x10_0010n)).toBe(0);
    expect(m.get(S_CTX)).toBe(context);
    expect(m.rt.translateExec(CPU, 0x10_1000n)).toBe(hpa(0x8_1000));
    m.rt.tlbInvlpg(CPU, 0, 0x10_1000n);
    expect(m.get(S_CTX)).not.toBe(context);
    expect(m.rt.translateExec(CPU, 0x10_1000n)).toBe(hpa(0x9_1000));
  });

  it.each([
    [21, 0x20_0000n],
    [30, 0x4000_0000n],
    [21, 0xffff_8000_0020_0000n],
    [30, 0xffff_8000_4000_0000n],
  ])('drops all fragments of a large page (shift %i) by one INVLPG', (shift, va) => {
    m.map(va, 0n, P | W, shift);
    for (const page of [0n, 7n, 300n]) m.rt.load8(CPU, va + page * 0x1000n);
    m.map(va, 0n, 0n, shift);
    expect(m.rt.load8(CPU, va + 7n * 0x1000n)).toBe(0);
    expect(m.takeException()).toBeUndefined();
    m.rt.tlbInvlpg(CPU, 0, va + 0x5000n);
    for (const page of [0n, 7n, 300n]) {
      m.rt.load8(CPU, va + page * 0x1000n);
      expect(m.takeException()?.address).toBe(va + page * 0x1000n);
    }
  });

  it('keeps global pages over a flush of the others', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W | G);
    m.map(0x10_1000n, 0x8_1000n, P | W);
    m.rt.load8(CPU, 0x10_0000n);
    m.rt.load8(CPU, 0x10_1000n);
    m.map(0x10_0000n, 0n, 0n);
    m.map(0x10_1000n, 0n, 0n);
    m.rt.tlbFlushNonGlobal(CPU, 0);
    m.rt.load8(CPU, 0x10_0000n);
    expect(m.takeException()).toBeUndefined();
    m.rt.load8(CPU, 0x10_1000n);
    expect(m.takeException()?.error).toBe(0);
  });

  describe('the jump cache of a kernel whose code is in global pages', () => {
    const CODE = 0xffff_8000_0010_0000n;
    const OTHER_CODE = 0xffff_8000_0010_1000n;
    const PGE = 1 << 7;
    const PCIDE = 1 << 17;
    const FLAT_CODE64 = 0xa09b;
    const NO_FLUSH = 1n << 63n;
    const enter = (pcid: bigint, noFlush = true) => m.rt.write_cr(CPU, S_CR3, 0x1000n | pcid | (noFlush ? NO_FLUSH : 0n));
    /** The context under which code is looked up with PCID 1 current, after the kernel has run with PCIDs 1 and 2. */
    const shared = (): number => {
      m.set(S_SEG + CS * SEG_STRIDE + SEG_ATTR, FLAT_CODE64);
      m.rt.write_cr(CPU, S_CR4, BigInt(CR4_PAE | PGE | PCIDE));
      m.map(CODE, 0x8_0000n, P | W | G);
      m.map(OTHER_CODE, 0x8_1000n, P | W);
      enter(2n, false);
      m.rt.translateExec(CPU, CODE);
      enter(1n, false);
      return m.get(S_CTX);
    };

    it('outlives changes of PCID, and flushes of what is not global', () => {
      const context = shared();
      enter(2n);
      expect(m.get(S_CTX)).toBe(context);
      enter(1n, false);
      expect(m.get(S_CTX)).toBe(context);
      expect(m.rt.translateExec(CPU, CODE)).toBe(hpa(0x8_0000));
      expect(m.get(S_CTX)).toBe(context);
    });

    it('is not used by user mode', () => {
      const context = shared();
      m.rt.setCpl(CPU, 3);
      expect(m.get(S_CTX)).not.toBe(context);
    });

    it('is left by the address space that runs code in other pages, alone', () => {
      const context = shared();
      m.rt.translateExec(CPU, OTHER_CODE);
      expect(m.get(S_CTX)).not.toBe(context);
      enter(2n);
      expect(m.get(S_CTX)).toBe(context);
      enter(1n);
      expect(m.get(S_CTX)).not.toBe(context);
    });

    it.each<readonly [what: string, forget: () => void]>([
      ['INVLPG of a page that another PCID fetched from', () => m.rt.sys_invlpg(CPU, CODE)],
      [
        'a page fault there',
        () => {
          m.map(CODE, 0n, 0n);
          m.rt.load8(CPU, CODE);
          expect(m.takeException()?.address).toBe(CODE);
        },
      ],
      ['a change of CR4.PGE', () => m.rt.write_cr(CPU, S_CR4, BigInt(CR4_PAE | PCIDE))],
      ['a flush of all', () => m.rt.tlbFlushAll(CPU)],
      ['a change of code', () => m.rt.forgetLinks(CPU)],
    ])('is forgotten in every address space by %s', (_, forget) => {
      const context = shared();
      forget();
      expect(m.get(S_CTX)).not.toBe(context);
      enter(2n);
      expect(m.get(S_CTX)).not.toBe(context);
    });

    it("is kept over INVLPG of a program's pages, and of a kernel's that hold no code", () => {
      const context = shared();
      m.rt.sys_invlpg(CPU, CODE & 0x7fff_ffff_ffffn);
      m.rt.sys_invlpg(CPU, OTHER_CODE);
      expect(m.get(S_CTX)).toBe(context);
    });
  });

  it('refuses the next store to a clean page until the dirty bit is set, by setting it', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.rt.load8(CPU, 0x10_0000n);
    const leaf = 0x4000 + 0x100 * 8;
    expect(m.phys64(leaf) & D).toBe(0n);
    m.rt.store8(CPU, 0x10_0000n, 1);
    expect(m.phys64(leaf) & D).toBe(D);
  });

  it('walks the tables as they are before it faults, and after any INVLPG', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.map(0x10_1000n, 0x8_1000n, P | W);
    m.rt.store8(CPU, 0x10_0000n, 1);
    // The directory entry (in the third table) is made read-only and writable again: no fault may come of what was cached.
    const directory = 0x3000;
    const entry = m.phys64(directory);
    m.setPhys64(directory, entry & ~W);
    m.rt.tlbInvlpg(CPU, 0, 0x70_0000n);
    m.rt.load8(CPU, 0x10_1000n);
    m.setPhys64(directory, entry);
    m.rt.store8(CPU, 0x10_1000n, 1);
    expect(m.takeException()).toBeUndefined();
    m.setPhys64(directory, 0n);
    m.rt.tlbInvlpg(CPU, 0, 0x70_0000n);
    m.rt.load8(CPU, 0x10_2000n);
    expect(m.takeException()?.error).toBe(0);
  });

  it('forgets user pages of a supervisor under SMAP at once when AC is cleared', () => {
    m.set(S_CR4, CR4_PAE | (1 << 21));
    m.map(0x10_0000n, 0x8_0000n, P | W | U);
    m.set(S_RFLAGS, 1 << 18);
    m.rt.store8(CPU, 0x10_0000n, 5);
    expect(m.takeException()).toBeUndefined();
    m.set(S_RFLAGS, 0);
    m.rt.alignment(CPU);
    m.rt.load8(CPU, 0x10_0000n);
    expect(m.takeException()?.error).toBe(1);
  });

  describe('under SMAP, with AC set around accesses of a supervisor to user pages', () => {
    const lift = (ac: boolean) => {
      m.set(S_RFLAGS, ac ? 1 << 18 : 0);
      m.rt.alignment(CPU);
    };
    const page = (n: number) => 0x10_0000n + BigInt(n) * 0x1000n;
    const misses = () => m.get64(C_TLB_MISSES);
    beforeEach(() => {
      m.set(S_CR4, CR4_PAE | (1 << 21));
      for (let n = 0; n < 24; n++) m.map(page(n), 0x8_0000n, P | W | U);
      m.map(0x20_0000n, 0x9_0000n, P | W);
      lift(true);
    });

    it('finds them in the TLB each time', () => {
      m.rt.store8(CPU, page(0), 5);
      m.rt.load8(CPU, page(1));
      const before = misses();
      for (let turn = 0; turn < 10; turn++) {
        lift(false);
        m.rt.store8(CPU, 0x20_1000n - 1n, 1);
        lift(true);
        m.rt.store8(CPU, page(0), 6);
        expect(m.rt.load8(CPU, page(1))).toBe(6);
      }
      expect(misses() - before).toBeLessThan(3n);
      expect(m.takeException()).toBeUndefined();
    });
    it('refuses all of them while AC is clear, however many there were', () => {
      for (let n = 0; n < 24; n++) m.rt.store8(CPU, page(n), n);
      lift(false);
      for (let n = 0; n < 24; n++) {
        m.rt.load8(CPU, page(n));
        expect(m.takeException()?.error).toBe(1);
        m.rt.store8(CPU, page(n), 1);
        expect(m.takeException()?.error).toBe(3);
      }
    });
    it('keeps accesses to descriptor tables out', () => {
      m.rt.store8(CPU, page(0), 5);
      m.rt.loadSys16(CPU, page(0));
      expect(m.takeException()?.error).toBe(1);
    });
    it('forgets a page that INVLPG names while AC is clear', () => {
      m.rt.store8(CPU, page(0), 5);
      lift(false);
      m.map(page(0), 0n, 0n);
      m.rt.tlbInvlpg(CPU, 0, page(0));
      lift(true);
      m.rt.load8(CPU, page(0));
      expect(m.takeException()?.error).toBe(0);
    });
    it('stops stores to a page that gets decoded code while AC is clear', () => {
      m.rt.store8(CPU, page(0), 5);
      lift(false);
      m.rt.protectFrame(CPU, hpa(0x8_0000));
      lift(true);
      expect(m.view.getBigUint64(m.get(S_TLB) + (Number(page(0) >> 12n) % 1024) * 32 + TLB_WRITE, true)).toBe(0xffff_ffff_ffff_ffffn);
      expect(m.rt.load8(CPU, page(0))).toBe(5);
    });
    it('refuses them when CR4.SMAP is set while AC is clear, and lets them be without it', () => {
      lift(false);
      m.set(S_CR4, CR4_PAE);
      m.rt.tlbFlushAll(CPU);
      m.rt.load8(CPU, page(0));
      expect(m.takeException()).toBeUndefined();
      m.set(S_CR4, CR4_PAE | (1 << 21));
      m.rt.tlbFlushAll(CPU);
      m.rt.load8(CPU, page(0));
      expect(m.takeException()?.error).toBe(1);
    });
  });
});
