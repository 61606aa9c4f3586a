import { beforeEach, describe, expect, it, test } from 'vitest';
import {
  EXIT_EXCEPTION,
  S_CR4,
  S_RFLAGS,
  S_TLB_COUNTED,
  TLB_BASE,
  TLB_COUNTED,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_READ,
  TLB_WRITE,
  V_EXC_BITMAP,
} from './layout.ts';
import { CODE, HLT, KernelMachine } from './testing/kernel-machine.ts';
import { CPU, RAM_BASE, RuntimeMachine } from './testing/runtime-machine.ts';

const [P, W, U] = [1n, 2n, 4n];
const [CR4_PAE, CR4_SMAP, RFLAGS_AC] = [1 << 5, 1 << 21, 1 << 18];
/** Pages that have the first entries, the last one, and the one whose number is all ones but for a bit. */
const PAGES = [0x40_0000n, 0x40_1000n, 0x40_2000n, 0x7fd000n, 0x7ff000n, 0xffff_ffff_ffff_f000n, 0xffff_ffff_ffff_d000n];

const m = await RuntimeMachine.create();
beforeEach(() => m.startAnew());

const indexOf = (va: bigint) => Number((va >> 12n) & BigInt(TLB_ENTRIES - 1));
const tagAt = (index: number, kind: number) => m.view.getBigUint64(TLB_BASE + index * TLB_ENTRY_SIZE + kind, true);
/** Pages that the data tags of all entries let compiled code access: those that select the entry, whatever the low bits of the tag. */
const allowed = (kind: number) =>
  Array.from({ length: TLB_ENTRIES }, (_, i) => i).flatMap((i) => (indexOf(tagAt(i, kind)) === i ? [tagAt(i, kind) & ~0xfffn] : []));
const both = () => ({ read: allowed(TLB_READ), write: allowed(TLB_WRITE) });
const NOTHING = { read: [], write: [] };
const sorted = (list: readonly bigint[]) => [...list].sort((a, b) => indexOf(a) - indexOf(b));

test('an empty TLB has no tag that an address matches which selects its entry', () => {
  expect(both()).toEqual(NOTHING);
});

describe.each(PAGES)('tags of the page at %#x', (page) => {
  const access = (flags: bigint) => {
    m.map(page, 0x8_0000n, flags);
    m.rt.store8(CPU, page, 1);
    m.rt.load8(CPU, page);
    expect(m.takeException()).toBeUndefined();
  };

  it('allow its accesses, until INVLPG', () => {
    access(P | W);
    expect(both()).toEqual({ read: [page], write: [page] });
    m.rt.tlbInvlpg(CPU, 0, page);
    expect(both()).toEqual(NOTHING);
  });
  it('allow loads alone where it cannot be written, or holds code', () => {
    m.map(page, 0x8_0000n, P);
    m.rt.load8(CPU, page);
    expect(both()).toEqual({ read: [page], write: [] });
    access(P | W);
    m.rt.protectFrame(CPU, RAM_BASE + 0x8_0000);
    expect(both()).toEqual({ read: [page], write: [] });
  });
  it('allow nothing while hits are counted, and are protected and forgotten all the same', () => {
    m.set(S_TLB_COUNTED, TLB_COUNTED);
    access(P | W);
    expect(both()).toEqual(NOTHING);
    const before = tagAt(indexOf(page), TLB_WRITE);
    m.rt.protectFrame(CPU, RAM_BASE + 0x8_0000);
    expect(tagAt(indexOf(page), TLB_WRITE)).not.toBe(before);
    m.set(S_TLB_COUNTED, 0);
    m.rt.tlbInvlpg(CPU, 0, page);
    access(P | W);
    expect(both()).toEqual({ read: [page], write: [page] });
  });
  it('of a user page allow a supervisor nothing under SMAP while AC is clear', () => {
    m.set(S_CR4, CR4_PAE | CR4_SMAP);
    for (const other of PAGES) m.map(other, 0x8_0000n, P | W | U);
    for (const ac of [true, false, true]) {
      m.set(S_RFLAGS, ac ? RFLAGS_AC : 0);
      m.rt.alignment(CPU);
      if (ac) for (const other of PAGES) m.rt.store8(CPU, other, 1);
      expect(m.takeException()).toBeUndefined();
      const one = new Map(PAGES.map((va) => [indexOf(va), va]));
      const open = { read: sorted([...one.values()]), write: sorted([...one.values()]) };
      expect(both()).toEqual(ac ? open : NOTHING);
    }
  });
});

describe.each(['off', 'sync'] as const)('an access that begins in the last byte of all addresses (JIT %s)', (jit) => {
  it.each([
    ['a load', [0x66, 0x8b, 0x07]],
    ['a store', [0x48, 0x89, 0x07]],
    ['a read-modify-write', [0x48, 0xff, 0x07]],
    ['SGDT', [0x0f, 0x01, 0x07]],
  ])('finds no page there: %s', async (_, code) => {
    /** MOV RDI, -1. */
    const kernel = await KernelMachine.create([0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, ...code, HLT], jit);
    kernel.field(V_EXC_BITMAP, -1);
    expect(kernel.core.run(0)).toBe(EXIT_EXCEPTION);
    expect(kernel.core.getRip(0)).toBe(BigInt(CODE + 7));
    await kernel.core.dispose();
  });
});
