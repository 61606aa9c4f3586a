import { VECTOR_GP } from '../emit/emitter.ts';
import { ACCESS_KIND_BITS, exactName, PLACE_INDEX_BITS } from '../emit/slow-paths.ts';
import { hostLoad, hostStore, PAGE_MASK, PAGE_SIZE, TAG, tlbEntry, typeOfSize } from '../emit/tlb-path.ts';
import type { Val, ValType } from '../emit/val.ts';
import { TLB_ADDEND } from '../layout.ts';
import type { Expr } from '../wasm/types.ts';
import type { Guard } from './loop-guard.ts';
import { type AddressForm, type LoopAccess, windowAt } from './paged-loops.ts';
import { type BlockState, LOCAL, RegionState, type Symbolic } from './region-state.ts';
import { findStackPage, GROUP_SPAN, isPush, stackAccess } from './stack-page.ts';

/** Label around the region's code: a fault has stored RIP and the count. */
export const FAULT = 'fault';

const RSP = 4;

/**
 * Accesses of one block, or of blocks that follow one another on every path, whose addresses are a common value plus constants, as those of a stack frame or a structure. The first of them looks
 * into the TLB for all: is everything that the group does to the bytes from `min` to `end` allowed, and are they in one page? The code for
 * that is put in when these blocks, and so the group, are complete.
 */
export interface Group {
  readonly root: number;
  /** Offset of the block that began it. */
  readonly block: number;
  /** Local with the address of the first access, which is the root + `offset`. */
  readonly va: number;
  readonly offset: number;
  min: number;
  end: number;
  writes: boolean;
  /** The byte at `offset` must be at a multiple of `size`; undefined: all may lie anywhere. */
  alignment: { readonly offset: number; readonly size: number } | undefined;
  /** The root is that of RSP. */
  readonly isStack: boolean;
  /** After a look into the TLB its page is that of the stack. */
  readonly setsStackPage: boolean;
  /** In the second version of a loop: what the loop's guard has looked up for it. */
  readonly window: Guard['windows'][number] | undefined;
  /** It is in a window, and a slow path may have come before it in the same turn. */
  readonly isDoubtful: boolean;
  /** Local, i32: host address of the byte at `min`; 0 when accesses must take the slow path, as after a slow path of another access,
   *  in which the hypervisor may have changed the mapping. */
  readonly host: number;
  /** Accesses are numbered in a block: its first and its last one. */
  readonly first: number;
  last: number;
  /** Binaryen nodes: the `if` of the first access (of the stack: an empty block for the test), an empty block in its likely arm, and all accesses with their offsets from the root. */
  readonly nodes: {
    test: Expr;
    begin: Expr;
    readonly accesses: { readonly node: Expr; readonly offset: number }[];
  };
}

/** One access: where it is in its group. */
interface Place {
  readonly group: Group;
  readonly offset: number;
  readonly number: number;
  /** Its address must be a multiple of this, which the group's look into the TLB has found out where it allows the access. */
  readonly aligned?: number;
}

/** What is known at the end of a block, of memory too. */
export interface MemoryState extends BlockState {
  readonly groups: readonly Group[];
  readonly firstOpen: number;
}

/** Guest memory in a region: the TLB compare in line, the slow path out of line. */
export abstract class RegionMemory extends RegionState {
  /** Groups of the blocks on the way from the root of the tree of blocks, and those of all its blocks. */
  private groups: Group[] = [];
  private allGroups: Group[] = [];
  /** Slow paths of these blocks: the number of the access, and an empty block to clear the groups in. */
  private slowPaths: { readonly access: number; readonly clear: Expr }[] = [];
  private access = 0;
  /** Addresses that must be multiples of a number. */
  private readonly alignments = new WeakMap<Val, number>();
  /** Groups before this one take no more accesses: a helper may have changed mappings since. */
  private firstOpen = 0;

  /** Accesses of the loop that is looked at, in their order. */
  protected seen: LoopAccess[] | undefined;
  protected callsHelpers = false;
  /** The second version of a loop is being emitted. */
  private guard: Guard | undefined;
  /** It has had a slow path in the turn so far, in which the hypervisor may have changed the mapping: what the guard has looked up holds only while `stop` is not 0. */
  private isInDoubt = false;

  /** Byte offset of the instruction being emitted, and its index in its block. */
  protected offset = 0;
  protected index = 0;

  /** A later instruction of the block replaces all flags. */
  protected abstract flagsAreReplaced(): boolean;

  /** Offset of the block being emitted. */
  protected block = 0;

  protected override startBlock(before: MemoryState | undefined): void {
    super.startBlock(before);
    this.groups = [...(before?.groups ?? [])];
    this.firstOpen = before?.firstOpen ?? 0;
    if (before !== undefined) return;
    this.allGroups = [];
    this.slowPaths = [];
    this.access = 0;
  }
  protected override blockState(): MemoryState {
    return { ...super.blockState(), groups: [...this.groups], firstOpen: this.firstOpen };
  }

  override call(name: string, result: ValType | 'none', args: readonly Val[], options?: { pure?: boolean; registers?: boolean }): Val {
    if (options?.pure !== true) {
      this.firstOpen = this.groups.length;
      this.callsHelpers = true;
    }
    return super.call(name, result, args, options);
  }

  protected beginVersion(guard: Guard | undefined): void {
    this.guard = guard;
  }
  /** A turn of the loop that is emitted for the second time begins. */
  protected beginTurn(): void {
    this.isInDoubt = false;
  }

  /** The tree of blocks is complete, and so are its groups. */
  protected finishGroups(): void {
    const { m, b } = this;
    for (const g of this.allGroups) {
      const at = (offset: number) => this.virtual(g, offset);
      for (const { node, offset } of g.nodes.accesses) m.setMemoryOffset(node, offset - g.min);
      const clearAfterSlow = () => {
        for (const s of this.slowPaths) if (g.first <= s.access && s.access < g.last) m.appendChild(s.clear, m.local.set(g.host, m.i32.const(0)));
      };
      if (g.window !== undefined) {
        m.appendChild(g.nodes.begin, m.local.set(g.host, m.i32.add(m.i32.wrap(at(g.min)), m.local.get(g.window.addend, b.i32))));
        if (!g.isDoubtful) continue;
        m.setCondition(g.nodes.test, m.i64.ne(m.local.get(this.guard?.stop ?? 0, b.i64), m.i64.const(0n)));
        clearAfterSlow();
        continue;
      }
      // The local of the host address holds the address of the TLB entry first.
      const entry = () => m.local.get(g.host, b.i32);
      const loaded = m.i64.load(g.writes ? TAG.write : TAG.read, 8, m.local.tee(g.host, tlbEntry(m, at(g.min), m.local.get(LOCAL.tlb, b.i32)), b.i32));
      const distance = (from: Expr) => m.i64.xor(loaded, from);
      const isAllowed =
        g.alignment === undefined
          ? m.i64.le_u(distance(at(g.min)), m.i64.const(BigInt(PAGE_SIZE - (g.end - g.min))))
          : m.i64.eqz(m.i64.and(distance(this.lastUnit(g, g.alignment)), m.i64.const(PAGE_MASK | BigInt(g.alignment.size - 1))));
      if (g.isStack)
        m.appendChild(
          g.nodes.test,
          findStackPage(m, { host: g.host, va: () => at(g.min), isAllowed, sets: g.setsStackPage && g.writes, isAligned: g.alignment !== undefined }),
        );
      else m.setCondition(g.nodes.test, isAllowed);
      if (!g.isStack) m.appendChild(g.nodes.begin, m.local.set(g.host, m.i32.add(m.i32.wrap(at(g.min)), m.i32.load(TLB_ADDEND, 4, entry()))));
      clearAfterSlow();
    }
  }

  /** Where the unit begins that holds the last byte of a group; its address is a multiple of the unit's size if the group is aligned. */
  private lastUnit(g: Group, { offset, size }: { readonly offset: number; readonly size: number }): Expr {
    const last = g.end - 1;
    return this.virtual(g, last - ((((last - offset) % size) + size) % size));
  }

  override requireAligned(address: Val, size: number): void {
    this.alignments.set(address, size);
  }

  protected bind(v: Val): number {
    if (v.index !== undefined) return v.index;
    const index = this.newLocal(v.type);
    this.emit(this.m.local.set(index, v.take()));
    return index;
  }

  /** The group for an access of `size` bytes at `address`, with its alignment seen to. */
  private place(address: Val, size: number, writes: boolean): Place {
    const aligned = this.alignments.get(address);
    this.seen?.push({ at: this.isConditional ? undefined : this.symbolic(address), size, writes, alignment: aligned });
    const place = this.grouped(address, size, writes);
    const { group, offset } = place;
    if (aligned === undefined) return place;
    // An access that may never come does not ask for alignment now; a guard has asked for that of all.
    if (group.window !== undefined) group.alignment = group.window.alignment;
    else if (group.block === this.block) group.alignment ??= { offset, size: aligned };
    const isImplied = group.alignment?.size === aligned && (offset - group.alignment.offset) % aligned === 0;
    if (isImplied) return { ...place, aligned };
    super.requireAligned(address, aligned);
    return place;
  }
  /** The group for an access; a new one unless the block has one for addresses nearby. */
  private grouped(address: Val, size: number, writes: boolean): Place {
    const symbolic: Symbolic = (this.isConditional ? undefined : this.symbolic(address)) ?? { root: this.newRoot(), offset: 0 };
    const { root, offset } = symbolic;
    this.access++;
    const windows = this.guard?.windows ?? [];
    const window = windows[windowAt(windows, this.guard === undefined ? undefined : this.formOf(root), offset, size, writes)];
    for (const g of this.groups.slice(this.firstOpen)) {
      if (g.root !== root || g.window !== window || (window !== undefined && g.isDoubtful !== this.isInDoubt)) continue;
      // A write that may never come does not ask for permission now.
      if (writes && !g.writes && g.block !== this.block) continue;
      const min = Math.min(g.min, offset);
      const end = Math.max(g.end, offset + size);
      if (end - min > GROUP_SPAN) continue;
      g.min = min;
      g.end = end;
      g.writes ||= writes;
      g.last = this.access;
      return { group: g, offset, number: this.access };
    }
    const va = this.lastingLocal('i64');
    this.emit(this.m.local.set(va, address.take()));
    const nodes = { test: 0, begin: 0, accesses: [] };
    const [host, number] = [this.lastingLocal('i32'), this.access];
    const group: Group = {
      root,
      block: this.block,
      va,
      offset,
      min: offset,
      end: offset + size,
      writes,
      alignment: undefined,
      isStack: window === undefined && root === this.registerNow(RSP).root,
      setsStackPage: isPush(this.insn),
      window,
      isDoubtful: window !== undefined && this.isInDoubt,
      host,
      first: number,
      last: number,
      nodes,
    };
    this.groups.push(group);
    this.allGroups.push(group);
    return { group, offset, number };
  }
  private virtual(group: Group, offset: number): Expr {
    const { m, b } = this;
    const va = m.local.get(group.va, b.i64);
    return offset === group.offset ? va : m.i64.add(va, m.i64.const(BigInt(offset - group.offset)));
  }
  /** The code of an access: `fast` when the group may be accessed, else `slow`. `nodes`: the loads or stores in `fast`, by offset from the place. */
  private either(place: Place, nodes: readonly (readonly [node: Expr, by: number])[], fast: Expr, makeSlow: () => Expr): void {
    const { m, b } = this;
    const { nodes: group, first, host, window, isDoubtful } = place.group;
    const isFirst = place.number === first && group.test === 0;
    for (const [node, by] of nodes) group.accesses.push({ node, offset: place.offset + by });
    if (window !== undefined && !isDoubtful) {
      if (group.begin === 0) {
        group.begin = m.block(null, []);
        this.emit(group.begin);
      }
      this.emit(fast);
      return;
    }
    const slow = makeSlow();
    // The `nop` marks the arm to expect.
    if (!isFirst) {
      this.emit(m.if(m.local.get(host, b.i32), m.block(null, [m.nop(), fast]), slow));
      return;
    }
    group.begin = m.block(null, []);
    if (place.group.isStack) {
      group.test = m.block(null, []);
      this.emit(stackAccess(m, group.test, fast, slow));
      return;
    }
    group.test = m.if(m.i32.const(0), m.block(null, [m.nop(), group.begin, fast]), slow);
    this.emit(group.test);
  }

  /** #GP(0) on the slow path unless the address is aligned as it must be. */
  private checkAlignment(place: Place): Expr[] {
    if (place.aligned === undefined) return [];
    const { m } = this;
    const outer = this.body;
    this.body = [];
    this.raise(VECTOR_GP, 0);
    this.ended = false;
    const raised = m.block(null, this.body);
    this.body = outer;
    return [m.if(m.i32.and(m.i32.wrap(this.virtual(place.group, place.offset)), m.i32.const(place.aligned - 1)), raised)];
  }
  /** The slow path: the runtime, with all that makes RIP, the count and, on a fault, the flags exact; leaves on a fault. `use` places what was loaded. */
  private slow(op: 'load' | 'loadw' | 'store', size: number, place: Place, use: (loaded: Expr) => Expr, value?: Expr): Expr {
    const { m, b } = this;
    const type = typeOfSize(size);
    const outer = this.body;
    this.body = [];
    const { kind, values } = this.flagsForFault();
    const flags = this.body;
    this.body = outer;
    const name = exactName(op, size, values.length > 0);
    const stored = value === undefined ? [] : ([[type, value]] as const);
    const args = [
      ['i32', this.cpu()],
      ['i64', m.local.get(place.group.va, b.i64)],
      ['i64', m.local.get(LOCAL.icount, b.i64)],
      ['i64', m.i64.const((BigInt(this.offset) << BigInt(PLACE_INDEX_BITS)) | BigInt(this.index))],
      ['i32', m.i32.const(((place.offset - place.group.offset) << ACCESS_KIND_BITS) | kind)],
      ...values.map((flag) => ['i64', flag] as const),
      ...stored,
    ] as const;
    this.importHelper(name, { params: args.map(([t]) => t), result: value === undefined ? [type, 'i32'] : 'i32' });
    const clear = m.block(null, this.guard === undefined ? [] : [m.local.set(this.guard.stop, m.i64.const(0n))]);
    this.isInDoubt = true;
    this.slowPaths.push({ access: this.access, clear });
    const call = m.call(
      name,
      args.map(([, arg]) => arg),
      value === undefined ? b[type] : b.i32,
    );
    return m.block(null, [...flags, value === undefined ? use(m.brOver(FAULT, call, b[type])) : m.br(FAULT, call), clear]);
  }
  private checked(place: Place, slow: Expr): Expr {
    return place.aligned === undefined ? slow : this.m.block(null, [...this.checkAlignment(place), slow]);
  }
  /** A fault must find the flags. Those that take much code are put into the state block now, unless they are soon replaced and only a fault would ever need them. */
  private prepareFlags(): void {
    if (this.guard === undefined && this.flagsTakeCode && !this.isConditional && !this.flagsAreReplaced()) this.flagsToState();
  }

  load(address: Val, size: number): Val {
    const { m } = this;
    this.prepareFlags();
    const place = this.place(address, size, false);
    const type = typeOfSize(size);
    const result = this.newLocal(type);
    const node = hostLoad(m, size, this.host(place));
    const slow = () => this.slow('load', size, place, (call) => m.local.set(result, call));
    this.either(place, [[node, 0]], m.local.set(result, node), () => this.checked(place, slow()));
    return this.narrow(this.local(type, result), size);
  }
  store(address: Val, size: number, v: Val): void {
    const { m, b } = this;
    this.prepareFlags();
    const value = this.bind(v);
    const place = this.place(address, size, true);
    this.storeAt(place, size, () => m.local.get(value, b[typeOfSize(size)]));
  }
  private storeAt(place: Place, size: number, value: () => Expr): void {
    const { m } = this;
    const node = hostStore(m, size, this.host(place), value());
    this.either(place, [[node, 0]], node, () =>
      this.checked(
        place,
        this.slow('store', size, place, (call) => call, value()),
      ),
    );
  }
  loadPair(address: Val): readonly [Val, Val] {
    const { m } = this;
    this.prepareFlags();
    const place = this.place(address, 32, false);
    const [low, high] = [this.newLocal('v128'), this.newLocal('v128')];
    const [first, second] = [hostLoad(m, 16, this.host(place)), hostLoad(m, 16, this.host(place))];
    const fast = m.block(null, [m.local.set(low, first), m.local.set(high, second)]);
    const slow = () =>
      m.block(null, [
        ...this.checkAlignment(place),
        this.slow('load', 16, place, (call) => m.local.set(low, call)),
        this.slow('load', 16, upper(place), (call) => m.local.set(high, call)),
      ]);
    this.either(
      place,
      [
        [first, 0],
        [second, 16],
      ],
      fast,
      slow,
    );
    return [this.local('v128', low), this.local('v128', high)];
  }
  storePair(address: Val, low: Val, high: Val): void {
    const { m, b } = this;
    this.prepareFlags();
    const locals = [this.bind(low), this.bind(high)] as const;
    const value = (half: 0 | 1) => m.local.get(locals[half], b.v128);
    const place = this.place(address, 32, true);
    const [first, second] = [hostStore(m, 16, this.host(place), value(0)), hostStore(m, 16, this.host(place), value(1))];
    const slow = () =>
      m.block(null, [
        ...this.checkAlignment(place),
        // Whether the upper half can be written is known before anything is.
        this.slow('loadw', 16, upper(place), (call) => m.drop(call)),
        this.slow('store', 16, place, (call) => call, value(0)),
        this.slow('store', 16, upper(place), (call) => call, value(1)),
      ]);
    this.either(
      place,
      [
        [first, 0],
        [second, 16],
      ],
      m.block(null, [first, second]),
      slow,
    );
  }
  rmw(i: number, f: (old: Val) => Val, address?: Val): void {
    if (!this.isMem(i)) {
      this.write(i, f(this.read(i)));
      return;
    }
    const { m, b } = this;
    const size = this.size(i);
    const type = typeOfSize(size);
    this.prepareFlags();
    const place = this.place(address ?? this.address(i, { write: true }), size, true);
    const old = this.newLocal(type);
    const node = hostLoad(m, size, this.host(place));
    const slow = () => this.slow('loadw', size, place, (call) => m.local.set(old, call));
    this.either(place, [[node, 0]], m.local.set(old, node), slow);
    // The store counts as an access of its own, so that a slow load makes it slow. It cannot fault any more (loadw has checked), so
    // flags that `f` sets need not be undone.
    this.access++;
    place.group.last = this.access;
    const value = this.bind(f(this.local(type, old)));
    this.storeAt(place, size, () => m.local.get(value, b[type]));
  }
  protected abstract formOf(root: number): AddressForm | undefined;

  private host({ group }: Place): Expr {
    return this.m.local.get(group.host, this.b.i32);
  }
}

/** The second half of a 32-byte access. */
function upper(place: Place): Place {
  return { ...place, offset: place.offset + 16 };
}
