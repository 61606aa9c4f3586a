import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_WRITE,
  EPT_QUAL_APIC,
  EPT_QUAL_MISCONFIG,
  EPT_QUAL_PRESENT,
  EPT_QUAL_TABLE,
  PAGING_EPT,
  S_CR0,
  S_CR8,
  S_EXIT_GPA,
  S_EXIT_QUAL,
  S_EXIT_VA,
  V_APIC_PAGE,
  V_EPT_ROOT,
  V_PAGING,
  V_TPR_THRESHOLD,
} from './layout.ts';
import { CPU, PAGE, RAM_BASE, RuntimeMachine } from './testing/runtime-machine.ts';

let m: RuntimeMachine;
beforeAll(async () => {
  m = await RuntimeMachine.create();
});

const R = 1n,
  W = 2n,
  X = 4n,
  A = 0x100n,
  D = 0x200n;
/** EPT tables live at the top of RAM, out of the guest's sight; gpa + SHIFT is where a page is in RAM. */
const ROOT = RAM_BASE + 0xf0_0000;
const SHIFT = 0x40_0000;
let nextTable = 0;

function eptSlot(gpa: number, shift = 12): number {
  let table = ROOT;
  for (let level = 39; level > shift; level -= 9) {
    const at = table + (Math.floor(gpa / 2 ** level) & 511) * 8;
    if (m.view.getBigUint64(at, true) === 0n) {
      m.view.setBigUint64(at, BigInt(nextTable) | R | W | X, true);
      nextTable += PAGE;
    }
    table = Number(m.view.getBigUint64(at, true) & 0xffff_f000n);
  }
  return table + (Math.floor(gpa / 2 ** shift) & 511) * 8;
}
const eptMap = (gpa: number, rights: bigint) => m.view.setBigUint64(eptSlot(gpa), BigInt(RAM_BASE + SHIFT + gpa) | rights, true);
const eptEntry = (gpa: number) => m.view.getBigUint64(eptSlot(gpa), true);
/** Writes a guest table entry through the second level. */
const setGuest64 = (gpa: number, v: bigint) => m.setPhys64(gpa + SHIFT, v);

describe('two-dimensional paging', () => {
  let exits: { va: bigint; gpa: bigint; qual: number }[];
  beforeEach(() => {
    m.reset();
    nextTable = ROOT + PAGE;
    m.set(V_PAGING, PAGING_EPT);
    m.set(V_EPT_ROOT, ROOT);
    // Guest: 0x1000 -> 0x2000 -> 0x3000 -> 0x4000; VA 0x200000 + n pages -> GPA 0x10000 + n pages.
    for (const gpa of [0x1000, 0x2000, 0x3000, 0x4000]) eptMap(gpa, R | W);
    setGuest64(0x1000, 0x2007n);
    setGuest64(0x2000, 0x3007n);
    setGuest64(0x3008, 0x4007n);
    for (let n = 0; n < 4; n++) setGuest64(0x4000 + n * 8, BigInt(0x1_0000 + n * PAGE) | 7n);
    exits = [];
    m.hooks.mmuFault = () => {
      exits.push({ va: m.get64(S_EXIT_VA), gpa: m.get64(S_EXIT_GPA), qual: m.get(S_EXIT_QUAL) });
      return 3;
    };
  });
  const translate = (va: bigint, access: number) => {
    const hpa = m.rt.translate(CPU, va, access) >>> 0;
    m.takeException();
    return hpa;
  };

  it('translates through both levels and marks both accessed and dirty', () => {
    eptMap(0x1_0000, R | W);
    expect(translate(0x20_0123n, ACCESS_READ)).toBe(RAM_BASE + SHIFT + 0x1_0123);
    expect(eptEntry(0x1_0000) & (A | D)).toBe(A);
    expect(m.phys64(SHIFT + 0x4000) & 0x60n).toBe(0x20n);
    expect(eptEntry(0x4000) & (A | D)).toBe(A | D);
    expect(translate(0x20_0123n, ACCESS_WRITE)).toBe(RAM_BASE + SHIFT + 0x1_0123);
    expect(eptEntry(0x1_0000) & (A | D)).toBe(A | D);
    expect(m.phys64(SHIFT + 0x4000) & 0x60n).toBe(0x60n);
    expect(exits).toEqual([]);
  });

  it('reports violations of data and of guest tables, and misconfigured entries', () => {
    eptMap(0x1_0000, R);
    expect(translate(0x20_0008n, ACCESS_READ)).not.toBe(0);
    translate(0x20_0008n, ACCESS_WRITE);
    translate(0x20_0008n, ACCESS_EXEC);
    translate(0x20_1010n, ACCESS_READ);
    eptMap(0x4000, 0n);
    m.rt.tlbFlushAll(CPU);
    translate(0x20_0008n, ACCESS_READ);
    eptMap(0x4000, R | W);
    eptMap(0x1_2000, W);
    translate(0x20_2000n, ACCESS_READ);
    expect(exits).toEqual([
      { va: 0x20_0008n, gpa: 0x1_0008n, qual: EPT_QUAL_PRESENT },
      { va: 0x20_0008n, gpa: 0x1_0008n, qual: EPT_QUAL_PRESENT },
      { va: 0x20_1010n, gpa: 0x1_1010n, qual: 0 },
      { va: 0x20_0008n, gpa: 0x4000n, qual: EPT_QUAL_TABLE },
      { va: 0x20_2000n, gpa: 0x1_2000n, qual: EPT_QUAL_PRESENT | EPT_QUAL_MISCONFIG },
    ]);
  });

  it('needs a writable table page only to set accessed and dirty bits', () => {
    eptMap(0x1_0000, R | W);
    eptMap(0x4000, R);
    translate(0x20_0000n, ACCESS_READ);
    expect(exits).toEqual([{ va: 0x20_0000n, gpa: 0x4000n, qual: EPT_QUAL_PRESENT | EPT_QUAL_TABLE }]);
    setGuest64(0x4000, 0x1_0067n);
    expect(translate(0x20_0000n, ACCESS_WRITE)).not.toBe(0);
  });

  it('raises guest page faults without leaving the guest', () => {
    setGuest64(0x4008, 0n);
    m.rt.load8(CPU, 0x20_1000n);
    expect(m.takeException()).toEqual({ vector: 14, error: 0, address: 0x20_1000n });
    expect(exits).toEqual([]);
  });

  it('translates linear addresses as guest-physical while paging is off, large pages included', () => {
    m.set(S_CR0, 1);
    const at = Math.ceil((RAM_BASE + 0x60_0000) / 0x20_0000) * 0x20_0000;
    m.view.setBigUint64(eptSlot(0x20_0000, 21), BigInt(at) | R | X | 0x80n, true);
    expect(translate(0x20_1234n, ACCESS_EXEC)).toBe(at + 0x1234);
    translate(0x20_1234n, ACCESS_WRITE);
    expect(exits).toEqual([{ va: 0x20_1234n, gpa: 0x20_1234n, qual: EPT_QUAL_PRESENT }]);
  });

  it('finds guest tables through its caches, and not past a flush', () => {
    eptMap(0x1_0000, R | W);
    eptMap(0x1_1000, R | W);
    // The first walk makes the last table dirty in the second level, the second one can rely on that.
    translate(0x20_0000n, ACCESS_READ);
    translate(0x20_0000n, ACCESS_WRITE);
    const walks = eptEntry(0x2000);
    // The upper tables are not looked at for the neighbour: their marks stay away.
    m.view.setBigUint64(eptSlot(0x2000), walks & ~A, true);
    expect(translate(0x20_1000n, ACCESS_WRITE)).toBe(RAM_BASE + SHIFT + 0x1_1000);
    expect(eptEntry(0x2000) & A).toBe(0n);
    // The last table moves to another frame: the old one is forgotten with the TLB.
    setGuest64(0x5000 + 16, 0x1_1007n);
    m.view.setBigUint64(eptSlot(0x4000), BigInt(RAM_BASE + SHIFT + 0x5000) | R | W, true);
    m.rt.tlbFlushAll(CPU);
    expect(translate(0x20_2000n, ACCESS_READ)).toBe(RAM_BASE + SHIFT + 0x1_1000);
    expect(eptEntry(0x2000) & A).toBe(A);
    expect(exits).toEqual([]);
  });

  it('exits before it marks a guest table that has become read-only, cached or not', () => {
    eptMap(0x1_0000, R | W);
    eptMap(0x1_1000, R | W);
    translate(0x20_0000n, ACCESS_WRITE);
    m.view.setBigUint64(eptSlot(0x4000), eptEntry(0x4000) & ~W, true);
    m.rt.tlbFlushAll(CPU);
    expect(translate(0x20_0000n, ACCESS_WRITE)).not.toBe(0);
    expect(exits).toEqual([]);
    translate(0x20_1000n, ACCESS_READ);
    expect(exits).toEqual([{ va: 0x20_1000n, gpa: 0x4000n, qual: EPT_QUAL_PRESENT | EPT_QUAL_TABLE }]);
  });

  it('takes reserved bits for misconfigurations', () => {
    eptMap(0x1_0000, R | (1n << 40n));
    translate(0x20_0000n, ACCESS_READ);
    m.view.setBigUint64(ROOT, m.view.getBigUint64(ROOT, true) | 8n, true);
    m.rt.tlbFlushAll(CPU);
    translate(0x20_1000n, ACCESS_READ);
    expect(exits.map((e) => e.qual & EPT_QUAL_MISCONFIG)).toEqual([EPT_QUAL_MISCONFIG, EPT_QUAL_MISCONFIG]);
    m.view.setBigUint64(ROOT, m.view.getBigUint64(ROOT, true) & ~8n, true);
  });

  it('leaves at the APIC-access page, but for the task priority, which it keeps in CR8', () => {
    const page = RAM_BASE + SHIFT + 0x1_0000;
    eptMap(0x1_0000, R | W);
    m.set(V_APIC_PAGE, page);
    m.set(V_TPR_THRESHOLD, 3);
    m.hooks.mmuFault = () => {
      exits.push({ va: m.get64(S_EXIT_VA), gpa: m.get64(S_EXIT_GPA), qual: m.get(S_EXIT_QUAL) });
      return 2;
    };
    m.rt.store32(CPU, 0x20_0080n, 0x40);
    expect(m.get(S_CR8)).toBe(4);
    expect(m.rt.load32(CPU, 0x20_0080n)).toBe(0x40);
    expect(exits).toEqual([]);
    const apic = { qual: EPT_QUAL_PRESENT | EPT_QUAL_APIC };
    m.rt.load32(CPU, 0x20_0020n);
    m.rt.store32(CPU, 0x20_00b0n, 0);
    // Below the threshold, and a value with a sub-class.
    m.rt.store32(CPU, 0x20_0080n, 0x20);
    m.rt.store32(CPU, 0x20_0080n, 0x41);
    expect(exits).toEqual([0x20, 0xb0, 0x80, 0x80].map((offset) => ({ ...apic, va: BigInt(0x20_0000 + offset), gpa: BigInt(0x1_0000 + offset) })));
    expect(m.phys64(SHIFT + 0x1_0080)).toBe(0n);
    m.set(V_APIC_PAGE, 0);
  });
});
