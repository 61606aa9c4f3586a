import { describe, expect, it } from 'vitest';
import type { Tables, WalkerOptions } from './testing/hypervisor-tables.ts';
import { type Kind, ram, ScriptedGuest } from './testing/scripted-guest.ts';

/*
 * The classes of bugs a shadow MMU must not have (numbers as in the project's list), in every mode that has the mechanism; those of PVM's pairs of roots and of several
 * vCPUs are in bug-classes.test.ts as well. scripts/planted-bugs.ts plants a bug of each class and shows that its test fails.
 *
 * Not everywhere, because the mechanism does not exist there:
 *   2, 3      only `kvm-unsync` lets tables get out of step; pvm and kvm emulate every write to a table, second-level tables are no guest's
 *   4, 5, 8   `guest` has no pages of its own: the CPU walks the guest's tables, and these tests check its TLB and its paging-structure cache
 *   6         the dirty log is the second level's; the dirty bit is everyone's
 *   9, 17     pages are only reclaimed from shadow tables; a second-level tree is freed as a whole
 *   10        an MMIO entry is what a misconfigured second-level entry is; a shadow keeps none
 *   16        PVM has no PCIDs of its own: its slots are tagged by the pair of tables
 *   18        a root that another vCPU has loaded: with two vCPUs, in bug-classes.test.ts
 *   19        direct switch and events before PVM mode: pvm only, in bug-classes.test.ts and packages/pvm/src/abi/registration.test.ts
 */
const ALL_MODES = ['guest', 'second-level', 'pvm', 'kvm', 'kvm-unsync'] as const;
const SHADOWS = ['pvm', 'kvm', 'kvm-unsync'] as const;

const [P, W, U, A, D, PS] = [1n, 2n, 4n, 0x20n, 0x40n, 0x80n];
const NX = 1n << 63n;
const ALL = P | W | U | A | D;
const [ROOT, PDPT, PD, PT] = [0x1000, 0x2000, 0x3000, 0x4000] as const;
const [ROOT2, PDPT2, PD2, PT2] = [0x5000, 0x6000, 0x7000, 0x8000] as const;
/** Aligned to 2 MiB. */
const DATA = 0x40_0000;
const LARGE2 = 0x20_0000;
const [USER, KERNEL] = [true, false];

const entry = (address: number, flags = ALL): bigint => BigInt(address) | flags;
const va = (l4: number, l3 = 0, l2 = 0, l1 = 0): bigint =>
  BigInt.asUintN(64, BigInt.asIntN(48, (BigInt(l4) << 39n) | (BigInt(l3) << 30n) | (BigInt(l2) << 21n) | (BigInt(l1) << 12n)));

/** DATA is mapped at 0 through ROOT, PDPT, PD and PT, everything allowed. */
async function mapped(mode: Tables, options: WalkerOptions = {}, registers = {}): Promise<ScriptedGuest> {
  const guest = await ScriptedGuest.create(mode, ROOT, options, registers);
  link(guest, ROOT, PDPT, PD, PT);
  guest.set(PT, 0, entry(DATA));
  guest.flushAll();
  return guest;
}
function link(guest: ScriptedGuest, ...tables: readonly number[]): void {
  tables.slice(1).forEach((table, i) => {
    guest.set(tables[i] ?? 0, 0, entry(table));
  });
}

interface BugClass {
  readonly name: string;
  readonly modes: readonly Tables[];
  readonly options?: WalkerOptions;
  readonly registers?: Readonly<Record<string, boolean | number>>;
  readonly script: (guest: ScriptedGuest) => void;
}

const KINDS: readonly Kind[] = ['read', 'write', 'exec'];

const CLASSES: readonly BugClass[] = [
  {
    name: '1: a table shared under parents with different rights gives each path its own (CVE-2021-38198)',
    modes: ALL_MODES,
    script: (g) => {
      g.set(ROOT, 1, entry(PDPT, ALL & ~W));
      g.set(ROOT, 2, entry(PDPT, ALL & ~U));
      g.set(ROOT, 3, entry(PDPT, ALL | NX));
      for (const tops of [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
      ]) {
        g.load(ROOT);
        for (const top of tops) for (const user of [USER, KERNEL]) for (const kind of KINDS) g.access(user, va(top), kind);
      }
      expect(g.access(USER, va(1), 'write')).toEqual({ kind: 'fault', value: 7 });
      expect(g.access(USER, va(2), 'read')).toEqual({ kind: 'fault', value: 5 });
    },
  },
  {
    name: '2: a child that got out of step while its parent was not present is as its table says when the parent comes back, without a flush (65855ed8b034)',
    modes: ['kvm-unsync'],
    script: (g) => {
      // A second way to the table keeps its shadow while the first is gone.
      g.set(PD, 3, entry(PT));
      g.access(USER, va(0), 'read');
      g.access(USER, va(0, 0, 3), 'read');
      g.set(PT, 1, entry(DATA + 0x1000));
      g.flushAll();
      g.access(USER, va(0, 0, 0, 1), 'read');
      // Out of step from here on.
      g.set(PT, 2, entry(DATA));
      g.set(PD, 0, 0n);
      g.invlpg(va(0));
      g.invlpg(va(0, 0, 0, 1));
      g.set(PT, 0, entry(DATA + 0x2000));
      g.set(PT, 1, 0n);
      g.set(PD, 0, entry(PT));
      expect(g.access(USER, va(0), 'read')).toEqual(ram(DATA + 0x2000));
      expect(g.access(USER, va(0, 0, 0, 1), 'read').kind).toBe('fault');
    },
  },
  {
    name: '3: tables that map each other and are brought in step together stay write-protected, or out of step (36a2e6774bfb)',
    modes: ['kvm-unsync'],
    script: (g) => {
      g.set(PD, 1, entry(PT2));
      g.set(PT2, 0, entry(DATA));
      for (const [table, index] of [
        [PT, 0],
        [PT2, 1],
      ] as const) {
        g.set(table, 5, entry(DATA + 0x5000));
        g.access(USER, va(0, 0, index), 'read');
        g.access(USER, va(0, 0, index, 5), 'write');
      }
      // Both out of step, each with a writable mapping of the other.
      g.set(PT, 5, entry(PT2));
      g.set(PT2, 5, entry(PT));
      g.load(ROOT);
      for (const [through, index] of [
        [va(0, 0, 0, 5), 1],
        [va(0, 0, 1, 5), 0],
      ] as const) {
        // Byte 1 of entry 0 of the other table: DATA becomes DATA + 0x1000.
        expect(g.access(USER, through | 1n, 'write', 0x10).kind).toBe('ram');
        g.load(ROOT);
        expect(g.access(USER, va(0, 0, index), 'read')).toEqual(ram(DATA + 0x1000));
      }
    },
  },
  ...[true, false].flatMap((largePages): BugClass[] => {
    const how = largePages ? 'large shadow leaves' : 'direct shadow pages';
    return [
      {
        name: `4: a read-only and a writable entry for one large page do not share rights (${how})`,
        modes: ALL_MODES,
        options: { largePages },
        script: (g) => {
          g.set(PD, 1, entry(DATA, ALL | PS));
          g.set(PD, 2, entry(DATA, (ALL | PS) & ~W));
          for (const index of [1, 2, 1, 2]) {
            g.access(USER, va(0, 0, index, 5), 'read');
            expect(g.access(USER, va(0, 0, index, 5), 'write').kind).toBe(index === 1 ? 'ram' : 'fault');
          }
        },
      },
      {
        name: `5: a write fault does not make a large page writable that the guest holds read-only (${how})`,
        modes: ALL_MODES,
        options: { largePages },
        script: (g) => {
          g.set(PD, 1, entry(DATA, (ALL | PS) & ~D));
          g.access(USER, va(0, 0, 1, 3), 'read');
          expect(g.access(USER, va(0, 0, 1, 3), 'write').kind).toBe('ram');
          g.set(PD, 1, entry(DATA, (ALL | PS) & ~W));
          g.flushAll();
          for (let page = 0; page < 8; page++) expect(g.access(USER, va(0, 0, 1, page), 'write')).toEqual({ kind: 'fault', value: 7 });
        },
      },
      {
        name: `7: a large page replaced by another leaves no mapping of the first behind (${how}, CVE-2026-46113)`,
        modes: ALL_MODES,
        options: { largePages },
        script: (g) => {
          g.set(PD, 1, entry(DATA, ALL | PS));
          g.access(USER, va(0, 0, 1, 3), 'write');
          g.set(PD, 1, entry(LARGE2, ALL | PS));
          g.invlpg(va(0, 0, 1, 3));
          expect(g.access(USER, va(0, 0, 1, 3), 'write')).toEqual(ram(LARGE2 + 0x3000));
          // The old frame becomes a table, and is written through the new way only.
          g.set(DATA + 0x3000, 0, entry(DATA));
          g.set(PD, 2, entry(DATA + 0x3000));
          expect(g.access(USER, va(0, 0, 2), 'read')).toEqual(ram(DATA));
          g.set(DATA + 0x3000, 0, 0n);
          g.invlpg(va(0, 0, 2));
          expect(g.access(USER, va(0, 0, 2), 'read').kind).toBe('fault');
        },
      },
      {
        name: `8: a large page replaced by a table is not walked through the old child, nor the other way (${how}, CVE-2026-53359)`,
        modes: ALL_MODES,
        options: { largePages },
        script: (g) => {
          // It contains the tables, so a shadow always splits it.
          g.set(PD, 1, entry(0, ALL | PS));
          expect(g.access(USER, va(0, 0, 1), 'read')).toEqual(ram(0));
          g.set(PT2, 0, entry(DATA));
          g.set(PD, 1, entry(PT2));
          g.flushAll();
          expect(g.access(USER, va(0, 0, 1), 'read')).toEqual(ram(DATA));
          expect(g.access(USER, va(0, 0, 1, 1), 'read').kind).toBe('fault');
          g.set(PD, 1, entry(0, ALL | PS));
          g.flushAll();
          expect(g.access(USER, va(0, 0, 1, 1), 'read')).toEqual(ram(0x1000));
          // A table whose frame number is the large page's number: only the role tells their shadows apart.
          g.set(PD, 1, entry(LARGE2, ALL | PS));
          g.flushAll();
          expect(g.access(USER, va(0, 0, 1), 'read')).toEqual(ram(LARGE2));
          g.set(PD, 1, entry(ROOT));
          g.flushAll();
          expect(g.access(USER, va(0, 0, 1), 'read')).toEqual(ram(PDPT));
        },
      },
      {
        name: `12: a page table inside a large page cannot be written behind the monitor's back (${how}, XSA-148)`,
        modes: ALL_MODES,
        options: { largePages },
        script: (g) => {
          g.set(PD, 1, entry(0, ALL | PS));
          g.access(USER, va(0), 'read');
          expect(g.access(USER, va(0, 0, 1, PT >> 12) | 1n, 'write', 0x10)).toEqual(ram(PT + 1));
          g.flushAll();
          expect(g.access(USER, va(0), 'read')).toEqual(ram(DATA + 0x1000));
        },
      },
    ];
  }),
  {
    name: '6: the dirty bit is set again by the write after it was cleared, and stays when rights go (9ed5520dd3c9)',
    modes: ALL_MODES,
    script: (g) => {
      g.access(USER, va(0), 'write');
      g.set(PT, 0, entry(DATA, ALL & ~D));
      g.invlpg(va(0));
      g.access(USER, va(0), 'write');
      expect(g.entry(PT, 0) & D).toBe(D);
      g.set(PT, 0, entry(DATA, ALL & ~(W | D)));
      g.load(ROOT);
      expect(g.access(USER, va(0), 'write')).toEqual({ kind: 'fault', value: 7 });
      g.set(PT, 0, entry(DATA, ALL & ~(A | D)));
      g.load(ROOT);
      g.access(KERNEL, va(0), 'read');
      expect(g.entry(PT, 0) & (A | D)).toBe(A);
    },
  },
  {
    name: '6: the dirty log has a page that was written before its rights went',
    modes: ['second-level'],
    script: (g) => {
      const second = g.machine.second;
      second?.startDirtyLog(DATA, 0x1000);
      g.access(USER, va(0), 'write');
      g.set(PT, 0, entry(DATA, ALL & ~W));
      g.flushAll();
      g.access(USER, va(0), 'read');
      expect([...(second?.takeDirty() ?? [])].some((word) => word !== 0)).toBe(true);
    },
  },
  {
    name: '9: reclaim during faults leaves the root in use, and what it takes is built again (CVE-2026-64561)',
    modes: SHADOWS,
    options: { poolFrames: 64, prefetch: 1 },
    script: (g) => {
      for (let i = 0; i < 80; i++) {
        g.set(0x2_0000 + i * 0x1000, 0, entry(DATA + (i % 8) * 0x1000));
        g.set(PD, i, entry(0x2_0000 + i * 0x1000));
      }
      const roots = () => [g.machine.mmu?.kernelRoot(0), g.machine.mmu?.userRoot(0)];
      const before = roots();
      for (let round = 0; round < 3; round++) for (let i = 0; i < 80; i++) g.access((round + i) % 2 === 0, va(0, 0, i), 'write');
      expect(g.machine.mmu?.stats().pagesReclaimed).toBeGreaterThan(20);
      expect(roots()).toEqual(before);
    },
  },
  {
    name: '10: a page remapped from RAM to a device has no entry left, and back (CVE-2026-23401)',
    modes: ALL_MODES,
    script: (g) => {
      g.access(KERNEL, va(0), 'write');
      for (const [gpa, verdict] of [
        [0xfee0_0000, { kind: 'mmio', value: 0xfee0_0000 }],
        [DATA, ram(DATA)],
        [0xfee0_0000, { kind: 'mmio', value: 0xfee0_0000 }],
      ] as const) {
        g.set(PT, 0, entry(gpa));
        g.invlpg(va(0));
        expect(g.access(KERNEL, va(0), 'write')).toEqual(verdict);
      }
    },
  },
  {
    name: '11: accessed and dirty bits are set in the very entries walked, above 4 GiB too (CVE-2022-49562)',
    modes: ALL_MODES,
    script: (g) => {
      const high = 2 ** 32;
      g.set(high, 3, entry(DATA, P | W | U));
      g.set(PD, 1, entry(high, P | W | U));
      g.access(USER, va(0, 0, 1, 3), 'read');
      expect(g.entry(high, 3)).toBe(entry(DATA, P | W | U | A));
      g.access(USER, va(0, 0, 1, 3), 'write');
      expect(g.entry(high, 3)).toBe(entry(DATA));
      expect(g.entry(PD, 1)).toBe(entry(high, P | W | U | A));
      expect(g.entry(0, 3)).toBe(0n);
    },
  },
  {
    name: '12: the large-page bit where it is reserved, or over bits of a table, is a reserved-bit fault',
    modes: ALL_MODES,
    script: (g) => {
      g.set(ROOT, 1, entry(PDPT, ALL | PS));
      g.set(PDPT, 1, entry(0x2000, ALL | PS));
      g.set(PD, 1, entry(DATA + 0x2000, ALL | PS));
      for (const address of [va(1), va(0, 1), va(0, 0, 1)]) expect(g.access(USER, address, 'read')).toEqual({ kind: 'fault', value: 13 });
    },
  },
  {
    name: '13: tables that refer to themselves and to each other are walked level by level, and can be torn down (XSA-240, XSA-309)',
    modes: ALL_MODES,
    options: { prefetch: 1 },
    script: (g) => {
      g.set(ROOT, 510, entry(ROOT));
      g.set(PDPT, 510, entry(PDPT));
      g.set(PD, 510, entry(PT));
      g.set(PT, 510, entry(PD));
      for (const a of [0, 510]) for (const b of [0, 510]) for (const c of [0, 510]) for (const d of [0, 510]) g.access(KERNEL, va(a, b, c, d), 'read');
      expect(g.access(KERNEL, va(510, 510, 510, 510), 'read').kind).toBe('ram');
      // One of two ways to a table goes, the other stays.
      g.set(PD, 510, 0n);
      g.flushAll();
      g.access(KERNEL, va(0), 'write');
      g.check();
      g.set(PD, 510, entry(PT));
      g.machine.mmu?.zapAll();
      g.machine.second?.zapAll();
      g.access(KERNEL, va(510, 510, 510, 510), 'read');
    },
  },
  ...(
    [
      ['not present', 0n],
      ['read-only', ALL & ~W],
      ['supervisor', ALL & ~U],
      ['no-execute', ALL | NX],
    ] as const
  ).flatMap(([what, flags]) =>
    [ROOT, PDPT, PD, PT].map(
      (table, i): BugClass => ({
        name: `14, 15: after a flush, a level-${4 - i} entry made ${what} holds for all that it maps (XSA-286, XSA-408)`,
        modes: ALL_MODES,
        script: (g) => {
          for (let page = 1; page < 20; page++) g.set(PT, page, entry(DATA + (page % 8) * 0x1000));
          g.set(ROOT, 7, entry(PDPT));
          const pages = [0, 7].flatMap((top) => Array.from({ length: 20 }, (_, page) => va(top, 0, 0, page)));
          for (const page of pages) g.access(USER, page, 'write');
          g.set(table, 0, flags === 0n ? 0n : (g.entry(table, 0) & ~(ALL | NX)) | flags);
          g.load(ROOT);
          for (const page of pages) for (const kind of KINDS) g.access(USER, page, kind);
        },
      }),
    ),
  ),
  {
    name: '16: with PCIDs, a mapping removed while another root was current is gone after a flushing switch back, and kept translations are right (XSA-294)',
    modes: ['guest', 'second-level', 'kvm', 'kvm-unsync'],
    registers: { pcide: true, pcid: 1 },
    script: (g) => {
      link(g, ROOT2, PDPT2, PD2, PT2);
      g.set(PT2, 0, entry(DATA + 0x1000));
      g.access(USER, va(0), 'write');
      g.load(ROOT2, { pcid: 2, flush: false });
      expect(g.access(USER, va(0), 'write')).toEqual(ram(DATA + 0x1000));
      g.load(ROOT, { pcid: 1, flush: false });
      expect(g.access(USER, va(0), 'write')).toEqual(ram(DATA));
      g.load(ROOT2, { pcid: 2, flush: false });
      g.set(PT, 0, 0n);
      g.load(ROOT, { pcid: 1, flush: true });
      expect(g.access(USER, va(0), 'read')).toEqual({ kind: 'fault', value: 4 });
    },
  },
  {
    name: '16: a load of CR3 that flushes its PCID flushes it for the other tables that had it (XSA-294)',
    modes: ['guest', 'second-level', 'kvm', 'kvm-unsync'],
    registers: { pcide: true, pcid: 1 },
    script: (g) => {
      link(g, ROOT2, PDPT2, PD2, PT2);
      g.access(USER, va(0), 'write');
      g.set(PT, 0, entry(DATA + 0x1000));
      g.load(ROOT2, { pcid: 1, flush: true });
      g.load(ROOT, { pcid: 1, flush: false });
      expect(g.access(USER, va(0), 'write')).toEqual(ram(DATA + 0x1000));
    },
  },
  {
    name: '17: with more address spaces than slots and frames every space translates right, and CR3 outside RAM leaves no old root current (XSA-438, XSA-494)',
    modes: SHADOWS,
    options: { poolFrames: 64, prefetch: 1, cachedRoots: 4 },
    script: (g) => {
      const spaces = 30;
      const root = (i: number) => 0x10_0000 + i * 0x4000;
      for (let i = 0; i < spaces; i++) {
        link(g, root(i), root(i) + 0x1000, root(i) + 0x2000, root(i) + 0x3000);
        g.set(root(i) + 0x3000, 0, entry(DATA + (i % 8) * 0x1000));
      }
      for (let turn = 0; turn < 120; turn++) {
        const i = (turn * 7) % spaces;
        g.load(root(i));
        expect(g.access(USER, va(0), 'write')).toEqual(ram(DATA + (i % 8) * 0x1000));
        if (turn % 20 === 0) g.check();
      }
      g.load(0x5000_0000);
      expect(g.access(USER, va(0), 'write').kind).toBe('fault');
    },
  },
  {
    name: '19: after a reset, as for a restored snapshot, no root or translation of before is left',
    modes: SHADOWS,
    script: (g) => {
      g.access(USER, va(0), 'write');
      g.machine.mmu?.reset();
      g.machine.view.setBigUint64(Number(ram(PT).value), entry(DATA + 0x1000), true);
      g.load(ROOT);
      expect(g.access(USER, va(0), 'write')).toEqual(ram(DATA + 0x1000));
    },
  },
];

for (const { name, modes, options, registers, script } of CLASSES) {
  describe(name, () => {
    it.each(modes)('%s', async (mode) => {
      const guest = await mapped(mode, options, registers);
      script(guest);
      guest.check();
    });
  });
}
