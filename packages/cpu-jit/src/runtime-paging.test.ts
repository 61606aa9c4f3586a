import { beforeAll, describe, expect, test } from 'vitest';
import {
  ACCESS_EXEC,
  ACCESS_IMPLICIT_SUPERVISOR,
  ACCESS_READ,
  ACCESS_WRITE,
  MAXPHYADDR,
  S_CODE_SIZE,
  S_CR0,
  S_CR4,
  S_EFER,
  S_PKRU,
  S_RFLAGS,
} from './layout.ts';
import { type PagingAccess, type PagingControls, type PagingEntry, pagingModel } from './testing/paging-model.ts';
import { CPU, RAM_BASE, RuntimeMachine } from './testing/runtime-machine.ts';

const A = 0x20n;
const D = 0x40n;
const PS = 0x80n;
const NX = 1n << 63n;
const ROOT = 0x1000;
/** Where the page's byte is, whatever the size of the page. */
const TARGET = 0x40_5123n;
const CR0_PE_PG = 0x8000_0001;
const CR0_WP = 1 << 16;
const [CR4_PSE, CR4_PAE, CR4_LA57, CR4_SMEP, CR4_SMAP, CR4_PKE] = [1 << 4, 1 << 5, 1 << 12, 1 << 20, 1 << 21, 1 << 22] as const;
const EFER_LONG = 0x500;
const EFER_NXE = 0x800;
const RFLAGS_AC = 1 << 18;

/** A paging mode and page size. */
interface Layout {
  readonly name: string;
  readonly mode: PagingControls['mode'];
  readonly va: bigint;
  readonly cr4: number;
  /** Bits that each level translates, from the root; the rest is the offset in the page. */
  readonly shifts: readonly number[];
  readonly entryBytes: 4 | 8;
  /** Bits that are reserved in the entry that maps the page, and in one that does not. */
  readonly leafReserved: readonly bigint[];
  readonly upperReserved: readonly bigint[];
}
const HIGH = [1n << BigInt(MAXPHYADDR), 1n << 51n];
const long = (name: string, la57: boolean, shifts: readonly number[], leafReserved: readonly bigint[]): Layout => ({
  name,
  mode: 'long',
  va: la57 ? 0x00ab_1234_c000_0000n | TARGET : 0x1234_c000_0000n | TARGET,
  cr4: CR4_PAE | (la57 ? CR4_LA57 : 0),
  shifts: la57 ? [48, ...shifts] : shifts,
  entryBytes: 8,
  leafReserved: [...HIGH, ...leafReserved],
  upperReserved: HIGH,
});
const LAYOUTS: readonly Layout[] = [
  long('4-level, 4 KiB', false, [39, 30, 21, 12], []),
  long('4-level, 2 MiB', false, [39, 30, 21], [1n << 13n, 1n << 20n]),
  long('4-level, 1 GiB', false, [39, 30], [1n << 13n, 1n << 29n]),
  long('5-level, 4 KiB', true, [39, 30, 21, 12], []),
  long('5-level, 2 MiB', true, [39, 30, 21], [1n << 13n, 1n << 20n]),
  long('5-level, 1 GiB', true, [39, 30], [1n << 13n, 1n << 29n]),
  // The PDPTE has no rights; it is a level of its own here, which is never varied.
  {
    name: 'PAE, 4 KiB',
    mode: 'PAE',
    va: 0x8000_0000n | TARGET,
    cr4: CR4_PAE,
    shifts: [30, 21, 12],
    entryBytes: 8,
    leafReserved: [...HIGH, 1n << 62n],
    upperReserved: [...HIGH, 1n << 62n],
  },
  {
    name: 'PAE, 2 MiB',
    mode: 'PAE',
    va: 0x8000_0000n | TARGET,
    cr4: CR4_PAE,
    shifts: [30, 21],
    entryBytes: 8,
    leafReserved: [...HIGH, 1n << 62n, 1n << 13n],
    upperReserved: [],
  },
  { name: '32-bit, 4 KiB', mode: '32-bit', va: 0x8000_0000n | TARGET, cr4: CR4_PSE, shifts: [22, 12], entryBytes: 4, leafReserved: [], upperReserved: [] },
  { name: '32-bit, 4 MiB', mode: '32-bit', va: 0x8000_0000n | TARGET, cr4: CR4_PSE, shifts: [22], entryBytes: 4, leafReserved: [1n << 21n], upperReserved: [] },
];

let m: RuntimeMachine;
beforeAll(async () => {
  m = await RuntimeMachine.create();
  m.hooks.mmuFault = () => 1;
});

/** The entries of one translation in memory. */
class Path {
  readonly layout: Layout;
  /** Physical address and permissive value of each entry. */
  private readonly at: number[] = [];
  private readonly plain: bigint[] = [];
  /** What each entry says now. */
  readonly entries: PagingEntry[] = [];

  constructor(layout: Layout) {
    this.layout = layout;
    m.reset();
    const { shifts, va, entryBytes, mode } = layout;
    const indexBits = mode === '32-bit' ? 10n : 9n;
    for (const [level, shift] of shifts.entries()) {
      const isLeaf = level === shifts.length - 1;
      const isRootOfPae = mode === 'PAE' && level === 0;
      const index = Number((va >> BigInt(shift)) & (isRootOfPae ? 3n : (1n << indexBits) - 1n));
      this.at.push(ROOT + level * 0x1000 + index * entryBytes);
      const below = isLeaf ? TARGET & ~((1n << BigInt(shift)) - 1n) : BigInt(ROOT + (level + 1) * 0x1000);
      const size = isLeaf && shift > 12 ? PS : 0n;
      this.plain.push(below | size);
      if (isRootOfPae) this.raw(level, below | 1n);
      else this.set(level, 7);
      this.entries[level] = { present: true, writable: true, user: true, noExecute: false, reserved: false };
    }
  }
  get leaf(): number {
    return this.at.length - 1;
  }
  /** Levels between the root and the page whose rights count. */
  get uppers(): number[] {
    return this.at.map((_, i) => i).slice(this.layout.mode === 'PAE' ? 1 : 0, -1);
  }
  raw(level: number, value: bigint): void {
    const at = this.at[level] ?? 0;
    if (this.layout.entryBytes === 8) m.setPhys64(at, value);
    else m.setPhys32(at, Number(value));
  }
  read(level: number): bigint {
    const at = this.at[level] ?? 0;
    return this.layout.entryBytes === 8 ? m.phys64(at) : m.phys64(at & ~7) >> BigInt((at & 4) * 8);
  }
  /** `flags`: P, W, U in bits 0..2, NX in bit 3, A in bit 5, D in bit 6; protection key `key`; further bits `extra`, which are reserved. */
  set(level: number, flags: number, extra = 0n, key = 0): void {
    this.entries[level] = {
      present: (flags & 1) !== 0,
      writable: (flags & 2) !== 0,
      user: (flags & 4) !== 0,
      noExecute: (flags & 8) !== 0,
      reserved: extra !== 0n,
    };
    const bits = BigInt(flags & 0x67) | (flags & 8 ? NX : 0n) | (BigInt(key) << 59n) | extra;
    this.raw(level, (this.plain[level] ?? 0n) | bits);
  }
}

const ACCESSES: readonly PagingAccess[] = (['read', 'write', 'fetch'] as const).flatMap((kind) =>
  ([0, 3] as const).flatMap((cpl): PagingAccess[] => [{ kind, cpl, implicit: false }, ...(kind === 'fetch' ? [] : [{ kind, cpl, implicit: true }])]),
);
const CODES = { read: ACCESS_READ, write: ACCESS_WRITE, fetch: ACCESS_EXEC } as const;

/** Every setting of the bits that count in this mode. */
function controlsOf(mode: PagingControls['mode']): PagingControls[] {
  const list: PagingControls[] = [];
  const keys = mode === 'long' ? [0, 4, 5, 6, 7] : [0];
  for (let bits = 0; bits < 32; bits++) {
    if (mode === '32-bit' && bits & 16) continue;
    const on = (n: number) => (bits & n) !== 0;
    for (const k of keys) {
      list.push({ mode, wp: on(1), smep: on(2), smap: on(4), ac: on(8), nxe: on(16), pke: k !== 0, accessDisable: (k & 1) !== 0, writeDisable: (k & 2) !== 0 });
    }
  }
  return list;
}
const KEY = 9;
/** Puts the bits where the processor has them; flushes as MOV to CR does. */
function apply(layout: Layout, c: PagingControls, key: number): void {
  m.set(S_CR0, CR0_PE_PG | (c.wp ? CR0_WP : 0));
  m.set(S_CR4, layout.cr4 | (c.smep ? CR4_SMEP : 0) | (c.smap ? CR4_SMAP : 0) | (c.pke ? CR4_PKE : 0));
  m.set(S_EFER, (layout.mode === 'long' ? EFER_LONG : 0) | (c.nxe ? EFER_NXE : 0));
  m.set(S_RFLAGS, c.ac ? RFLAGS_AC : 0);
  m.set(S_PKRU, (((c.accessDisable ? 1 : 0) | (c.writeDisable ? 2 : 0)) << (2 * key)) >>> 0);
  m.set(S_CODE_SIZE, layout.mode === 'long' ? 64 : 32);
  m.rt.tlbFlushAll(CPU);
}
/** INVLPG in both privileges' TLBs. */
function invlpg(va: bigint): void {
  m.rt.tlbInvlpg(CPU, 0, va);
  m.rt.tlbInvlpg(CPU, 1, va);
}

let cpl = -1;
/** Error code of the page fault the access raises, or `allowed`; anything else is told as text. */
function attempt(va: bigint, a: PagingAccess): number | string {
  if (cpl !== a.cpl) {
    m.setCpl(a.cpl);
    cpl = a.cpl;
  }
  const got = m.rt.translate(CPU, va, CODES[a.kind] | (a.implicit ? ACCESS_IMPLICIT_SUPERVISOR : 0)) >>> 0;
  const exception = got === 0 ? m.takeException() : undefined;
  if (exception === undefined) return got === RAM_BASE + Number(TARGET) ? 'allowed' : `translated to ${(got - RAM_BASE).toString(16)}`;
  return exception.vector === 14 && exception.address === va ? exception.error : `exception ${exception.vector}`;
}

/** The access from an empty TLB and again: outcomes and accessed and dirty bits. Differences as text go to `found`. */
function check(path: Path, c: PagingControls, a: PagingAccess, found: string[]): void {
  const { va, name } = path.layout;
  const want = pagingModel(path.entries, c, a);
  const before = path.read(path.leaf);
  const tell = (what: string) => found.push(`${name}: ${what}, ${JSON.stringify({ want, c, a, leaf: before.toString(16), entries: path.entries })}`);
  invlpg(va);
  for (const time of ['first', 'second']) {
    const got = attempt(va, a);
    if (got !== want) tell(`${time} access: ${got}`);
  }
  const after = path.read(path.leaf);
  const marks = want === 'allowed' ? A | (a.kind === 'write' ? D : 0n) : 0n;
  if (after !== (before | marks)) tell(`leaf became ${after.toString(16)}`);
  if (want === 'allowed') for (const level of path.uppers) if (!(path.read(level) & A)) tell(`level ${level} is not marked accessed`);
}

describe.each(LAYOUTS.map((layout) => [layout.name, layout] as const))('%s pages', (_, layout) => {
  const all = layout.mode !== '32-bit';
  /** W, U and NX of an entry; in the 4-level 4 KiB leaf A and D too. */
  const rights = (withMarks: boolean): number[] => {
    const list: number[] = [];
    for (let bits = 0; bits < 32; bits++) {
      if ((bits & 4 && !all) || (bits & 24 && !withMarks)) continue;
      list.push(1 | ((bits & 3) << 1) | (bits & 4 ? 8 : 0) | ((bits >> 3) << 5));
    }
    return list;
  };

  test('permit what the manual says under every combination of rights, controls and accesses, and again from the TLB', () => {
    const path = new Path(layout);
    cpl = -1;
    const found: string[] = [];
    let checked = 0;
    // The entry above the page, or there is none whose rights count.
    const upper = path.uppers.at(-1);
    for (const c of controlsOf(layout.mode)) {
      apply(layout, c, layout.mode === 'long' ? KEY : 0);
      for (const above of upper === undefined ? [7] : rights(false)) {
        for (const leaf of rights(layout.name === LAYOUTS[0]?.name)) {
          for (const a of ACCESSES) {
            if (upper !== undefined) path.set(upper, above);
            path.set(path.leaf, leaf, 0n, layout.mode === 'long' ? KEY : 0);
            check(path, c, a, found);
            checked++;
          }
          if (found.length > 5) break;
        }
      }
    }
    expect(found).toEqual([]);
    expect(checked).toBeGreaterThan(600);
  });

  test('take the rights of every level into account, and fault with P clear or RSVD set where one is absent or has a reserved bit', () => {
    const path = new Path(layout);
    cpl = -1;
    const found: string[] = [];
    for (const c of controlsOf(layout.mode)) {
      if (c.accessDisable || c.ac) continue;
      apply(layout, c, 0);
      for (const level of [...path.uppers, path.leaf]) {
        const reserved = level === path.leaf ? layout.leafReserved : layout.upperReserved;
        const kinds = [
          [6, 0n],
          [0, 0n],
          ...rights(false).map((r) => [r, 0n] as const),
          ...reserved.flatMap((bit) => [[7, bit] as const, [1, bit] as const, [6, bit] as const]),
        ] as const;
        for (const [flags, extra] of kinds) {
          for (const a of ACCESSES) {
            path.set(path.leaf, 7);
            path.set(level, flags, extra);
            check(path, c, a, found);
            path.set(level, 7);
          }
        }
      }
      if (found.length > 5) break;
    }
    expect(found).toEqual([]);
  });

  test('take new rights after INVLPG, and never more than the tables give in between', () => {
    const path = new Path(layout);
    cpl = -1;
    const found: string[] = [];
    const c: PagingControls = {
      mode: layout.mode,
      wp: true,
      smep: true,
      smap: true,
      ac: false,
      nxe: true,
      pke: layout.mode === 'long',
      accessDisable: false,
      writeDisable: true,
    };
    for (const key of layout.mode === 'long' ? [0, KEY] : [0]) {
      apply(layout, c, key);
      for (const first of rights(true)) {
        for (const second of rights(false)) {
          path.set(path.leaf, first, 0n, key);
          invlpg(layout.va);
          for (const a of ACCESSES) {
            const got = attempt(layout.va, a);
            if (got !== pagingModel(path.entries, c, a)) found.push(`${first} ${JSON.stringify(a)}: ${got}`);
          }
          path.set(path.leaf, second, 0n, key);
          invlpg(layout.va);
          for (const a of ACCESSES) {
            const got = attempt(layout.va, a);
            if (got !== pagingModel(path.entries, c, a)) found.push(`${first} then ${second} ${JSON.stringify(a)}: ${got}`);
          }
        }
      }
    }
    expect(found.slice(0, 5)).toEqual([]);
  });

  test.each(['first', 'last'])('are forgotten by INVLPG of their %s byte', (which) => {
    const path = new Path(layout);
    cpl = -1;
    const read: PagingAccess = { kind: 'read', cpl: 0, implicit: false };
    apply(layout, { mode: layout.mode, wp: true, smep: false, smap: false, ac: false, nxe: true, pke: false, accessDisable: false, writeDisable: false }, 0);
    expect(attempt(layout.va, read)).toBe('allowed');
    path.set(path.leaf, 0);
    const below = (1n << BigInt(layout.shifts.at(-1) ?? 0)) - 1n;
    invlpg(which === 'first' ? layout.va & ~below : layout.va | below);
    expect(attempt(layout.va, read)).toBe(0);
  });
});

test('privilege levels 1 and 2 are supervisor levels', () => {
  const layout = LAYOUTS[0];
  if (layout === undefined) throw new Error('there are layouts');
  const path = new Path(layout);
  cpl = -1;
  const found: string[] = [];
  for (const c of controlsOf('long')) {
    apply(layout, c, KEY);
    for (const level of [1, 2] as const) {
      for (const kind of ['read', 'write', 'fetch'] as const) {
        for (const flags of [1, 3, 5, 7]) {
          path.set(path.leaf, flags, 0n, KEY);
          check(path, c, { kind, cpl: level, implicit: false }, found);
        }
      }
    }
  }
  expect(found.slice(0, 5)).toEqual([]);
});
