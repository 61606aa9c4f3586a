import { describe, expect, it } from 'vitest';
import { load8, mov, store } from '../testing/assemble.ts';
import { map, NativeGuest, type NativeGuestOptions } from '../testing/native-guest.ts';

/**
 * Faults and system calls of user mode under an unmodified kernel, without and with isolated page tables (KPTI): then user mode has a table of its own, which of the
 * kernel maps only what an entry needs, and CR3 is loaded at each entry and at each return. Exits are counted against the same guest without the fault or call.
 */
const KERNEL_CR3 = 0x1000;
/** The table of user mode: four levels, and what it maps of the first 2 MiB. */
const USER_CR3 = 0x2_0000;
const USER_PAGES = [map.code, map.gdt, map.tss, map.idt, map.handlers, map.handlers + 0x1000, map.lstar, map.kernelStack - 0x1000, map.stack - 0x1000];
/** The rest of the handler of #PF, which only the kernel's table maps, and the way back, which both do. */
const BODY = 0xd800;
const RETURN = 0xe400;
const FLAG = 0xd000;
/** Addresses that user mode touches: the first is mapped, the second faults to warm up the handler's pages, the third is the one measured. */
const [ALIAS_SLOT, WARM_SLOT, SLOT] = [9, 10, 8];
const ALIAS = ALIAS_SLOT * 2 ** 39 + 2 ** 30 + 2 ** 21 + 2 ** 12;
const WARM = WARM_SLOT * 2 ** 39;
const FAULTING = SLOT * 2 ** 39;
const TABLES = 0x12_0000;
const WARM_TABLES = 0x13_0000;
const FRAME = 0x14_0000;
/** Present, writable, for user mode, accessed and dirty. */
const ENTRY = 0x67;
const LEVELS = [1, 2, 3, 4] as const;

const hex = (bytes: readonly number[]): string => Buffer.from(bytes).toString('hex');
const rel32 = (at: number, to: number): number[] => Array.from({ length: 4 }, (_, i) => ((to - at - 4) >> (8 * i)) & 0xff);
const loadCr3 = (value: number): number[] => [...mov('rax', value), 0x0f, 0x22, 0xd8];
const store8 = (at: number): number[] => [0xa2, ...mov('rax', at).slice(2)];
/** To user mode at map.user, interrupts off: push SS, RSP, RFLAGS, CS, RIP; iretq. */
const ENTER_USER = Buffer.from('6a236800f0100068020000006a2b680000100048cf', 'hex');

interface Entry {
  readonly at: number;
  readonly value: number;
}
/** Entries on the path of an address, the top level's first. */
function path(tables: number, slot: number, index: number, frame: number): readonly Entry[] {
  const table = (n: number) => tables + n * 0x1000;
  const entry = (at: number, i: number, to: number) => ({ at: at + 8 * i, value: to | ENTRY });
  return [entry(KERNEL_CR3, slot, table(0)), entry(table(0), index, table(1)), entry(table(1), index, table(2)), entry(table(2), index, frame)];
}
/** A kernel with isolated tables enters what concerns user mode in both top-level tables. */
const copies = (entries: readonly Entry[], isolated: boolean): readonly Entry[] =>
  entries.flatMap((e) => (isolated && e.at >> 12 === KERNEL_CR3 >> 12 ? [e, { at: e.at - KERNEL_CR3 + USER_CR3, value: e.value }] : [e]));
const write = ({ at, value }: Entry): number[] => [...mov('rax', value), ...store(at)];

interface Counts {
  readonly exits: Readonly<Record<string, number>>;
  readonly switches: number;
}
function difference(all: Counts, base: Counts): Counts {
  const rows = Object.entries(all.exits).map(([name, count]) => [name, count - (base.exits[name] ?? 0)] as const);
  return { exits: Object.fromEntries(rows.filter(([, count]) => count !== 0)), switches: all.switches - base.switches };
}

/** Runs user code until its CLI, which is #GP and halts the kernel. `n`: levels that the handler fills in for FAULTING. */
async function run(options: NativeGuestOptions, isolated: boolean, n: number, user: readonly number[]): Promise<Counts> {
  const guest = (await NativeGuest.create(options)).startKernel(hex([...(isolated ? loadCr3(USER_CR3) : []), ...ENTER_USER]));
  const { view } = guest.ram;
  const put64 = ({ at, value }: Entry) => view.setBigUint64(at, BigInt(value), true);
  const wanted = path(TABLES, SLOT, 0, FRAME);
  const warm = path(WARM_TABLES, WARM_SLOT, 0, FRAME + 0x1000);
  for (const entry of copies([...path(TABLES, ALIAS_SLOT, 1, FRAME + 0x2000), ...warm.slice(0, 3), ...wanted.slice(0, 4 - n)], isolated)) put64(entry);
  if (isolated) {
    for (let level = 0; level < 3; level++) put64({ at: USER_CR3 + level * 0x1000, value: (USER_CR3 + (level + 1) * 0x1000) | ENTRY });
    const pages = [...USER_PAGES.map((at) => ({ at, rights: 0x63 })), ...Array.from({ length: 16 }, (_, i) => ({ at: map.user + i * 0x1000, rights: ENTRY }))];
    for (const { at, rights } of pages) put64({ at: USER_CR3 + 0x3000 + 8 * (at >> 12), value: at | rights });
  }
  const enter = [0x50, ...(isolated ? loadCr3(KERNEL_CR3) : [])];
  const fault = map.handlers + 32 * 14;
  guest.put(fault, hex([...enter, 0xe9, ...rel32(fault + enter.length + 1, BODY)]));
  // cmp byte [FLAG], 0; jne second; inc byte [FLAG]; ...; jmp out; second: ...; out: jmp RETURN
  const first = [...write(warm[3] ?? { at: 0, value: 0 }), 0xe9, ...rel32(0, 0)];
  const second = copies(wanted.slice(4 - n), isolated).flatMap(write);
  first.splice(-4, 4, ...rel32(0, second.length + 4));
  const flag = [FLAG & 0xff, FLAG >> 8, 0, 0];
  const count = [0xfe, 0x04, 0x25, ...flag];
  const body = [0x80, 0x3c, 0x25, ...flag, 0x00, 0x0f, 0x85, ...rel32(0, count.length + first.length + 4), ...count, ...first, ...second];
  guest.put(BODY, hex([...body, 0xe9, ...rel32(BODY + body.length + 1, RETURN)]));
  // pop rax; add rsp, 8; iretq
  guest.put(RETURN, hex([...(isolated ? loadCr3(USER_CR3) : []), 0x58, 0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf]));
  // The system call that does nothing: sysretq.
  guest.put(map.lstar, hex([...(isolated ? [...loadCr3(KERNEL_CR3), ...loadCr3(USER_CR3)] : []), 0x48, 0x0f, 0x07]));
  guest.put(map.user, hex([...load8(ALIAS), ...load8(WARM), ...user, 0xfa]));
  guest.run();
  expect(Number(guest.core.getRip(0)) - 1).toBe(map.handlers + 32 * 13);
  const exits: Record<string, number> = {};
  for (const e of guest.ledger.entries()) exits[`${e.reason} ${e.sub}`.trim()] = (exits[`${e.reason} ${e.sub}`.trim()] ?? 0) + e.count;
  return { exits, switches: guest.ledger.worldSwitches().total };
}

interface Way {
  readonly options: NativeGuestOptions;
  /** Exits of a fault with `n` absent levels, whose handler writes `writes` entries. */
  fault(n: number, writes: number): Readonly<Record<string, number>>;
  /** World switches that such a fault costs beside the two of each write: without and with isolation. */
  readonly switches: readonly [plain: number, isolated: number];
  /** How a load of CR3 leaves, if it does. */
  readonly cr3: string | undefined;
  /** The same for the load on the way back from a fault's handler, where it has another name. */
  readonly cr3Return?: string;
  /** World switches of a system call without an exit. */
  readonly syscall: number;
  /** Exits of a system call beside the loads of CR3. */
  readonly syscallExits: Readonly<Record<string, number>>;
}
const table = (writes: number, name: string) => (writes === 0 ? {} : { [name]: writes });
const WAYS: readonly Way[] = [
  { options: { design: 'bare' }, fault: () => ({}), switches: [0, 0], cr3: undefined, syscall: 0, syscallExits: {} },
  { options: { design: 'kvm-ept' }, fault: () => ({}), switches: [0, 0], cr3: undefined, syscall: 0, syscallExits: {} },
  {
    options: { design: 'kvm-spt', unsync: false },
    fault: (_n, writes) => ({ 'EXCEPTION_NMI #PF guest': 1, 'EXCEPTION_NMI #PF shadow': 1, ...table(writes, 'EXCEPTION_NMI #PF table write') }),
    switches: [4, 8],
    cr3: 'CR_ACCESS MOV CR3',
    syscall: 0,
    syscallExits: {},
  },
  {
    // The last level goes out of step at the first write, by an exit as well.
    options: { design: 'kvm-spt', unsync: true },
    fault: (_n, writes) => ({
      'EXCEPTION_NMI #PF guest': 1,
      'EXCEPTION_NMI #PF shadow': 1,
      'EXCEPTION_NMI #PF unsync': 1,
      ...table(writes - 1, 'EXCEPTION_NMI #PF table write'),
    }),
    switches: [4, 8],
    cr3: 'CR_ACCESS MOV CR3',
    // It brings the table that the handler wrote in step.
    cr3Return: 'CR_ACCESS MOV CR3, unsync resync',
    syscall: 0,
    syscallExits: {},
  },
  {
    options: { design: 'pvm', stock: 'auto', prefault: true },
    fault: (_n, writes) => ({ '#PF guest': 1, ERETU: 1, ...table(writes, '#PF table write') }),
    switches: [4, 8],
    cr3: 'HYPERCALL LOAD_PGTBL',
    syscall: 2,
    syscallExits: {},
  },
  {
    options: { design: 'pvm', stock: 'auto', prefault: false },
    fault: (_n, writes) => ({ '#PF guest': 1, '#PF shadow': 1, ...table(writes, '#PF table write') }),
    switches: [5, 9],
    cr3: 'HYPERCALL LOAD_PGTBL',
    syscall: 2,
    syscallExits: {},
  },
  {
    options: { design: 'pvm', stock: 'auto', prefault: false, directSwitch: false },
    fault: (_n, writes) => ({ '#PF guest': 1, ERETU: 1, '#PF shadow': 1, ...table(writes, '#PF table write') }),
    switches: [6, 10],
    cr3: 'HYPERCALL LOAD_PGTBL',
    syscall: 0,
    syscallExits: { SYSCALL: 1, ERETU: 1 },
  },
  {
    options: { design: 'pvm', stock: 'trap', prefault: true },
    fault: (_n, writes) => ({ '#PF guest': 1, '#GP IRET': 1, ...table(writes, '#PF table write') }),
    switches: [4, 8],
    cr3: '#GP MOV to CR3',
    syscall: 0,
    syscallExits: { SYSCALL: 1, '#GP SYSRET': 1 },
  },
];

describe.each(WAYS)('under $options', ({ options, fault, switches, cr3, cr3Return, syscall, syscallExits }) => {
  const isolations = [
    ['shared', false],
    ['isolated', true],
  ] as const;
  const cr3Loads = (isolated: boolean, n: number) => (isolated && cr3 !== undefined ? { [cr3]: n } : {});

  it.each(isolations.flatMap(([name, isolated]) => LEVELS.map((n) => [n, name, isolated] as const)))(
    'a fault of user mode with %i absent levels and %s tables costs what the formula says',
    async (n, _name, isolated) => {
      // The entry of the top level is written twice when user mode has a table of its own.
      const writes = n + (isolated && n === 4 ? 1 : 0);
      const [base, all] = [await run(options, isolated, n, store8(ALIAS)), await run(options, isolated, n, store8(FAULTING))];
      const exits = fault(n, writes);
      const isFree = Object.keys(exits).length === 0;
      expect(difference(all, base)).toEqual({
        exits: { ...exits, ...(cr3Return === undefined ? cr3Loads(isolated, 2) : { ...cr3Loads(isolated, 1), ...(isolated ? { [cr3Return]: 1 } : {}) }) },
        switches: isFree ? 0 : 2 * writes + switches[isolated ? 1 : 0],
      });
    },
  );

  it.each(isolations)('a system call with %s tables does, too', async (_name, isolated) => {
    const call = [0x0f, 0x05];
    const [base, all] = [await run(options, isolated, 1, call), await run(options, isolated, 1, [...call, ...call, ...call])];
    const exits = { ...syscallExits, ...cr3Loads(isolated, 2) };
    const counted = Object.values(exits).reduce((sum, count) => sum + count, 0);
    expect(difference(all, base)).toEqual({
      exits: Object.fromEntries(Object.entries(exits).map(([name, count]) => [name, 2 * count])),
      switches: 2 * (2 * counted + syscall),
    });
  });
});
