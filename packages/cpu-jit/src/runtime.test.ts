import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_RMW,
  ACCESS_WRITE,
  C_TLB_MISSES,
  CODE_BITS,
  CS,
  EXC_REQUEST,
  EXC_RESTART,
  MAXPHYADDR,
  PAGING_SHADOW,
  S_CODE_SIZE,
  S_CR0,
  S_CR3,
  S_CR4,
  S_CTX,
  S_EFER,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_BLOCK,
  S_EXIT_GPA,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_PKRU,
  S_RFLAGS,
  S_SEG,
  S_STEP,
  S_TLB,
  SEG_ATTR,
  SEG_STRIDE,
  TLB_WRITE,
  V_LEVELS,
  V_PAGING,
  V_ROOT,
} from './layout.ts';
import { plainWalk } from './testing/plain-walk.ts';
import { CPU, CR0_PG_WP_PE, CR4_PAE, EFER_LMA_LME_NXE, PAGE, RAM_BASE, RAM_BYTES, RuntimeMachine, random } from './testing/runtime-machine.ts';

const P = 1n,
  W = 2n,
  U = 4n,
  A = 0x20n,
  D = 0x40n,
  G = 0x100n,
  NX = 1n << 63n;
let m: RuntimeMachine;
beforeAll(async () => {
  m = await RuntimeMachine.create();
});
beforeEach(() => {
  m.reset();
  m.clearTables();
  Object.assign(m.hooks, { mmuFault: () => 1, mmio: () => 1, smc: () => 0 });
});

/** HPA of a guest-physical address. */
const hpa = (gpa: number) => RAM_BASE + gpa;

describe('page walker', () => {
  it('agrees with a plain walker on random tables, rights, control registers and privileges', () => {
    const r = random(7);
    const accesses = ['read', 'write', 'exec'] as const;
    const outcomes = new Map<string, number>();
    for (let round = 0; round < 40; round++) {
      m.reset();
      // 16 frames of tables whose entries point at each other, so that every level has every kind of entry.
      const likely = (chance: number) => (r(100) < chance ? 1n : 0n);
      for (let frame = 1; frame <= 16; frame++) {
        for (let i = 0; i < 512; i++) {
          let entry = likely(95) | (likely(85) << 1n) | (likely(85) << 2n) | (BigInt(r(4)) << 5n);
          entry |= (likely(12) << 7n) | (likely(20) << 8n) | (likely(10) << 63n) | (BigInt(r(4)) << 59n);
          entry |= BigInt(1 + r(16)) << 12n;
          if (likely(2)) entry |= 1n << BigInt(MAXPHYADDR + r(52 - MAXPHYADDR));
          // Large pages with an aligned address most of the time.
          if (entry & 0x80n && likely(80)) entry &= ~0xff_f000n;
          if (likely(3)) entry |= BigInt(RAM_BYTES) << 4n;
          m.setPhys64(frame * PAGE + i * 8, entry);
        }
      }
      const la57 = r(3) === 0 ? 1 << 12 : 0;
      const cr4 = CR4_PAE | la57 | (r(2) << 20) | (r(2) << 21) | (r(2) << 22);
      const cr0 = CR0_PG_WP_PE & ~(r(2) << 16);
      const efer = EFER_LMA_LME_NXE & ~(r(4) === 0 ? 0x800 : 0);
      const user = r(2) === 1;
      const ac = r(2) === 1;
      const pkru = r(256);
      m.set(S_CR0, cr0);
      m.set(S_CR4, cr4);
      m.set(S_EFER, efer);
      m.set(S_RFLAGS, ac ? 1 << 18 : 0);
      m.set(S_PKRU, pkru);
      m.setCpl(user ? 3 : 0);
      for (let n = 0; n < 200; n++) {
        let va = (BigInt(r(0x1_0000_0000 - 1)) << 32n) | BigInt(r(0x1_0000_0000 - 1));
        if (n % 8) va = BigInt.asUintN(64, BigInt.asIntN(la57 ? 57 : 48, va));
        if (n & 1) va &= ~(0xffn << 12n) | (BigInt(r(4)) << 12n);
        const access = accesses[r(3)] ?? 'read';
        const expected = plainWalk(va, {
          read: (at) => (at < BigInt(RAM_BYTES) ? m.phys64(Number(at)) : undefined),
          cr0,
          cr3: 0x1000n,
          cr4,
          efer,
          ac,
          pkru,
          user,
          access,
          maxPhysical: MAXPHYADDR,
        });
        let mmio: bigint | undefined;
        m.hooks.mmio = () => {
          mmio = m.get64(S_EXIT_GPA);
          return 2;
        };
        // Reading fills the TLB; what it then allows must be what the tables allow.
        const kind = access === 'read' ? ACCESS_READ : access === 'write' ? (r(2) ? ACCESS_WRITE : ACCESS_RMW) : ACCESS_EXEC;
        const before = expected !== 'gp' && 'path' in expected ? expected : undefined;
        const got = m.rt.translate(CPU, va, kind) >>> 0;
        const exception = m.takeException();
        const context = `round ${round} va ${va.toString(16)} ${access} user ${user} cr4 ${cr4.toString(16)}`;
        if (expected === 'gp') {
          expect(exception, context).toEqual({ vector: 13, error: 0 });
        } else if ('fault' in expected) {
          expect(exception, context).toEqual({ vector: 14, error: expected.fault, address: va });
        } else if (expected.gpa >= BigInt(RAM_BYTES)) {
          if (kind !== ACCESS_EXEC) expect(mmio, context).toBe(expected.gpa);
        } else {
          expect(exception, context).toBeUndefined();
          expect(got, context).toBe(hpa(Number(expected.gpa)));
          const leaf = m.phys64(Number(expected.path.at(-1)));
          // Tables may contain themselves: only the leaf's own bits are compared.
          expect(leaf & (access === 'write' ? A | D : A), context).toBe(access === 'write' ? A | D : A);
          for (const at of before?.path ?? []) expect(m.phys64(Number(at)) & A, context).toBe(A);
        }
        const key = expected === 'gp' ? 'gp' : 'fault' in expected ? `fault ${expected.fault}` : 'ok';
        outcomes.set(key, (outcomes.get(key) ?? 0) + 1);
      }
    }
    // The random tables must have reached every kind of answer.
    expect(outcomes.get('ok')).toBeGreaterThan(500);
    expect([...outcomes.keys()].length).toBeGreaterThan(12);
  });

  it('walks 32-bit two-level tables with 4 MiB pages', () => {
    m.set(S_EFER, 0);
    m.set(S_CR4, 1 << 4);
    m.set(S_CODE_SIZE, 32);
    m.setPhys32(0x1000 + 4 * 1, 0x2000 | 7);
    m.setPhys32(0x2000 + 4 * 3, 0x5000 | 3);
    m.setPhys32(0x1000 + 4 * 2, 0x40_0000 | 0x83);
    expect(m.rt.translate(CPU, 0x40_3123n, ACCESS_READ)).toBe(hpa(0x5123));
    expect(m.rt.translate(CPU, 0x80_1234n, ACCESS_WRITE)).toBe(hpa(0x40_1234));
    m.setCpl(3);
    expect(m.rt.translate(CPU, 0x40_3123n, ACCESS_READ)).toBe(0);
    expect(m.takeException()).toEqual({ vector: 14, error: 5, address: 0x40_3123n });
  });

  it('walks PAE tables', () => {
    m.set(S_EFER, 0x800);
    m.set(S_CODE_SIZE, 32);
    m.set(S_CR3, 0x1020);
    m.setPhys64(0x1020 + 8 * 3, 0x2001n);
    m.setPhys64(0x2000 + 8 * 5, 0x3000n | 3n);
    m.setPhys64(0x3000 + 8 * 7, 0x9000n | 3n | NX);
    const va = 0xc000_0000n + 5n * 0x20_0000n + 7n * 0x1000n + 9n;
    expect(m.rt.translate(CPU, va, ACCESS_WRITE)).toBe(hpa(0x9009));
    expect(m.rt.translateExec(CPU, va)).toBe(0);
    expect(m.takeException()?.error).toBe(0x11);
    m.setPhys64(0x1020, 0x2003n);
    m.rt.translate(CPU, 0n, ACCESS_READ);
    expect(m.takeException()?.error).toBe(9);
  });
});

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

describe('slow paths', () => {
  it('splits accesses that cross a page and writes nothing when the second page faults', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.map(0x10_1000n, 0x9_0000n, P | W);
    m.rt.store64(CPU, 0x10_0ffdn, 0x1122_3344_5566_7788n);
    expect(m.rt.load64(CPU, 0x10_0ffdn)).toBe(0x1122_3344_5566_7788n);
    expect(m.u8[hpa(0x8_0ffd)]).toBe(0x88);
    expect(m.u8[hpa(0x9_0004)]).toBe(0x11);
    m.map(0x10_1000n, 0x9_0000n, P);
    m.rt.tlbInvlpg(CPU, 0, 0x10_1000n);
    m.rt.store32(CPU, 0x10_0ffen, 0);
    expect(m.takeException()).toEqual({ vector: 14, error: 3, address: 0x10_1000n });
    expect(m.u8[hpa(0x8_0ffe)]).toBe(0x77);
    m.rt.loadw32(CPU, 0x10_0ffen);
    expect(m.takeException()).toEqual({ vector: 14, error: 3, address: 0x10_1000n });
    expect(m.rt.load32(CPU, 0x10_0ffen)).toBe(0x4455_6677);
  });

  it('passes MMIO to the hook, both halves of a crossing access too', () => {
    m.map(0x10_0000n, BigInt(RAM_BYTES), P | W);
    m.map(0x10_1000n, 0x8_0000n, P | W);
    const log: string[] = [];
    m.hooks.mmio = () => {
      const write = m.get(S_EXIT_ACCESS) === ACCESS_WRITE;
      log.push(
        `${write ? 'w' : 'r'} ${(Number(m.get64(S_EXIT_GPA)) - RAM_BYTES).toString(16)} ${m.get(S_EXIT_SIZE)} ${write ? m.get(S_EXIT_VALUE).toString(16) : ''}`,
      );
      if (!write) m.set(S_EXIT_VALUE, 0xcafe_f00d);
      return 2;
    };
    expect(m.rt.load32(CPU, 0x10_0008n) >>> 0).toBe(0xcafe_f00d);
    m.rt.store16(CPU, 0x10_000cn, 0xbeef);
    m.rt.store32(CPU, 0x10_0ffen, 0x1234_5678);
    expect(m.view.getUint16(hpa(0x8_0000), true)).toBe(0x1234);
    expect(log).toEqual(['r 8 4 ', 'w c 2 beef', 'w ffe 2 5678']);
  });

  it('lets stores beside decoded code through, restarts those over it, and asks to invalidate when stepping', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.rt.store8(CPU, 0x10_0000n, 1);
    m.view.setBigUint64(CODE_BITS + (hpa(0x8_0000) >>> 12) * 8, 2n, true);
    m.rt.protectFrame(CPU, hpa(0x8_0000));
    m.rt.store32(CPU, 0x10_003cn, 7);
    expect(m.get(S_EXC)).toBe(0);
    m.rt.store32(CPU, 0x10_003en, 9);
    expect(m.get(S_EXC)).toBe(EXC_RESTART);
    expect(m.rt.load32(CPU, 0x10_003cn)).toBe(7);
    m.set(S_EXC, 0);
    m.set(S_STEP, 1);
    const seen: number[] = [];
    m.hooks.smc = () => seen.push(m.get(S_EXIT_BLOCK), m.get(S_EXIT_SIZE)) - 2;
    m.rt.store32(CPU, 0x10_003en, 9);
    expect(seen).toEqual([hpa(0x8_003e), 4]);
    expect(m.rt.load32(CPU, 0x10_003en)).toBe(9);
    m.view.setBigUint64(CODE_BITS + (hpa(0x8_0000) >>> 12) * 8, 0n, true);
  });

  it('reads descriptor tables at privilege 0 without leaving a trace in the user TLB', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.setPhys64(0x8_0ffc, 0x1111_2222_3333_4444n);
    m.map(0x10_1000n, 0x8_1000n, P | W);
    m.setCpl(3);
    expect(m.rt.loadSys64(CPU, 0x10_0ffcn)).toBe(0x1111_2222_3333_4444n);
    m.rt.load8(CPU, 0x10_0ffcn);
    expect(m.takeException()?.error).toBe(5);
  });
});

describe('shadow paging', () => {
  beforeEach(() => {
    m.set(V_PAGING, PAGING_SHADOW);
    m.set(V_LEVELS, 4);
    m.set(V_ROOT, hpa(0x1000));
    m.setCpl(3);
  });
  /** Shadow tables hold HPAs. */
  const shadowMap = (va: bigint, at: number, flags: bigint) => {
    let table = 0x1000;
    for (const [shift, next] of [
      [39, 0x2000],
      [30, 0x3000],
      [21, 0x4000],
    ] as const) {
      m.setPhys64(table + Number((va >> BigInt(shift)) & 511n) * 8, BigInt(hpa(next)) | 7n);
      table = next;
    }
    m.setPhys64(table + Number((va >> 12n) & 511n) * 8, BigInt(hpa(at)) | flags);
  };

  it('walks again after the hypervisor repaired its table', () => {
    let asked = 0;
    m.hooks.mmuFault = () => {
      asked++;
      expect([m.get64(S_EXIT_VA), m.get(S_EXIT_ACCESS), m.get(S_EXIT_SIZE), m.get(S_EXC_ERROR)]).toEqual([0x40_0008n, ACCESS_WRITE, 4, 6]);
      expect(m.get(S_EXIT_VALUE)).toBe(0xabcd);
      shadowMap(0x40_0000n, 0x8_0000, P | W | U);
      return 0;
    };
    m.rt.store32(CPU, 0x40_0008n, 0xabcd);
    expect(asked).toBe(1);
    expect(m.view.getUint32(hpa(0x8_0008), true)).toBe(0xabcd);
  });

  it('lets the hypervisor raise, emulate or leave, and stops one that repairs nothing', () => {
    m.hooks.mmuFault = () => {
      m.set(S_EXC, 15);
      return 1;
    };
    m.rt.load32(CPU, 0x40_0000n);
    expect(m.takeException()).toEqual({ vector: 14, error: 4, address: 0x40_0000n });
    m.hooks.mmuFault = () => {
      m.set64(S_EXIT_VALUE, 77n);
      return 2;
    };
    expect(m.rt.load64(CPU, 0x40_0000n)).toBe(77n);
    expect(m.rt.loadw16(CPU, 0x40_0000n)).toBe(77);
    expect(m.get(S_EXC)).toBe(0);
    for (const answer of [3, 0]) {
      m.hooks.mmuFault = () => answer;
      m.rt.store8(CPU, 0x40_0000n, 1);
      expect(m.get(S_EXC)).toBe(EXC_REQUEST);
      m.set(S_EXC, 0);
    }
  });

  it('hands a crossing store to a write-protected page over as its two parts', () => {
    shadowMap(0x40_0000n, 0x8_0000, P | W | U);
    shadowMap(0x40_1000n, 0x8_1000, P | U);
    const log: unknown[] = [];
    m.hooks.mmuFault = () => {
      if (m.get(S_EXIT_ACCESS) === ACCESS_WRITE) log.push([m.get64(S_EXIT_VA), m.get(S_EXIT_SIZE), m.get(S_EXIT_VALUE)]);
      return 2;
    };
    m.set(S_EXIT_VALUE, 0);
    m.rt.store32(CPU, 0x40_0fffn, 0x0403_0201);
    expect(log).toEqual([[0x40_1000n, 3, 0x0004_0302]]);
    expect(m.u8[hpa(0x8_0fff)]).toBe(1);
  });
});
