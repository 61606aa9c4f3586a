/**
 * A guest that does at random what guests do to page tables, and checks each of its accesses against the plain walker. Every step depends on the seed and its own
 * number only, so that a failing run can be replayed with steps left out.
 */
import { DATA, gpaToHpa, POINTERS, RAM_BASE, RAM_LOW, TABLES } from './guest-ram.ts';
import type { Tables, WalkerOptions } from './hypervisor-tables.ts';
import { type Access, EXEC, type Paging, PlainGuest, READ, type Verdict, WRITE } from './plain-guest.ts';
import { Random } from './random.ts';
import { randomAddress } from './random-address.ts';
import { WalkerMachine } from './walker-machine.ts';

const SLOTS_64 = [0, 1, 2, 3, 9, 256, 511];
const SLOTS_32 = [0, 1, 2, 3, 9, 512, 1023];
const LARGE = [0, 0x20_0000, 0x40_0000, 0x1_0000_0000, 0x4000_0000];
const NOT_RAM = [0x60_0000, 0xfee0_0000, 0x7_0000_0000];
const NX_HIGH = 0x8000_0000 | 0;
const PAGINGS: readonly Paging[] = ['4-level', '4-level', '4-level', '5-level', 'pae', 'pae', '32-bit', '32-bit', 'off'];
/** Between two checks of the whole structure. */
const CHECK_EVERY = 2_000;

export interface RunOptions extends WalkerOptions {
  tables: Tables;
  seed: number;
}

export class RandomGuest {
  private readonly machine: WalkerMachine;
  private readonly plain: PlainGuest;
  private readonly options: RunOptions;
  private random = new Random(0);
  /** The range under a dirty log, as it was when the log was last taken. */
  private logged: { readonly gpa: number; readonly copy: Int32Array } | undefined;
  private readonly isStrict: boolean;
  /** Number of accesses, of which the low byte is what a write stores. */
  private written = 0;
  /** Accesses by outcome, and those that only a TLB could still allow. */
  readonly counts = { ram: 0, mmio: 0, fault: 0, stale: 0 };

  private constructor(machine: WalkerMachine, options: RunOptions) {
    this.machine = machine;
    this.options = options;
    this.plain = new PlainGuest(machine.memory.buffer, options.tables === 'pvm', machine.mmu !== undefined);
    // These keep the shadow in step with the tables at all times, so that nothing is ever stale.
    this.isStrict = options.tables === 'pvm' || options.tables === 'kvm';
  }

  static async create(options: RunOptions): Promise<RandomGuest> {
    const guest = new RandomGuest(await WalkerMachine.create(options.tables, options), options);
    guest.random = new Random(options.seed);
    for (const table of TABLES)
      for (const slot of new Set([...SLOTS_64, ...SLOTS_32])) guest.store(table + slot * 8 > table + 4095 ? table + slot * 4 : table + slot * 8, 8);
    guest.setRegisters();
    return guest;
  }

  /** Step `number` of the run. @throws Error when an access is not what the tables and the TLB rules allow */
  step(number: number): void {
    this.random = new Random((this.options.seed ^ Math.imul(number, 0x9e37_79b1)) | 0);
    if (this.random.below(100) < 55) this.access();
    else this.change();
    if (number % CHECK_EVERY === 0) this.machine.check();
  }

  // ------------------------------------------------------------ registers
  private setRegisters(): void {
    const { random, plain } = this;
    const { regs } = plain;
    const isPvm = this.options.tables === 'pvm';
    regs.paging = isPvm ? random.pick(['4-level', '4-level', '5-level'] as const) : random.pick(PAGINGS);
    regs.nx = random.chance(85);
    regs.smep = random.chance(50);
    regs.smap = !isPvm && random.chance(30);
    regs.wp = random.chance(75);
    regs.pse = random.chance(80);
    regs.pge = !isPvm && random.chance(50);
    const is64 = regs.paging === '4-level' || regs.paging === '5-level';
    regs.pcide = !isPvm && is64 && random.chance(50);
    regs.cr3 = this.pickCr3();
    regs.pcid = regs.pcide ? random.below(3) : 0;
    this.machine.setRegisters(regs);
    plain.flushAll(true);
  }

  private pickCr3(): number {
    const { random } = this;
    const { paging } = this.plain.regs;
    if (paging === 'pae') return random.pick(POINTERS) + (random.chance(20) ? 32 * random.below(4) : 0);
    if (paging === '32-bit') return random.pick(TABLES) % 2 ** 32;
    // In the second level's case a CR3 outside RAM is a table in device memory.
    if (random.chance(2)) return 0x5000_0000;
    // Two are favourites, so that roots are still cached when they come back.
    return random.pick(random.chance(60) ? TABLES.slice(0, 2) : TABLES);
  }

  private loadCr3(): void {
    const { random, plain } = this;
    const { regs } = plain;
    const cr3 = this.pickCr3();
    const pcid = regs.pcide ? random.below(3) : 0;
    const flush = !regs.pcide || random.chance(50);
    this.machine.loadCr3(cr3, pcid, flush);
    plain.loadCr3(cr3, pcid, flush);
  }

  // ------------------------------------------------------------ changes of tables
  private flags(): number {
    const { random } = this;
    let flags = random.chance(98) ? 1 : 0;
    if (random.chance(94)) flags |= 2;
    if (random.chance(92)) flags |= 4;
    if (random.chance(70)) flags |= 0x20;
    if (random.chance(60)) flags |= 0x40;
    if (random.chance(15)) flags |= 0x100;
    return flags;
  }

  /** A random entry: address and flags; its high word in `entryHigh`. */
  private entryHigh = 0;
  private entry(): number {
    const { random } = this;
    let flags = this.flags();
    let high = random.chance(3) ? NX_HIGH : 0;
    if (random.below(300) === 0) high |= 1 << 18;
    const what = random.below(100);
    let address: number;
    if (what < 66) address = random.pick(TABLES);
    else if (what < 82) address = random.pick(DATA);
    else if (what < 94) {
      flags |= 0x80;
      address = random.pick(LARGE);
    } else if (what < 96) {
      flags |= 0x80;
      address = random.pick(TABLES);
    } else address = random.pick(NOT_RAM);
    // PAE's pointers have no rights.
    if (this.plain.regs.paging === 'pae' && random.chance(25)) flags &= 0x19;
    this.entryHigh = high | Math.floor(address / 2 ** 32);
    return address | flags | 0;
  }

  private slot(): number {
    const { random } = this;
    const { paging } = this.plain.regs;
    if (paging === 'pae' && random.chance(20)) return random.pick(POINTERS) + random.below(16) * 8;
    const is32 = paging === '32-bit';
    return random.pick(TABLES) + (is32 ? random.pick(SLOTS_32) * 4 : random.pick(SLOTS_64) * 8);
  }

  /** Stores a random entry. */
  private store(gpa: number, size: number): void {
    const low = this.entry();
    this.write(gpa, size, low, this.entryHigh);
  }

  private write(gpa: number, size: number, low: number, high: number): void {
    const end = gpa + size - 1;
    if (gpaToHpa(gpa) < 0 || gpaToHpa(end) < 0) return;
    this.machine.store(gpa, size, low, high);
    this.plain.touched(gpaToHpa(gpa));
    this.plain.touched(gpaToHpa(end));
  }

  private entrySize(): number {
    return this.plain.regs.paging === '32-bit' ? 4 : 8;
  }

  private read(gpa: number): [low: number, high: number] {
    const word = gpaToHpa(gpa) >>> 2;
    return [this.machine.words[word] as number, this.machine.words[word + 1] as number];
  }

  private change(): void {
    const { random, machine, plain } = this;
    const at = this.slot();
    const size = this.entrySize();
    const [low, high] = this.read(at);
    switch (random.below(24)) {
      case 0:
        if (random.chance(8)) this.setRegisters();
        else this.loadCr3();
        break;
      case 1:
      case 2:
        this.loadCr3();
        break;
      case 3: // unmap
        this.write(at, size, 0, 0);
        break;
      case 4: // rights, size
        if (random.chance(20) && size === 8) this.write(at, 8, low, high ^ NX_HIGH);
        else this.write(at, size, low ^ random.pick([1, 2, 4, 0x80, 0x100]), high);
        break;
      case 5: // accessed and dirty bits
        this.write(at, size, low & ~random.pick([0x20, 0x40, 0x60]), high);
        break;
      case 6: // a partial or misaligned write, perhaps across two entries or two pages
        this.store(at + random.below(8) - 4, random.pick([1, 2, 4, 8]));
        break;
      case 7: // a page becomes data, and perhaps a table again
        if (!random.chance(10)) break;
        for (let i = 0, base = random.pick(TABLES); i < 12; i++) this.write(base + random.pick(SLOTS_64) * 8, 8, i * 2, 0x5a5a_5a5a);
        break;
      case 8: // a device writes, and says so
        this.dma(at);
        break;
      case 9: {
        // An entry is copied: two tables share what is below.
        const [otherLow, otherHigh] = this.read(this.slot());
        this.write(at, size, otherLow, otherHigh);
        break;
      }
      case 10:
      case 11:
      case 12: {
        const [vaLow, vaHigh] = randomAddress(this.random, this.plain.regs.paging);
        machine.invlpg(vaLow, vaHigh);
        plain.invlpg(vaLow, vaHigh);
        break;
      }
      case 13:
        this.invpcid();
        break;
      case 14: // the hypervisor takes memory back, or goes on from a snapshot
        if (random.below(100) === 0) machine.restart();
        else if (random.chance(10)) this.dirtyLog();
        else this.reclaim();
        break;
      case 15:
        this.split(at, low, high);
        break;
      case 16: // a large page where a table or another large page was
        if (size === 8 && (low & 1) !== 0) this.write(at, 8, (low & 0xfff) | 0x80 | random.pick(LARGE), 0);
        break;
      default:
        this.store(at, size);
    }
  }

  /** INVPCID; of everything only now and then, so that something stays for the TLB to hold. */
  private invpcid(): void {
    const { random, machine, plain } = this;
    const type = random.chance(10) ? random.pick([2, 3]) : random.below(2);
    const pcid = plain.regs.pcide ? random.below(3) : 0;
    const [low, high] = randomAddress(this.random, this.plain.regs.paging);
    // Without PCIDs, one is all there is: taken as seldom as everything.
    if (type === 1 && !plain.regs.pcide && !random.chance(10)) return;
    machine.invpcid(type, pcid, low, high);
    if (type === 0) plain.invlpgPcid(pcid, low, high);
    else if (type === 1) plain.flushPcid(pcid);
    else if (type === 2) plain.flushAll();
    else plain.flushNonGlobal();
  }

  /** A table takes the place of a large page of 2 MiB, and maps the same. */
  private split(at: number, low: number, high: number): void {
    const table = this.random.pick(TABLES);
    if (this.entrySize() !== 8 || (low & 0x81) !== 0x81) return;
    const base = (low & 0xffe0_0000) >>> 0;
    for (const slot of SLOTS_64) this.write(table + slot * 8, 8, (base + slot * 4096) | (low & 0x17f) | 0, high);
    this.write(at, 8, (table % 2 ** 32) | (low & 0x67) | 0, Math.floor(table / 2 ** 32));
  }

  private dma(gpa: number): void {
    const hpa = gpaToHpa(gpa);
    this.machine.view.setInt32(hpa, this.entry(), true);
    if (this.entrySize() === 8) this.machine.view.setInt32(hpa + 4, this.entryHigh, true);
    this.machine.mmu?.guestWrote(hpa - 16, 32);
    this.machine.second?.markDirty(gpa, 8);
    this.plain.touched(hpa);
  }

  /** Starts or ends a dirty log, or takes what it has: all pages that are not what they were must be in it. */
  private dirtyLog(): void {
    const { random, machine } = this;
    const tables = machine.mmu ?? machine.second;
    if (tables === undefined) return;
    if (this.logged === undefined || random.chance(20)) {
      if (random.chance(20)) {
        tables.stopDirtyLog();
        this.logged = undefined;
        return;
      }
      const [gpa, bytes] = random.pick([
        [0, RAM_LOW],
        [0x40_0000, 0x20_0000],
        [0x3000, 0x5000],
      ] as const);
      tables.startDirtyLog(gpa, bytes);
      this.logged = { gpa, copy: this.words(gpa, bytes).slice() };
      return;
    }
    const { gpa, copy } = this.logged;
    const dirty = tables.takeDirty();
    const now = this.words(gpa, copy.byteLength);
    for (let at = 0; at < now.length; at++) {
      if (now[at] === copy[at]) continue;
      const page = at >>> 10;
      if (((dirty[page >>> 5] ?? 0) & (1 << (page & 31))) === 0) throw new Error(`the dirty log lacks the page at gpa 0x${(gpa + page * 4096).toString(16)}`);
    }
    copy.set(now);
  }

  private words(gpa: number, bytes: number): Int32Array {
    return this.machine.words.subarray(gpaToHpa(gpa) >>> 2, (gpaToHpa(gpa) + bytes) >>> 2);
  }

  private reclaim(): void {
    const { random, machine } = this;
    const gpa = random.pick([...TABLES, ...DATA]);
    if (machine.second !== undefined) {
      const what = random.below(8);
      if (what === 2) machine.second.zapAll();
      else machine.second.unmap(gpa, 4096);
      return;
    }
    if (random.chance(25)) machine.mmu?.zapGfn(gpa);
    else if (random.chance(5)) machine.mmu?.zapAll();
    else if (random.chance(10)) machine.mmu?.setPageLimit(random.pick([64, this.options.poolFrames ?? 96]));
  }

  // ------------------------------------------------------------ accesses
  /** What a fault handler does: makes the tables lead to a page where they do not. */
  private map(access: Access): void {
    const { plain, random } = this;
    for (let tries = 0; tries < 5; tries++) {
      const verdict = plain.walk(access);
      const last = plain.path.at(-1);
      if (verdict.kind !== 'fault' || last === undefined || (verdict.value & 9) === 1) return;
      const hpa = plain.regs.paging === '32-bit' ? this.entryOf(access, plain.path.length) : last;
      if (hpa < 0) return;
      const isLeaf = plain.path.length === { '5-level': 5, '4-level': 4, pae: 3, '32-bit': 2, off: 0 }[plain.regs.paging];
      const isPointer = plain.regs.paging === 'pae' && plain.path.length === 1;
      const target = random.pick(isLeaf ? DATA : TABLES);
      const flags = isPointer ? 1 : this.flags() | 1;
      this.write(gpaOf(hpa), this.entrySize(), (target % 2 ** 32) | flags | 0, plain.regs.paging === '32-bit' ? 0 : Math.floor(target / 2 ** 32));
    }
  }

  /** HPA of the 4-byte entry of a level (1: directory, 2: table). */
  private entryOf(access: Access, level: number): number {
    const directory = gpaToHpa(this.plain.regs.cr3) + (access.low >>> 22) * 4;
    if (level === 1) return directory;
    const table = gpaToHpa(((this.machine.words[directory >>> 2] as number) & 0xffff_f000) >>> 0);
    return table < 0 ? -1 : table + ((access.low >>> 12) & 1023) * 4;
  }

  private access(): void {
    const { random, plain, machine } = this;
    const [low, high] = randomAddress(this.random, this.plain.regs.paging);
    const access: Access = { low, high, user: random.chance(50), kind: random.pick([READ, READ, WRITE, WRITE, EXEC]), ac: random.chance(50) };
    if (random.chance(60)) this.map(access);
    const wanted = plain.walk(access);
    const { path, marked } = plain;
    const wasMarked = marked;
    const value = ++this.written & 0xff;
    const got = machine.access(access, value);
    if (access.kind === WRITE && got.kind === 'ram' && machine.view.getUint8(got.value) !== value) this.fail(access, wanted, got, 'the value is not there');
    this.counts[got.kind]++;
    for (const hpa of path) plain.touched(hpa);
    if (got.kind === 'fault') plain.invlpg(low, high);
    if (access.kind === WRITE && got.kind === 'ram') plain.touched(got.value);
    this.judge(access, wanted, got, path, wasMarked);
  }

  private judge(access: Access, wanted: Verdict, got: Verdict, path: readonly number[], wasMarked: boolean): void {
    const { plain } = this;
    if (got.kind === wanted.kind && got.value === wanted.value) {
      if (got.kind !== 'ram' || wasMarked) return;
      // A write may have hit one of the very entries it was translated by; then the marks cannot be read back.
      if (access.kind === WRITE && path.includes(got.value & ~7)) return;
      plain.walk(access);
      if (plain.marked) return;
      if (this.mayBeStale(access, got)) return;
      this.fail(access, wanted, got, 'an accessed or dirty bit is missing');
    }
    if (this.mayBeStale(access, got)) return;
    this.fail(access, wanted, got, 'the tables do not say so, and did not since the last flush');
  }

  private mayBeStale(access: Access, got: Verdict): boolean {
    if (this.isStrict) return false;
    if (!this.plain.mayBeCached(access, got)) return false;
    this.counts.stale++;
    return true;
  }

  private fail(access: Access, wanted: Verdict, got: Verdict, why: string): never {
    const { low, high, user, kind, ac } = access;
    const va = ((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16);
    const registers = JSON.stringify(this.plain.regs);
    throw new Error(
      `${user ? 'user' : 'kernel'} ${['read', 'write', 'fetch'][kind]} at ${va}${ac ? ' with AC' : ''}: tables say ${show(wanted)}, got ${show(got)}: ${why}. ${registers}`,
    );
  }
}

function gpaOf(hpa: number): number {
  const offset = hpa - RAM_BASE;
  return offset < 0x60_0000 ? offset : offset - 0x60_0000 + 2 ** 32;
}

function show({ kind, value }: Verdict): string {
  return `${kind} 0x${value.toString(16)}`;
}
