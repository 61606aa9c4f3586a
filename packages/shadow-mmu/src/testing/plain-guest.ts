/**
 * What a guest's tables say, by a deliberately plain walker that shares no code with the MMUs under test; and what a TLB may still say: every translation that
 * the tables gave at some time since it was last flushed. Upper levels may be remembered longer than lower ones (paging-structure caches; SDM Vol. 3, 5.10.3).
 */
import { gpaToHpa, RAM_BASE, RAM_HIGH, RAM_LOW, TABLES } from './guest-ram.ts';

export type Paging = '4-level' | '5-level' | 'pae' | '32-bit' | 'off';
export const READ = 0;
export const WRITE = 1;
export const EXEC = 2;

export interface Registers {
  paging: Paging;
  cr3: number;
  pcid: number;
  nx: boolean;
  smep: boolean;
  smap: boolean;
  wp: boolean;
  pse: boolean;
  pge: boolean;
  pcide: boolean;
}

export interface Access {
  /** Low and high word of the address. */
  low: number;
  high: number;
  user: boolean;
  kind: number;
  /** RFLAGS.AC */
  ac: boolean;
}

/** `ram`: HPA of the byte; `mmio`: guest-physical address; `fault`: error code. */
export interface Verdict {
  kind: 'ram' | 'mmio' | 'fault';
  value: number;
}

interface Version {
  from: number;
  low: number;
  high: number;
}
/** An address space that was current from `from` on. */
interface Space {
  readonly cr3: number;
  readonly pcid: number;
  readonly from: number;
  to: number;
}

const MAXPHYADDR_HIGH = 1 << (46 - 32);
const HIGH_ADDRESS = 0x000f_ffff;
const FOUR_GIB = 0x1_0000_0000;
const P = 1;
const W = 2;
const U = 4;
const A = 0x20;
const D = 0x40;
const PS = 0x80;
const G = 0x100;

interface Step {
  /** Levels left, the entry's size, and where it is. */
  readonly level: number;
  readonly at: number;
}

/** State of a walk under way. */
interface Path {
  writable: boolean;
  user: boolean;
  executable: boolean;
  marked: boolean;
}

export class PlainGuest {
  readonly regs: Registers = {
    paging: '4-level',
    cr3: TABLES[0] as number,
    pcid: 0,
    nx: true,
    smep: false,
    smap: false,
    wp: true,
    pse: true,
    pge: false,
    pcide: false,
  };
  /** HPAs of the 8-byte words that the last `walk` used, leaf last. */
  path: number[] = [];
  /** The last `walk` needs no accessed bit (and for a write no dirty bit) set. */
  marked = false;
  /** PVM's ABI: SMEP only with NX, and the fetch bit of error codes only with NX. */
  readonly isPvm: boolean;
  private now = 1;
  private readonly words: Int32Array;
  /** Versions of each 8-byte word of RAM, by frame; the last is what memory holds. */
  private readonly versions: ((Version[] | undefined)[] | undefined)[] = [];
  private spaces: Space[] = [];
  private flushedAll = 0;
  private readonly flushedPcid = new Map<number, number>();
  private readonly flushedPage = new Map<string, number>();

  /** PAE: the pointers are read by MOV to CR3 and kept, not read by every walk. */
  private readonly keepsPointers: boolean;
  private pointers: number[] = [];

  constructor(memory: ArrayBufferLike, isPvm: boolean, keepsPointers: boolean) {
    this.words = new Int32Array(memory);
    this.isPvm = isPvm;
    this.keepsPointers = keepsPointers;
    this.enterSpace();
  }

  // ------------------------------------------------------------ what happens
  /** The word at `hpa` may have changed. */
  touched(hpa: number): void {
    const at = (hpa - RAM_BASE) >>> 12;
    const frame = this.versions[at] ?? [];
    this.versions[at] = frame;
    const word = (hpa >>> 3) & 511;
    const low = this.words[(hpa >>> 3) << 1] as number;
    const high = this.words[((hpa >>> 3) << 1) + 1] as number;
    const list = frame[word] ?? [{ from: 0, low: 0, high: 0 }];
    frame[word] = list;
    const last = list[list.length - 1];
    if (last === undefined || (last.low === low && last.high === high)) return;
    this.now++;
    // What ended before the last flush of everything is forgotten.
    while (list.length > 1 && (list[1] as Version).from <= this.flushedAll) list.shift();
    list.push({ from: this.now, low, high });
  }

  private enterSpace(): void {
    const last = this.spaces[this.spaces.length - 1];
    if (last !== undefined) last.to = this.now;
    this.spaces.push({ cr3: this.regs.cr3, pcid: this.regs.pcid, from: this.now, to: Number.POSITIVE_INFINITY });
  }

  private readPointers(): void {
    const table = entryAt(3, this.regs.cr3 - (this.regs.cr3 % 32), 0, 8).at >>> 2;
    this.pointers = Array.from(this.words.subarray(table, table + 8));
  }

  /** MOV to CR3. */
  loadCr3(cr3: number, pcid: number, flush: boolean): void {
    this.now++;
    this.regs.cr3 = cr3;
    this.regs.pcid = pcid;
    if (flush) this.flushedPcid.set(pcid, this.now);
    this.readPointers();
    this.enterSpace();
  }

  /** Everything is flushed, global pages included; `registers`: because paging registers were loaded. */
  flushAll(registers = false): void {
    if (registers) this.readPointers();
    this.now++;
    this.flushedAll = this.now;
    this.flushedPcid.clear();
    this.flushedPage.clear();
    this.spaces = [];
    this.enterSpace();
  }

  /** INVPCID of one PCID. */
  flushPcid(pcid: number): void {
    this.now++;
    this.flushedPcid.set(pcid, this.now);
  }

  /** INVPCID of one address of one PCID. */
  invlpgPcid(pcid: number, low: number, high: number): void {
    this.now++;
    this.flushedPage.set(pageKey(low, high, pcid), this.now);
  }

  /** INVPCID of everything but globals. */
  flushNonGlobal(): void {
    this.now++;
    for (const { pcid } of this.spaces) this.flushedPcid.set(pcid, this.now);
  }

  /** INVLPG, or a #PF. */
  invlpg(low: number, high: number): void {
    this.now++;
    this.flushedPage.set(pageKey(low, high, this.regs.pcid), this.now);
    this.flushedPage.set(pageKey(low, high, -1), this.now);
  }

  // ------------------------------------------------------------ the tables now
  walk(access: Access): Verdict {
    this.path = [];
    const { regs } = this;
    if (regs.paging === 'off') {
      this.marked = true;
      return this.arrive(access.low >>> 0);
    }
    const path: Path = { writable: true, user: true, executable: true, marked: true };
    let step = this.top(regs.cr3, access);
    for (;;) {
      if (step.at < 0) return this.fault(access, 9);
      const hpa = step.at;
      const isKept = this.keepsPointers && regs.paging === 'pae' && step.level === 3;
      const low = (isKept ? this.pointers[(access.low >>> 30) * 2] : this.words[hpa >>> 2]) as number;
      const kept = isKept ? this.pointers[(access.low >>> 30) * 2 + 1] : this.words[(hpa >>> 2) + 1];
      const high = regs.paging === '32-bit' ? 0 : (kept as number);
      this.path.push(hpa & ~7);
      const next = this.follow(step, low, high, access, path);
      if (typeof next === 'number') return this.fault(access, next);
      if ('kind' in next) {
        this.marked = path.marked;
        return next;
      }
      step = next;
    }
  }

  private fault(access: Access, bits: number): Verdict {
    const { regs } = this;
    let code = bits | (access.kind === WRITE ? 2 : 0) | (access.user ? 4 : 0);
    const hasNx = regs.nx && regs.paging !== '32-bit';
    if (access.kind === EXEC && (hasNx || (!this.isPvm && regs.smep))) code |= 16;
    return { kind: 'fault', value: code };
  }

  private arrive(gpa: number): Verdict {
    const hpa = gpaToHpa(gpa);
    return hpa < 0 ? { kind: 'mmio', value: gpa } : { kind: 'ram', value: hpa };
  }

  /** The first entry of a walk from `cr3`. */
  private top(cr3: number, access: Access): Step {
    const { low } = access;
    switch (this.regs.paging) {
      case 'pae':
        return entryAt(3, cr3 - (cr3 % 32), low >>> 30, 8);
      case '32-bit':
        return entryAt(2, cr3 - (cr3 % 4096), low >>> 22, 4);
      default: {
        const level = this.regs.paging === '5-level' ? 5 : 4;
        return entryAt(level, cr3 - (cr3 % 4096), indexOf(access, level), 8);
      }
    }
  }

  /** What an entry leads to: the next one, the page (rights checked), or the P and RSVD bits of a fault. */
  private follow(step: Step, low: number, high: number, access: Access, path: Path): Step | Verdict | number {
    const { regs } = this;
    const { level } = step;
    if ((low & P) === 0) return 0;
    if (level === 3 && regs.paging === 'pae') {
      if ((low & 0x1e6) !== 0 || (high & ~HIGH_ADDRESS) !== 0 || (high & HIGH_ADDRESS) >= MAXPHYADDR_HIGH) return 9;
      return entryAt(2, addressOf(low, high), (access.low >>> 21) & 511, 8);
    }
    const is32 = regs.paging === '32-bit';
    const isLarge = level > 1 && (low & PS) !== 0 && (!is32 || regs.pse);
    if (!is32) {
      if ((high & HIGH_ADDRESS) >= MAXPHYADDR_HIGH || (high < 0 && !regs.nx)) return 9;
      if (regs.paging === 'pae' && (high & 0x7ff0_0000) !== 0) return 9;
      if (isLarge && (level > 3 || (low & (level === 3 ? 0x3fff_e000 : 0x1f_e000)) !== 0)) return 9;
    } else if (isLarge && (low & 0x20_0000) !== 0) return 9;
    path.writable &&= (low & W) !== 0;
    path.user &&= (low & U) !== 0;
    path.executable &&= high >= 0;
    path.marked &&= (low & A) !== 0;
    if (level > 1 && !isLarge) {
      const index = is32 ? (access.low >>> 12) & 1023 : indexOf(access, level - 1);
      return entryAt(level - 1, addressOf(low, high), index, is32 ? 4 : 8);
    }
    if (!this.allowed(access, path)) return 1;
    if (access.kind === WRITE) path.marked &&= (low & D) !== 0;
    const offset = access.low >>> 0;
    if (!isLarge) return this.arrive(addressOf(low, high) + (offset & 0xfff));
    if (is32) return this.arrive(((low & 0xffc0_0000) >>> 0) + ((low >>> 13) & 0xff) * FOUR_GIB + (offset & 0x3f_ffff));
    const mask = level === 3 ? 0x3fff_ffff : 0x1f_ffff;
    const base = addressOf(low, high);
    return this.arrive(base - (base % (mask + 1)) + (offset & mask));
  }

  private allowed({ user, kind, ac }: Access, page: Path): boolean {
    const { regs } = this;
    if (kind === EXEC) {
      const smep = regs.smep && (regs.nx || !this.isPvm);
      return page.executable && (user ? page.user : !(page.user && smep));
    }
    if (user) return page.user && (kind === READ || page.writable);
    if (page.user && regs.smap && !ac && !this.isPvm) return false;
    return kind === READ || page.writable || !regs.wp;
  }

  // ------------------------------------------------------------ what a TLB may still hold
  /** Whether `got` can come from translations that were right at some time since they were last flushed. */
  mayBeCached(access: Access, got: Verdict): boolean {
    const { regs } = this;
    if (regs.paging === 'off' || got.kind === 'fault') return false;
    for (const space of this.spaces) {
      const isOwn = space.pcid === regs.pcid;
      const since = Math.max(space.from, this.flushedAll, this.flushedPage.get(pageKey(access.low, access.high, isOwn ? regs.pcid : -1)) ?? 0);
      const flushed = isOwn ? (this.flushedPcid.get(regs.pcid) ?? 0) : Number.POSITIVE_INFINITY;
      const path: Path = { writable: true, user: true, executable: true, marked: true };
      if (space.to > flushed && this.search(this.top(space.cr3, access), Math.max(since, flushed), space.to, access, path, got, false)) return true;
      if (regs.pge && this.search(this.top(space.cr3, access), since, space.to, access, path, got, true)) return true;
    }
    return false;
  }

  private search(step: Step, since: number, until: number, access: Access, path: Path, got: Verdict, globalOnly: boolean): boolean {
    if (step.at < 0) return false;
    // The access may have marked entries that only remembered upper levels lead to.
    this.touched(step.at);
    const list = this.versions[(step.at - RAM_BASE) >>> 12]?.[(step.at >>> 3) & 511] ?? [
      { from: 0, low: this.words[(step.at >>> 3) << 1] as number, high: this.words[((step.at >>> 3) << 1) + 1] as number },
    ];
    for (let i = 0; i < list.length; i++) {
      const version = list[i] as Version;
      const end = list[i + 1]?.from ?? Number.POSITIVE_INFINITY;
      // PAE's pointers are read by MOV to CR3 and stay as they were until the next, whatever else is flushed.
      const isPointer = this.regs.paging === 'pae' && step.level === 3;
      // A walk reads this entry at `since` or later, while its space is current.
      if ((!isPointer && end <= since) || version.from >= until) continue;
      const is32 = this.regs.paging === '32-bit';
      const low = is32 && (step.at & 4) !== 0 ? version.high : version.low;
      const here = { ...path };
      const next = this.follow(step, low, is32 ? 0 : version.high, access, here);
      if (typeof next === 'number' || !here.marked) continue;
      if ('kind' in next) {
        if (next.kind === got.kind && next.value === got.value && (!globalOnly || (low & G) !== 0)) return true;
      } else if (this.search(next, Math.max(since, version.from), until, access, here, got, globalOnly)) return true;
    }
    return false;
  }
}

function addressOf(low: number, high: number): number {
  return (high & HIGH_ADDRESS) * FOUR_GIB + ((low & 0xffff_f000) >>> 0);
}

function entryAt(level: number, table: number, index: number, size: number): Step {
  const gpa = table + index * size;
  const isRam = gpa < RAM_LOW || (gpa >= FOUR_GIB && gpa < FOUR_GIB + RAM_HIGH);
  return { level, at: isRam ? gpaToHpa(gpa) : -1 };
}

function indexOf({ low, high }: Access, level: number): number {
  const page = high * 0x10_0000 + (low >>> 12);
  return Math.floor(page / 512 ** (level - 1)) & 511;
}

function pageKey(low: number, high: number, pcid: number): string {
  return `${high}:${low >>> 12}:${pcid}`;
}
