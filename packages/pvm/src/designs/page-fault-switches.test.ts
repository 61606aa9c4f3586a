import { describe, expect, it } from 'vitest';
import { MSR_PVM_SWITCH_CR3 } from '../abi-rfc-v1/constants.ts';
import { hlt, jmpRax, load8, mov, store, syscall } from '../testing/assemble.ts';
import { map, type TestGuestOptions, testGuest } from '../testing/guest.ts';
import { powerOff, runStock, start, stockKernel } from '../testing/stock-guest.ts';

/**
 * A page fault in a table of which the lowest n levels are absent, worst case: every table page that the guest's handler writes is in use
 * elsewhere, so that a design with shadow tables keeps it write-protected. Page tables are reached through a second path of other indices.
 */
const SLOT = 8;
const ALIAS_SLOT = 9;
/** The address that faults has index 0 below the top, the one that keeps the tables in use has index 1. */
const FAULTING = SLOT * 2 ** 39;
const ALIAS = ALIAS_SLOT * 2 ** 39 + 2 ** 30 + 2 ** 21 + 2 ** 12;
/** Present, writable, for user mode, accessed and dirty: as kernels enter a page that has just faulted. Without the marks, prefault would leave it alone. */
const ENTRY = 0x67;
const LEVELS = [1, 2, 3, 4] as const;

interface Entry {
  readonly at: number;
  readonly value: number;
}
/** Entries on the path of an address, the top level's first. */
function path(pml4: number, tables: number, slot: number, index: number, frame: number): readonly Entry[] {
  const table = (n: number) => tables + n * 0x1000;
  const entry = (at: number, i: number, to: number) => ({ at: at + 8 * i, value: to | ENTRY });
  return [entry(pml4, slot, table(0)), entry(table(0), index, table(1)), entry(table(1), index, table(2)), entry(table(2), index, frame)];
}
const write = ({ at, value }: Entry): number[] => [...mov('rax', value), ...store(at)];
/** MOV [moffs64], AL. */
const store8 = (at: number): number[] => [0xa2, ...mov('rax', at).slice(2)];

/** Counts of `all` that `base` does not have. */
function difference(all: Readonly<Record<string, number>>, base: Readonly<Record<string, number>>): Record<string, number> {
  const rows = Object.entries(all).map(([name, count]) => [name, count - (base[name] ?? 0)] as const);
  return Object.fromEntries(rows.filter(([, count]) => count !== 0));
}

/** Switches of pvm, and what a fault then costs: world switches for `n` levels, and the exits beside the n writes. */
const PVM_SWITCHES: readonly (readonly [TestGuestOptions, switches: (n: number) => number, exits: Readonly<Record<string, number>>])[] = [
  [{ prefault: true }, (n) => 2 * n + 4, { '#PF guest': 1, ERETU: 1 }],
  [{ prefault: true, abi: 'rfc-v1' }, (n) => 2 * n + 4, { '#PF guest': 1, ERETU: 1 }],
  [{ prefault: true, pcidMap: false }, (n) => 2 * n + 4, { '#PF guest': 1, ERETU: 1 }],
  [{ prefault: true, directSwitch: false }, (n) => 2 * n + 4, { '#PF guest': 1, ERETU: 1 }],
  // The return is a direct switch, and the shadow is filled by a fault of its own.
  [{}, (n) => 2 * n + 5, { '#PF guest': 1, '#PF shadow': 1 }],
  [{ directSwitch: false }, (n) => 2 * n + 6, { '#PF guest': 1, ERETU: 1, '#PF shadow': 1 }],
  // The fault goes to the guest's kernel by one direct switch.
  [{ injectDirect: true, prefault: true }, (n) => 2 * n + 3, { ERETU: 1 }],
  [{ injectDirect: true }, (n) => 2 * n + 4, { '#PF shadow': 1 }],
];

describe.each(PVM_SWITCHES)('under pvm with %o, a page fault with n absent levels costs none to a host, and', (options, switches, beside) => {
  const [TABLES, FRAME] = [0x5_0000, 0x6_0000];

  /** Runs umod code that touches the alias, then `address`. */
  async function run(n: number, address: number) {
    const made = await testGuest(options);
    const isRfc = options.abi === 'rfc-v1';
    const g = isRfc ? made.attachRfcV1() : made.attach();
    const wanted = path(map.pml4, TABLES, SLOT, 0, FRAME);
    for (const { at, value } of [...path(map.pml4, TABLES, ALIAS_SLOT, 1, FRAME + 0x1000), ...wanted.slice(0, 4 - n)]) {
      g.ram.view.setBigUint64(at, BigInt(value), true);
    }
    // Programs run on the kernel's own table, by a value of CR3 that differs in a bit nobody looks at.
    if (isRfc) g.writeMsr(MSR_PVM_SWITCH_CR3, BigInt(map.pml4 | 1));
    g.code(map.umodEvent, ...wanted.slice(4 - n).map(write), mov('rax', map.retu), jmpRax);
    g.umod(load8(ALIAS), store8(address), syscall);
    g.code(map.lstar, hlt);
    // The shadow of the handler's own page is filled before, so that it is not counted.
    g.smod(load8(map.umodEvent), mov('rax', map.retu), jmpRax);
    g.vcpu.rip = BigInt(map.smodCode);
    g.run();
    expect(g.haltedAt).toBe(map.lstar);
    return { exits: Object.fromEntries(g.ledger.entries().map((e) => [`${e.reason} ${e.sub}`.trim(), e.count])), switches: g.ledger.worldSwitches().total };
  }

  it.each(LEVELS)('for n = %i, what the formula says', async (n) => {
    const [base, all] = [await run(n, ALIAS), await run(n, FAULTING)];
    expect(difference(all.exits, base.exits)).toEqual({ ...beside, '#PF table write': n });
    expect(all.switches - base.switches).toBe(switches(n));
  });
});

/** Frames of a stock guest: the alias touches `warm`, which maps `neighbour` as well where pages have 2 MiB, but not `cold`. */
const FRAMES = { warm: 0x7f_f000, neighbour: 0x7f_e000, cold: 0x80_0000 } as const;

/** A stock kernel that touches the alias and then `address`; its handler of #PF fills in the lowest `n` levels, down to `frame`, and returns. */
function faultingKernel(n: number, address: number, frame: number): Uint8Array {
  const [PML4, TABLES] = [0x9000, 0x50_0000];
  const wanted = path(PML4, TABLES, SLOT, 0, frame);
  const before = [...path(PML4, TABLES, ALIAS_SLOT, 1, FRAMES.warm), ...wanted.slice(0, 4 - n)];
  // push rax; ...; pop rax; add rsp, 8; iretq
  const handler = [0x50, ...wanted.slice(4 - n).flatMap(write), 0x58, 0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf];
  return stockKernel([...start, ...before.flatMap(write), ...load8(ALIAS), ...store8(address), ...powerOff], { 14: handler });
}

describe.each(LEVELS)('a stock kernel that faults with %i absent levels', (n) => {
  it.each([
    ['bare', 'cold', {}],
    ['kvm-ept', 'neighbour', {}],
    // An EPT violation, two world switches: the frame is touched for the first time.
    ['kvm-ept', 'cold', { 'EPT_VIOLATION write': 1 }],
  ] as const)('under %s, at a %s frame, has the exits %o', async (design, frame, expected) => {
    const exitsAt = async (address: number) => {
      const { result, exits } = await runStock({ design, kernel: faultingKernel(n, address, FRAMES[frame]) });
      expect(result.stopReason).toBe('poweroff');
      return exits;
    };
    expect(difference(await exitsAt(FAULTING), await exitsAt(ALIAS))).toEqual(expected);
  });
});
