import { beforeEach, describe, expect, it } from 'vitest';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_RMW,
  ACCESS_WRITE,
  EXC_REQUEST,
  MAXPHYADDR,
  PAGING_SHADOW,
  S_CODE_SIZE,
  S_CR0,
  S_CR3,
  S_CR4,
  S_EFER,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_PKRU,
  S_RFLAGS,
  V_LEVELS,
  V_PAGING,
  V_ROOT,
} from './layout.ts';
import { plainWalk } from './testing/plain-walk.ts';
import { CPU, CR0_PG_WP_PE, CR4_PAE, EFER_LMA_LME_NXE, PAGE, RAM_BASE, RAM_BYTES, RuntimeMachine, random } from './testing/runtime-machine.ts';

/** Bits of a page-table entry (SDM vol. 3, 5.5.4). */
const P = 1n,
  W = 2n,
  U = 4n,
  A = 0x20n,
  D = 0x40n,
  NX = 1n << 63n;
const m = await RuntimeMachine.create();
beforeEach(() => m.startAnew());

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
