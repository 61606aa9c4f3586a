import { decode, decodeAcrossPages, formKey } from './decoder/index.ts';
import type { Insn } from './decoder/types.ts';
import { PSEUDO } from './interp/handler-table.ts';
import { writePseudo, writeRecord } from './interp/record.ts';
import { learn } from './interp/template.ts';
import {
  BD_BORN,
  BD_BORN_SHIFT,
  BD_COUNT,
  BD_FN,
  BD_HPA,
  BD_MODE,
  BD_NEXT,
  BD_PAGE_LIST,
  BD_PAGES,
  BD_RATE,
  BD_REACH,
  BD_REACH_SHIFT,
  BD_REC,
  BD_TRACKED,
  BLOCK_DESC_COUNT,
  BLOCK_DESC_SIZE,
  BLOCK_DESCS,
  BLOCK_HEAD_COUNT,
  BLOCK_HEADS,
  CODE_BITS,
  DECODED_BYTES,
  DECODED_END,
  DECODED_IMM,
  DECODED_INSNS,
  DECODED_KEY,
  DECODED_RECORD,
  DECODED_RELATIVE,
  DECODED_STATE,
  MAX_BLOCK_INSNS,
  NO_KEY,
  REC_SIZE,
  RECORD_ARENA,
  RECORD_ARENA_END,
} from './layout.ts';

const PAGE = 4096;
const LINE = 64;
/** Room kept at the end of the arena for the single-step block. */
const STEP_RECORDS = RECORD_ARENA_END - 8 * REC_SIZE;
/** Most bytes of records one block can take. */
const MAX_BLOCK_BYTES = (MAX_BLOCK_INSNS * 2 + 2) * REC_SIZE;

/** Bytes [start, end) of linear memory that a piece of translated code was made from. */
export interface CodeRange {
  readonly start: number;
  readonly end: number;
}

/** Something made from guest code that must go when the code changes. */
interface Translation {
  readonly ranges: readonly CodeRange[];
  drop(): void;
}

/** Rates of blocks that were decoded so few instructions ago say little; they count as lower. */
const SHORT_TIME = 2000;

/** BD_BORN of a block that is decoded when its vCPU has retired `now` instructions. */
const timeOf = (now: bigint) => Number(BigInt.asUintN(32, now >> BigInt(BD_BORN_SHIFT)));

/** A decoded block. There are tens of thousands: what can be computed is not kept. */
class DecodedBlock implements Translation {
  private readonly owner: { unlink(desc: number, hpa: number): void };
  private readonly desc: number;
  private readonly hpa: number;
  private readonly end: number;

  constructor(owner: { unlink(desc: number, hpa: number): void }, desc: number, hpa: number, end: number) {
    this.owner = owner;
    this.desc = desc;
    this.hpa = hpa;
    this.end = end;
  }
  get ranges(): readonly CodeRange[] {
    return [{ start: this.hpa, end: this.end }];
  }
  drop(): void {
    this.owner.unlink(this.desc, this.hpa);
  }
}

/** What the cache needs from its surroundings. */
export interface CodeCacheHost {
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly view: DataView;
  /** A frame got its first translated code: write tags for it must go. */
  protectFrame(hpa: number): void;
  /** `decodeKnown` of the runtime. */
  decodeKnown(hpa: number, room: number): void;
  /** Cached rip -> code links are no longer valid, on any vCPU. */
  forgetLinks(): void;
}

/** Bytes of guest code at a virtual address: `second` is the HPA of the following page once it was needed. */
export interface CodeSource {
  /** HPA of the first byte. */
  readonly hpa: number;
  /** HPA of the start of the next virtual page, or 0 when it cannot be fetched (S_EXC is set). */
  nextPage(): number;
}

/** Decoded blocks and compiled regions by the physical code they came from. */
export class CodeCache {
  private readonly host: CodeCacheHost;
  private readonly handlers: (codeSize: 16 | 32 | 64) => Int32Array;
  private arena = RECORD_ARENA;
  private descCount = 0;
  /** Line number (HPA / 64) -> translations with code in it, seldom more than a few; its bit in CODE_BITS is set exactly while there are some. */
  private readonly byLine = new Map<number, readonly Translation[]>();
  private readonly unlinker = { unlink: (desc: number, hpa: number) => this.unlink(desc, hpa) };
  /** The instruction of the last `stepBlock`, undefined when its bytes are none. */
  stepped: Insn | undefined;
  /** HPAs of instructions before which the host wants control: blocks and regions end there, and the block there does nothing but leave. */
  private readonly breakpoints = new Set<number>();
  /** Blocks decoded and code invalidations since creation. */
  readonly counts = { blocks: 0, instructions: 0, invalidated: 0, flushes: 0 };

  /** `handlers`: formKey -> index of the handler in the table. */
  constructor(host: CodeCacheHost, handlers: (codeSize: 16 | 32 | 64) => Int32Array) {
    this.host = host;
    this.handlers = handlers;
  }

  /** True when the next block might not fit; flush first, outside generated code. */
  get full(): boolean {
    return this.arena + MAX_BLOCK_BYTES > STEP_RECORDS || this.descCount + 1 >= BLOCK_DESC_COUNT;
  }

  /** Decodes one instruction; `pageEnd` of the result is true when it runs into the next page. */
  decodeOne(source: CodeSource, offset: number, codeSize: 16 | 32 | 64): Insn | 'ud' | 'gp' | 'fault' {
    return decodeAcrossPages(this.host.u8, source.hpa + offset, codeSize, () => source.nextPage());
  }

  /** Decodes the block at `source` when its vCPU has retired `now` instructions, and links its descriptor. Returns false when fetching its first instruction faults. */
  addBlock(source: CodeSource, codeSize: 16 | 32 | 64, now: bigint): boolean {
    const { view, u32 } = this.host;
    const handlers = this.handlers(codeSize);
    const first = this.arena;
    let rec = first;
    let offset = 0;
    let index = 0;
    let secondPage = 0;
    const hpa = source.hpa;
    const room = PAGE - (hpa & (PAGE - 1));
    let ended = false;
    const crossing: CodeSource = {
      hpa,
      nextPage: () => {
        secondPage = source.nextPage();
        return secondPage;
      },
    };
    const isByTemplates = codeSize === 64 && this.breakpoints.size === 0;
    let reach = 0;
    while (!ended && index < MAX_BLOCK_INSNS && offset < room) {
      if (isByTemplates) {
        u32[DECODED_BYTES >>> 2] = offset;
        u32[DECODED_INSNS >>> 2] = index;
        u32[DECODED_RECORD >>> 2] = rec;
        this.host.decodeKnown(hpa, room);
        const state = u32[DECODED_STATE >>> 2] ?? 0;
        if (index !== u32[DECODED_INSNS >>> 2]) {
          offset = u32[DECODED_BYTES >>> 2] ?? 0;
          index = u32[DECODED_INSNS >>> 2] ?? 0;
          rec = u32[DECODED_RECORD >>> 2] ?? 0;
          reach = state & DECODED_RELATIVE ? reachOfBranch((u32[DECODED_IMM >>> 2] ?? 0) | 0, offset) : 0;
          ended = (state & DECODED_END) !== 0;
          if (ended || index >= MAX_BLOCK_INSNS || offset >= room) break;
        }
      }
      if (this.breakpoints.size > 0 && this.breakpoints.has(hpa + offset)) {
        if (index > 0) break;
        rec = writePseudo(view, rec, PSEUDO.break, offset, index);
        ended = true;
        break;
      }
      // An instruction that runs into the next page starts a block of its own: fetching its second page may fault, and only when it is reached.
      const insn = index === 0 ? this.decodeOne(crossing, offset, codeSize) : decode(this.host.u8, hpa + offset, room - offset, codeSize);
      if (insn === 'fault') return false;
      if (insn === 'fetch') break;
      if (insn === 'ud' || insn === 'gp') {
        rec = writePseudo(view, rec, PSEUDO[insn], offset, index);
        offset += 1;
        ended = true;
        break;
      }
      const handler = handlers[formKey(insn)] ?? -1;
      if (handler < 0) {
        rec = writePseudo(view, rec, PSEUDO.ud, offset, index);
        offset += insn.length;
        ended = true;
        break;
      }
      rec = writeRecord(view, rec, insn, handler, offset, index, codeSize);
      if (isByTemplates && u32[DECODED_KEY >>> 2] !== NO_KEY) learn(this.host, u32[DECODED_KEY >>> 2] ?? 0, insn, handler);
      offset += insn.length;
      reach = reachOf(insn, offset);
      index++;
      ended = insn.row.end === true;
    }
    if (!ended) rec = writePseudo(view, rec, PSEUDO.end, offset, index);
    this.arena = rec;
    this.counts.blocks++;
    this.counts.instructions += index;

    const desc = BLOCK_DESCS + ++this.descCount * BLOCK_DESC_SIZE;
    const head = BLOCK_HEADS + blockHash(hpa) * 4;
    const d = desc >>> 2;
    u32[d + (BD_HPA >>> 2)] = hpa;
    u32[d + (BD_MODE >>> 2)] = codeSize;
    u32[d + (BD_NEXT >>> 2)] = u32[head >>> 2] ?? 0;
    u32[d + (BD_REC >>> 2)] = first;
    u32[d + (BD_FN >>> 2)] = 0;
    u32[d + (BD_COUNT >>> 2)] = 0;
    u32[d + (BD_BORN >>> 2)] = timeOf(now);
    u32[d + (BD_RATE >>> 2)] = 0;
    view.setUint16(desc + BD_TRACKED, 0, true);
    view.setUint16(desc + BD_REACH, reach, true);
    const crosses = offset > room && secondPage !== 0;
    u32[d + (BD_PAGES >>> 2)] = crosses ? 1 : 0;
    if (crosses) {
      view.setInt32(desc + BD_PAGE_LIST, 1, true);
      view.setUint32(desc + BD_PAGE_LIST + 4, secondPage, true);
    }
    u32[head >>> 2] = desc;
    const end = hpa + Math.min(Math.max(offset, 1), room);
    if (crosses)
      this.trackCrossing(
        [
          { start: hpa, end },
          { start: secondPage, end: secondPage + offset - room },
        ],
        desc,
        hpa,
      );
    else this.track(new DecodedBlock(this.unlinker, desc, hpa, end));
    return true;
  }

  /** Apart from `addBlock`: the closure lives as long as the block, and would keep everything that one there needs. */
  private trackCrossing(ranges: readonly CodeRange[], desc: number, hpa: number): void {
    this.track({ ranges, drop: () => this.unlink(desc, hpa) });
  }

  /** How often the interpreter has entered a block at `hpa` (more or less: the count starts again when it was reported hot); 0: never. */
  entries(hpa: number, codeSize: number): number {
    const d = this.descriptor(hpa, codeSize);
    return d === 0 ? 0 : (this.host.u32[(d + BD_COUNT) >>> 2] ?? 0);
  }

  /**
   * How often the block at `hpa` is entered for each instruction that the vCPU retires, which has retired `now`: as it was when this was asked first, for a region
   * that took it in; 0 when no block was decoded there.
   */
  rate(hpa: number, codeSize: number, now: bigint): number {
    const { u32, view } = this.host;
    const d = this.descriptor(hpa, codeSize);
    if (d === 0) return 0;
    const known = view.getFloat32(d + BD_RATE, true);
    if (known > 0) return known;
    const elapsed = Math.max(0, (timeOf(now) - (u32[(d + BD_BORN) >>> 2] ?? 0)) | 0) * 2 ** BD_BORN_SHIFT;
    const rate = (u32[(d + BD_COUNT) >>> 2] ?? 0) / (elapsed + SHORT_TIME);
    view.setFloat32(d + BD_RATE, rate, true);
    return rate;
  }

  /** Address of the descriptor of a block decoded at `hpa`, 0: none. */
  descriptor(hpa: number, codeSize: number): number {
    const { u32 } = this.host;
    for (let d = u32[(BLOCK_HEADS + blockHash(hpa) * 4) >>> 2] ?? 0; d !== 0; d = u32[(d + BD_NEXT) >>> 2] ?? 0) {
      if (u32[(d + BD_HPA) >>> 2] === hpa && u32[(d + BD_MODE) >>> 2] === codeSize) return d;
    }
    return 0;
  }

  /** Registers translated code so that writes to its bytes drop it. */
  track(t: Translation): void {
    for (const line of linesOf(t)) {
      const others = this.byLine.get(line);
      // A translation may have several ranges in a line. Not `push`: an array that grows keeps room for a dozen more.
      if (others?.includes(t) === true) continue;
      this.byLine.set(line, others === undefined ? [t] : [...others, t]);
      if (others !== undefined) continue;
      const bits = (CODE_BITS + (line >>> 6) * 8) >>> 2;
      const { u32 } = this.host;
      if (((u32[bits] ?? 0) | (u32[bits + 1] ?? 0)) === 0) this.host.protectFrame((line >>> 6) * PAGE);
      const word = bits + ((line >>> 5) & 1);
      u32[word] = (u32[word] ?? 0) | (1 << (line & 31));
    }
  }

  /** Drops what was made from any of the `length` bytes at `hpa`, which have changed or are about to. */
  invalidate(hpa: number, length: number): void {
    const end = hpa + length;
    const dropped = new Set<Translation>();
    const last = Math.floor((end - 1) / LINE);
    for (let line = Math.floor(hpa / LINE); line <= last; line++) {
      // Most of what devices write is no code: half a page at a time.
      if ((this.host.u32[bitsOf(line)] ?? 0) === 0) {
        line |= 31;
        continue;
      }
      for (const t of this.byLine.get(line) ?? []) if (t.ranges.some((r) => r.start < end && hpa < r.end)) dropped.add(t);
    }
    if (dropped.size === 0) return;
    for (const t of dropped) {
      this.counts.invalidated++;
      t.drop();
      for (const line of linesOf(t)) this.forget(t, line);
    }
    this.host.forgetLinks();
  }

  /** Sets or removes a breakpoint. Only outside generated code. */
  setBreakpoint(hpa: number, isSet: boolean): void {
    if (isSet) this.breakpoints.add(hpa);
    else this.breakpoints.delete(hpa);
    this.invalidate(hpa, 1);
  }
  get hasBreakpoints(): boolean {
    return this.breakpoints.size > 0;
  }
  hasBreakpoint(hpa: number): boolean {
    return this.breakpoints.has(hpa);
  }

  /** Forgets all translated code. Only outside generated code. */
  flush(): void {
    this.counts.flushes++;
    for (const t of new Set([...this.byLine.values()].flat())) t.drop();
    for (const line of this.byLine.keys()) this.clearLine(line);
    this.byLine.clear();
    this.host.u32.fill(0, BLOCK_HEADS >>> 2, (BLOCK_HEADS >>> 2) + BLOCK_HEAD_COUNT);
    this.arena = RECORD_ARENA;
    this.descCount = 0;
    this.host.forgetLinks();
  }

  /** Writes a block of exactly one instruction outside the cache; returns its first record, 0 on a fetch fault. */
  stepBlock(source: CodeSource, codeSize: 16 | 32 | 64): number {
    const { view } = this.host;
    this.stepped = undefined;
    const insn = this.decodeOne(source, 0, codeSize);
    if (insn === 'fault') return 0;
    if (insn === 'ud' || insn === 'gp') {
      writePseudo(view, STEP_RECORDS, PSEUDO[insn], 0, 0);
      return STEP_RECORDS;
    }
    const handler = this.handlers(codeSize)[formKey(insn)] ?? -1;
    if (handler < 0) {
      writePseudo(view, STEP_RECORDS, PSEUDO.ud, 0, 0);
      return STEP_RECORDS;
    }
    this.stepped = insn;
    const rec = writeRecord(view, STEP_RECORDS, insn, handler, 0, 0, codeSize);
    writePseudo(view, rec, PSEUDO.end, insn.length, 1);
    return STEP_RECORDS;
  }

  private unlink(desc: number, hpa: number): void {
    const { u32 } = this.host;
    u32[(desc + BD_FN) >>> 2] = 0;
    u32[(desc + BD_HPA) >>> 2] = 0;
    let link = BLOCK_HEADS + blockHash(hpa) * 4;
    for (;;) {
      const at = u32[link >>> 2] ?? 0;
      if (at === 0) return;
      if (at === desc) {
        u32[link >>> 2] = u32[(desc + BD_NEXT) >>> 2] ?? 0;
        return;
      }
      link = at + BD_NEXT;
    }
  }

  private forget(t: Translation, line: number): void {
    const left = this.byLine.get(line)?.filter((other) => other !== t);
    if (left === undefined) return;
    if (left.length > 0) {
      this.byLine.set(line, left);
      return;
    }
    this.byLine.delete(line);
    this.clearLine(line);
  }
  private clearLine(line: number): void {
    const word = bitsOf(line);
    const { u32 } = this.host;
    u32[word] = (u32[word] ?? 0) & ~(1 << (line & 31));
  }
}

/** Numbers of the lines that a translation's bytes lie in. */
function* linesOf(t: Translation): Generator<number> {
  for (const { start, end } of t.ranges) for (let line = Math.floor(start / LINE); line <= Math.floor((end - 1) / LINE); line++) yield line;
}

/** Index of the word of CODE_BITS that has the bit of a line. */
function bitsOf(line: number): number {
  return (CODE_BITS + (line >>> 6) * 8 + ((line >>> 5) & 1) * 4) >>> 2;
}

/** BD_REACH of code whose last instruction ends at offset `end`. */
export function reachOf(last: Insn | undefined, end: number): number {
  if (last === undefined || !last.operands.some((o) => o.kind === 'rel')) return 0;
  return reachOfBranch(last.immLow, end);
}
function reachOfBranch(displacement: number, end: number): number {
  return Math.min(0xffff, Math.ceil(Math.abs(end + displacement) / 2 ** BD_REACH_SHIFT));
}

/** Bucket of a host-physical address; the Wasm runtime computes the same. */
export function blockHash(hpa: number): number {
  return ((hpa ^ (hpa >>> 12)) & (BLOCK_HEAD_COUNT - 1)) >>> 0;
}
