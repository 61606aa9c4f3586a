import { describe, expect, it } from 'vitest';
import { MODE_LA57, MODE_NX, MODE_SMEP } from './index.ts';
import { TestMachine } from './testing/machine.ts';

/*
 * The classes of bugs a shadow MMU must not have (numbers as in the project's list), for PVM's pairs of roots and for several vCPUs. The same classes in every other
 * mode, and which mode lacks which mechanism: bug-classes-all-modes.test.ts.
 */

const P = 1n;
const W = 2n;
const U = 4n;
const A = 0x20n;
const D = 0x40n;
const PS = 0x80n;
const NX = 1n << 63n;
const ALL = P | W | U | A | D;
const MODE = MODE_NX | MODE_SMEP;
const ROOT = 0x1000;
const PDPT = 0x2000;
const PD = 0x3000;
const PT = 0x4000;
const ROOT2 = 0x5000;
const PDPT2 = 0x6000;
const PD2 = 0x7000;
const PT2 = 0x8000;
const DATA = 0x40_0000;
const USER = true;
const KERNEL = false;

/** A machine with ROOT loaded, which maps DATA at 0 through PDPT, PD and PT, everything allowed. */
function machineWithPage(options: ConstructorParameters<typeof TestMachine>[0] = {}): TestMachine {
  const machine = new TestMachine(options);
  set(machine, ROOT, 0, PDPT);
  set(machine, PDPT, 0, PD);
  set(machine, PD, 0, PT);
  set(machine, PT, 0, DATA);
  for (let vcpu = 0; vcpu < machine.vcpus; vcpu++) machine.load(ROOT, MODE, { vcpu });
  return machine;
}

function set(machine: TestMachine, table: number, index: number, address: number, flags = ALL): void {
  machine.store(table + index * 8, BigInt(address) | flags);
}

/** Virtual address of the entries of each level. */
function va(l4: number, l3 = 0, l2 = 0, l1 = 0): bigint {
  return BigInt.asUintN(64, BigInt.asIntN(48, (BigInt(l4) << 39n) | (BigInt(l3) << 30n) | (BigInt(l2) << 21n) | (BigInt(l1) << 12n)));
}

function finish(machine: TestMachine): void {
  machine.checkTlbs();
  machine.mmu.check();
}

describe('bug classes of shadow paging', () => {
  it('1: a table shared under parents with different rights gives each path its own rights (CVE-2021-38198)', () => {
    const machine = machineWithPage();
    set(machine, ROOT, 1, PDPT, ALL & ~W);
    set(machine, ROOT, 2, PDPT, ALL & ~U);
    set(machine, ROOT, 3, PDPT, ALL | NX);
    for (const order of [
      [0, 1, 2, 3],
      [3, 2, 1, 0],
    ]) {
      machine.mmu.zapAll();
      for (const top of order) {
        for (const user of [USER, KERNEL]) for (const kind of ['read', 'write', 'exec'] as const) machine.expect(user, va(top), kind);
      }
    }
    expect(machine.expect(USER, va(1), 'write')).toEqual({ kind: 'fault', code: 7 });
    expect(machine.expect(USER, va(2), 'read')).toEqual({ kind: 'fault', code: 5 });
    expect(machine.expect(USER, va(3), 'exec')).toEqual({ kind: 'fault', code: 21 });
    finish(machine);
  });

  it('1: two roots that share a table give it the rights of their own upper levels', () => {
    const machine = machineWithPage();
    set(machine, ROOT2, 0, PDPT2);
    set(machine, PDPT2, 0, PD, ALL & ~W);
    expect(machine.expect(USER, va(0), 'write').kind).toBe('ram');
    machine.load(ROOT2, MODE);
    expect(machine.expect(USER, va(0), 'read').kind).toBe('ram');
    expect(machine.expect(USER, va(0), 'write')).toEqual({ kind: 'fault', code: 7 });
    machine.load(ROOT, MODE);
    expect(machine.expect(USER, va(0), 'write').kind).toBe('ram');
    finish(machine);
  });

  for (const largePages of [true, false]) {
    const how = largePages ? 'large shadow leaves' : 'direct shadow pages';

    it(`4: a read-only and a writable directory entry for one large page do not share rights (${how})`, () => {
      const machine = machineWithPage({ largePages });
      set(machine, PD, 1, DATA, ALL | PS);
      set(machine, PD, 2, DATA, (ALL | PS) & ~W);
      for (const entry of [1, 2, 1, 2]) {
        machine.expect(USER, va(0, 0, entry, 5), 'read');
        expect(machine.expect(USER, va(0, 0, entry, 5), 'write').kind).toBe(entry === 1 ? 'ram' : 'fault');
      }
      finish(machine);
    });

    it(`5: a write fault does not make a large page writable that the guest holds read-only (${how})`, () => {
      const machine = machineWithPage({ largePages });
      set(machine, PD, 1, DATA, (ALL | PS) & ~D);
      machine.expect(USER, va(0, 0, 1, 3), 'read');
      expect(machine.expect(USER, va(0, 0, 1, 3), 'write').kind).toBe('ram');
      set(machine, PD, 1, DATA, (ALL | PS) & ~W);
      for (let page = 0; page < 8; page++) expect(machine.expect(USER, va(0, 0, 1, page), 'write')).toEqual({ kind: 'fault', code: 7 });
      finish(machine);
    });

    it(`7: a large page replaced by another large page leaves no reverse map behind (${how})`, () => {
      const machine = machineWithPage({ largePages });
      set(machine, PD, 1, DATA, ALL | PS);
      machine.expect(USER, va(0, 0, 1, 3), 'write', 1n);
      set(machine, PD, 1, 0x20_0000, ALL | PS);
      expect(machine.expect(USER, va(0, 0, 1, 3), 'write', 2n)).toMatchObject({ hpa: machine.gpaToHpa(0x20_3000) });
      // The old frame becomes a table: whatever still mapped it would be found by its reverse map and made read-only.
      set(machine, DATA + 0x3000, 0, DATA);
      set(machine, PD, 2, DATA + 0x3000);
      machine.expect(USER, va(0, 0, 2, 0), 'read');
      // Now a large page that holds the page tables: a write there must not go through the old large entry.
      set(machine, PD, 1, 0, ALL | PS);
      machine.mmu.check();
      machine.expect(USER, va(0, 0, 1, PT >> 12), 'write', 0n);
      expect(machine.expect(USER, va(0), 'read').kind).toBe('fault');
      finish(machine);
    });

    it(`8: a large page replaced by a table is not walked through the old child (${how})`, () => {
      const machine = machineWithPage({ largePages });
      set(machine, PD, 1, 0, ALL | PS); // contains the tables, so it is always split
      expect(machine.expect(USER, va(0, 0, 1, 0), 'read')).toMatchObject({ hpa: machine.gpaToHpa(0) });
      set(machine, PT2, 0, DATA);
      set(machine, PD, 1, PT2);
      expect(machine.expect(USER, va(0, 0, 1, 0), 'read')).toMatchObject({ hpa: machine.gpaToHpa(DATA) });
      expect(machine.expect(USER, va(0, 0, 1, 1), 'read').kind).toBe('fault');
      set(machine, PD, 1, 0, ALL | PS);
      expect(machine.expect(USER, va(0, 0, 1, 1), 'read')).toMatchObject({ hpa: machine.gpaToHpa(0x1000) });
      finish(machine);
    });

    it(`12: a page table inside a large page cannot be written behind the monitor's back (XSA-148, ${how})`, () => {
      const machine = machineWithPage({ largePages });
      set(machine, PD, 1, 0, ALL | PS);
      machine.expect(USER, va(0), 'read');
      // Through the large mapping, replace the page-table entry that translates the page just read.
      const entry = BigInt(DATA + 0x1000) | ALL;
      for (let byte = 0; byte < 8; byte++) machine.expect(USER, va(0, 0, 1, PT >> 12) | BigInt(byte), 'write', (entry >> BigInt(byte * 8)) & 0xffn);
      expect(machine.expect(USER, va(0), 'read')).toMatchObject({ hpa: machine.gpaToHpa(DATA + 0x1000) });
      // A frame that is only now put to use as a table loses its writable large mapping.
      set(machine, PD, 2, DATA, ALL | PS);
      machine.expect(USER, va(0, 0, 2, 7), 'write');
      machine.store(DATA + 0x7000, BigInt(DATA) | ALL);
      set(machine, PD, 3, DATA + 0x7000);
      machine.expect(USER, va(0, 0, 3, 0), 'read');
      machine.expect(USER, va(0, 0, 2, 7), 'write', 0n);
      expect(machine.expect(USER, va(0, 0, 3, 0), 'read').kind).toBe('fault');
      finish(machine);
    });
  }

  it('6: clearing the dirty bit under a cached writable translation makes the next write set it again', () => {
    const machine = machineWithPage();
    machine.expect(USER, va(0), 'write');
    set(machine, PT, 0, DATA, ALL & ~D);
    machine.expect(USER, va(0), 'write');
    expect(machine.read(PT) & D).toBe(D);
    set(machine, PT, 0, DATA, ALL & ~W);
    expect(machine.read(PT) & D).toBe(D);
    expect(machine.expect(USER, va(0), 'write')).toEqual({ kind: 'fault', code: 7 });
    set(machine, PT, 0, DATA, ALL & ~A & ~D);
    machine.expect(KERNEL, va(0), 'read');
    expect(machine.read(PT) & (A | D)).toBe(A);
    finish(machine);
  });

  it('9: filling the pool during faults never takes the roots in use, and what it takes is built again', () => {
    const machine = machineWithPage({ vcpus: 2, poolFrames: 64, prefetch: 1 });
    // 40 last-level tables, each a frame of its own, below one directory.
    for (let i = 0; i < 40; i++) {
      set(machine, 0x2_0000 + i * 0x1000, 0, DATA + i * 0x1000);
      set(machine, PD, i, 0x2_0000 + i * 0x1000);
    }
    const roots = [0, 1].flatMap((vcpu) => [machine.mmu.kernelRoot(vcpu), machine.mmu.userRoot(vcpu)]);
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 40; i++) {
        machine.expect(USER, va(0, 0, i), 'write', 0n, round & 1);
        machine.expect(KERNEL, va(0, 0, i), 'read', 0n, 1 - (round & 1));
      }
      finish(machine);
    }
    expect(machine.mmu.stats().pagesReclaimed).toBeGreaterThan(20);
    expect([0, 1].flatMap((vcpu) => [machine.mmu.kernelRoot(vcpu), machine.mmu.userRoot(vcpu)])).toEqual(roots);
  });

  it('10: a page remapped from RAM to MMIO has no shadow entry left, and back', () => {
    const machine = machineWithPage();
    machine.expect(KERNEL, va(0), 'write');
    set(machine, PT, 0, 0xfee0_0000);
    expect(machine.expect(KERNEL, va(0), 'write')).toEqual({ kind: 'mmio', gpa: 0xfee0_0000 });
    set(machine, PT, 0, DATA);
    expect(machine.expect(KERNEL, va(0), 'write')).toMatchObject({ hpa: machine.gpaToHpa(DATA) });
    finish(machine);
  });

  it('11: accessed and dirty bits are set in the very entries walked, also in tables above 4 GiB', () => {
    const machine = machineWithPage();
    const high = 0x1_0000_0000;
    set(machine, high, 3, DATA, P | W | U);
    set(machine, PD, 1, high, P | W | U);
    machine.expect(USER, va(0, 0, 1, 3), 'read');
    expect(machine.read(high + 24)).toBe(BigInt(DATA) | P | W | U | A);
    machine.expect(USER, va(0, 0, 1, 3), 'write');
    expect(machine.read(high + 24)).toBe(BigInt(DATA) | ALL);
    expect(machine.read(PD + 8)).toBe(BigInt(high) | P | W | U | A);
    expect(machine.read(24)).toBe(0n);
    finish(machine);
  });

  it('12: the large-page bit where it is reserved is a reserved-bit fault, not a mapping', () => {
    const machine = machineWithPage();
    set(machine, ROOT, 1, PDPT, ALL | PS);
    set(machine, PDPT, 1, 0x2000, ALL | PS); // 1 GiB page that is not aligned
    set(machine, PD, 1, DATA + 0x2000, ALL | PS);
    for (const address of [va(1), va(0, 1), va(0, 0, 1)]) expect(machine.expect(USER, address, 'read')).toEqual({ kind: 'fault', code: 13 });
    finish(machine);
  });

  it('13: self-referencing and mutually referencing tables are shadowed level by level and can be torn down (XSA-240, XSA-309)', () => {
    const machine = machineWithPage({ prefetch: 1 });
    set(machine, ROOT, 510, ROOT);
    set(machine, PDPT, 510, PDPT);
    set(machine, PD, 510, PT);
    set(machine, PT, 510, PD);
    for (const a of [0, 510]) for (const b of [0, 510]) for (const c of [0, 510]) for (const d of [0, 510]) machine.expect(KERNEL, va(a, b, c, d), 'read');
    // The linear map shows the tables, and writing them there is emulated.
    const page = va(510, 510, 510, 510);
    expect(machine.expect(KERNEL, page, 'read')).toMatchObject({ hpa: machine.gpaToHpa(ROOT) });
    machine.expect(KERNEL, page | BigInt(510 * 8), 'write', 0n);
    expect(machine.expect(KERNEL, page, 'read').kind).toBe('fault');
    machine.mmu.zapAll();
    finish(machine);
    expect(machine.mmu.stats().framesFree).toBe(61);
  });

  it('13: tables nested so that one page has 2^27 addresses cost neither time nor a stale translation', () => {
    const machine = machineWithPage();
    for (const [table, next] of [
      [ROOT, PDPT],
      [PDPT, PD],
      [PD, PT],
      [PT, DATA],
    ] as const) {
      for (let i = 0; i < 200; i++) set(machine, table, i, next);
    }
    for (let i = 0; i < 200; i++) machine.expect(USER, va(i, i, i, i), 'write');
    for (let i = 0; i < 200; i++) for (let j = 0; j < 200; j += 23) machine.expect(USER, va(j, i, j, i), 'write');
    const start = performance.now();
    machine.store(PT, 0n);
    machine.checkTlbs();
    set(machine, DATA, 0, DATA);
    set(machine, PD, 0, DATA); // DATA becomes a table: every writable mapping of it goes
    machine.expect(USER, va(0, 0, 0, 0), 'read');
    expect(performance.now() - start).toBeLessThan(2_000);
    finish(machine);
  });

  for (const [level, table] of [ROOT, PDPT, PD, PT].entries()) {
    for (const [what, flags] of [
      ['not present', 0n],
      ['read-only', ALL & ~W],
      ['supervisor', ALL & ~U],
      ['no-execute', ALL | NX],
    ] as const) {
      it(`14, 15: making the level-${4 - level} entry ${what} takes effect in every TLB that went through it (XSA-286, XSA-408)`, () => {
        const machine = machineWithPage({ vcpus: 2 });
        for (let page = 1; page < 40; page++) set(machine, PT, page, DATA + page * 0x1000);
        set(machine, ROOT, 7, PDPT); // the same tables again, elsewhere
        for (let page = 0; page < 40; page++) {
          for (const vcpu of [0, 1]) for (const top of [0, 7]) machine.expect(USER, va(top, 0, 0, page), page % 2 === 0 ? 'write' : 'exec', 0n, vcpu);
        }
        machine.store(table, flags === 0n ? 0n : (machine.read(table) & ~(ALL | NX)) | flags);
        machine.checkTlbs();
        for (let page = 0; page < 40; page++)
          for (const top of [0, 7]) for (const kind of ['read', 'write', 'exec'] as const) machine.expect(USER, va(top, 0, 0, page), kind, 0n, 1);
        finish(machine);
      });
    }
  }

  it('16: a mapping removed while another root was current is not usable after a switch back without flush (XSA-294)', () => {
    const machine = machineWithPage();
    set(machine, ROOT2, 0, PDPT2);
    set(machine, PDPT2, 0, PD2);
    set(machine, PD2, 0, PT2);
    set(machine, PT2, 0, DATA + 0x1000);
    machine.expect(USER, va(0), 'write');
    machine.load(ROOT2, MODE, { flush: false });
    expect(machine.expect(USER, va(0), 'write')).toMatchObject({ hpa: machine.gpaToHpa(DATA + 0x1000) });
    machine.store(PT, 0n);
    machine.load(ROOT, MODE, { flush: false });
    expect(machine.expect(USER, va(0), 'read')).toEqual({ kind: 'fault', code: 4 });
    finish(machine);
  });

  it('17: with more address spaces than slots and frames, the running roots stay and every space translates right (XSA-438, XSA-494)', () => {
    const machine = machineWithPage({ vcpus: 2, poolFrames: 64, prefetch: 1 });
    const spaces = 40;
    for (let i = 0; i < spaces; i++) {
      const [root, pdpt, pd, pt] = [0, 1, 2, 3].map((n) => 0x10_0000 + (i * 4 + n) * 0x1000) as [number, number, number, number];
      set(machine, root, 0, pdpt);
      set(machine, pdpt, 0, pd);
      set(machine, pd, 0, pt);
      set(machine, pt, 0, DATA + i * 0x1000);
    }
    for (let turn = 0; turn < 200; turn++) {
      const i = (turn * 7) % spaces;
      machine.load(0x10_0000 + i * 0x4000, MODE, { vcpu: 0 });
      expect(machine.expect(USER, va(0), 'write')).toMatchObject({ hpa: machine.gpaToHpa(DATA + i * 0x1000) });
      expect(machine.expect(KERNEL, va(0), 'read', 0n, 1)).toMatchObject({ hpa: machine.gpaToHpa(DATA) });
      if (turn % 20 === 0) finish(machine);
    }
    expect(machine.mmu.stats().pagesReclaimed).toBeGreaterThan(0);
  });

  it('17: loading a root that is not RAM leaves an empty table current, not the old one', () => {
    const machine = machineWithPage();
    machine.expect(USER, va(0), 'write');
    machine.load(0x5000_0000, MODE);
    expect(machine.mmu.userRoot(0)).toBe(machine.poolBase);
    expect(machine.expect(USER, va(0), 'write')).toEqual({ kind: 'fault', code: 15 });
    machine.load(ROOT, MODE);
    expect(machine.expect(USER, va(0), 'write').kind).toBe('ram');
    finish(machine);
  });

  it('18: a root released and rewritten by one vCPU stays safe for another that still has it loaded', () => {
    const machine = machineWithPage({ vcpus: 2 });
    set(machine, ROOT2, 0, PDPT2);
    machine.expect(USER, va(0), 'write', 0n, 1);
    machine.load(ROOT2, MODE, { vcpu: 0 });
    const root = machine.mmu.userRoot(1);
    // vCPU 0 frees the tables of the old space and fills them with data.
    for (const table of [PT, PD, PDPT, ROOT]) for (let i = 0; i < 512; i++) machine.store(table + i * 8, 0x4141_4141_4141_4140n);
    expect(machine.mmu.userRoot(1)).toBe(root);
    expect(machine.expect(USER, va(0), 'read', 0n, 1)).toEqual({ kind: 'fault', code: 4 });
    machine.load(ROOT2, MODE, { vcpu: 1 });
    finish(machine);
  });

  it('19: both roots of a pair stay valid for the direct switch whatever happens to the other pages, and are empty after zapAll', () => {
    const machine = machineWithPage({ prefetch: 1 });
    machine.expect(USER, va(0), 'write');
    machine.expect(KERNEL, va(0), 'write');
    const pair = [machine.mmu.kernelRoot(0), machine.mmu.userRoot(0)];
    machine.mmu.zapGfn(ROOT);
    machine.mmu.zapAll();
    expect([machine.mmu.kernelRoot(0), machine.mmu.userRoot(0)]).toEqual(pair);
    for (const root of pair) for (let i = 0; i < 512; i++) expect(machine.view.getBigUint64(root + i * 8, true)).toBe(0n);
    expect(machine.expect(USER, va(0), 'write').kind).toBe('ram');
    finish(machine);
  });

  it('19: after a restore no root of before is left: reset leaves only the empty table until the next load', () => {
    const machine = machineWithPage();
    machine.expect(USER, va(0), 'write');
    const memory = new Uint8Array(machine.view.buffer.slice(machine.ramBase));
    machine.store(PT, BigInt(DATA + 0x1000) | ALL);
    machine.expect(USER, va(0), 'write');
    machine.mmu.reset();
    new Uint8Array(machine.view.buffer).set(memory, machine.ramBase);
    expect([machine.mmu.slot(0), machine.mmu.kernelRoot(0), machine.mmu.userRoot(0)]).toEqual([-1, machine.poolBase, machine.poolBase]);
    machine.load(ROOT, MODE);
    expect(machine.expect(USER, va(0), 'write')).toMatchObject({ hpa: machine.gpaToHpa(DATA) });
    finish(machine);
  });
});

describe('PVM rules', () => {
  it('the kernel shadow reads and writes user pages but executes them only without SMEP', () => {
    const machine = machineWithPage();
    machine.expect(KERNEL, va(0), 'write');
    expect(machine.expect(KERNEL, va(0), 'exec')).toEqual({ kind: 'fault', code: 17 });
    machine.load(ROOT, MODE_NX);
    expect(machine.expect(KERNEL, va(0), 'exec').kind).toBe('ram');
    machine.load(ROOT, MODE_SMEP);
    expect(machine.expect(KERNEL, va(0), 'exec').kind).toBe('ram');
    finish(machine);
  });

  it('an address outside the legal ranges translates nothing, whatever the guest maps there', () => {
    const machine = machineWithPage();
    set(machine, ROOT, 300, PDPT);
    expect(machine.expect(KERNEL, va(300), 'read').kind).toBe('ram');
    machine.illegal = (address) => address >= va(300) && address < va(301);
    machine.mmu.zapAll();
    expect(machine.expect(KERNEL, va(300), 'read')).toEqual({ kind: 'fault', code: 0 });
    finish(machine);
  });

  it('with five levels, a level-4 table shared below entry 511 does not carry legal entries to illegal addresses', () => {
    const machine = machineWithPage();
    const root5 = ROOT2;
    set(machine, root5, 0, ROOT);
    set(machine, root5, 511, ROOT);
    set(machine, ROOT, 1, PDPT);
    // Of the entries below 511, which sign-extend to the top of the address space, only PML4 slot 1 is legal.
    const top = 0xffff_0000_0000_0000n;
    machine.illegal = (address) => address >= top && address >> 39n !== (top >> 39n) + 1n;
    machine.load(root5, MODE | MODE_LA57);
    expect(machine.expect(KERNEL, 0n, 'read').kind).toBe('ram');
    expect(machine.expect(KERNEL, top + (1n << 39n), 'read').kind).toBe('ram');
    expect(machine.expect(KERNEL, top, 'read')).toEqual({ kind: 'fault', code: 0 });
    finish(machine);
  });

  it('prefault fills what the guest has marked and never marks anything itself', () => {
    const machine = machineWithPage();
    set(machine, PT, 1, DATA + 0x1000, P | W | U);
    expect(machine.mmu.prefault(0, 1, 0x1000, 0, 0)).toBe(false);
    expect(machine.read(PT + 8)).toBe(BigInt(DATA + 0x1000) | P | W | U);
    expect(machine.mmu.prefault(0, 1, 0, 0, 1)).toBe(true);
    const before = machine.mmu.stats().faultsFixed;
    machine.expect(USER, va(0), 'write');
    expect(machine.mmu.stats().faultsFixed).toBe(before);
    finish(machine);
  });

  it('a page table that is written like data stops being tracked', () => {
    const machine = machineWithPage();
    machine.expect(USER, va(0), 'read');
    for (let i = 0; i < 40; i++) machine.store(PT + 800 + i * 8, 0n);
    expect(machine.mmu.isTracked(machine.gpaToHpa(PT))).toBe(false);
    expect(machine.mmu.stats().pagesFlooded).toBe(1);
    expect(machine.expect(USER, va(0), 'write').kind).toBe('ram');
    finish(machine);
  });
});
