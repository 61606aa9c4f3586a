import type binaryen from 'binaryen';
import { EXIT_EXCEPTION, S_EXC, S_TLB } from '../layout.ts';
import { HandlerOperands } from './handler-operands.ts';
import { hostLoad, hostStore, tlbAddress, tlbEntry, tlbHit, typeOfSize } from './tlb-path.ts';
import type { Val } from './val.ts';

/** Name of the in-module slow path: accounts for RIP and retired instructions, then calls the runtime. */
export function slowName(op: 'load' | 'loadw' | 'store', size: number): string {
  return `slow_${op}${size * 8}`;
}

/** A handler's memory accesses: a look into the TLB, else a slow path that also accounts for RIP and retired instructions. */
export abstract class HandlerMemory extends HandlerOperands {
  /** Statements that write registers or flags. */
  protected deferred = new Set<binaryen.ExpressionRef>();

  private tlb(): binaryen.ExpressionRef {
    return this.m.i32.load(S_TLB, 4, this.cpu());
  }
  private slowCall(op: 'load' | 'loadw' | 'store', size: number, va: number, value?: binaryen.ExpressionRef): binaryen.ExpressionRef {
    const { m, b } = this;
    const args = [this.cpu(), this.rec(), m.local.get(va, b.i64)];
    if (value !== undefined) args.push(value);
    return m.call(slowName(op, size), args, op === 'store' ? b.none : b[typeOfSize(size)]);
  }
  /** Slow paths have already stored RIP and the count when they fault. */
  private leaveOnFault(): binaryen.ExpressionRef {
    const { m } = this;
    return m.if(m.i32.load(S_EXC, 4, this.cpu()), m.return(m.i32.const(EXIT_EXCEPTION)));
  }
  /** Emits the lookup; returns the locals of address, entry. */
  private lookup(address: Val): { va: number; entry: number } {
    const va = this.bind(address);
    const entry = this.newLocal('i32');
    this.emit(this.m.local.set(entry, tlbEntry(this.m, this.m.local.get(va, this.b.i64), this.tlb())));
    return { va, entry };
  }

  load(address: Val, size: number): Val {
    const { m, b } = this;
    const { va, entry } = this.lookup(address);
    const type = typeOfSize(size);
    const result = this.newLocal(type);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'read'),
        m.local.set(result, hostLoad(m, size, tlbAddress(b, m, va, entry))),
        m.block(null, [m.local.set(result, this.slowCall('load', size, va)), this.leaveOnFault()]),
      ),
    );
    return this.local(type, result);
  }
  store(address: Val, size: number, v: Val): void {
    const { m, b } = this;
    const value = this.bind(v);
    const { va, entry } = this.lookup(address);
    const type = b[typeOfSize(size)];
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'write'),
        hostStore(m, size, tlbAddress(b, m, va, entry), m.local.get(value, type)),
        m.block(null, [this.slowCall('store', size, va, m.local.get(value, type)), this.leaveOnFault()]),
      ),
    );
  }
  loadPair(address: Val): readonly [Val, Val] {
    const { m, b } = this;
    const { va, entry } = this.lookup(address);
    const [low, high, host] = [this.newLocal('v128'), this.newLocal('v128'), this.newLocal('i32')];
    const upper = this.bind(this.add(this.local('i64', va), this.i64(16)));
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, 32, 'read'),
        m.block(null, [
          m.local.set(low, hostLoad(m, 16, m.local.tee(host, tlbAddress(b, m, va, entry), b.i32))),
          m.local.set(high, hostLoad(m, 16, m.local.get(host, b.i32), 16)),
        ]),
        m.block(null, [
          m.local.set(low, this.slowCall('load', 16, va)),
          this.leaveOnFault(),
          m.local.set(high, this.slowCall('load', 16, upper)),
          this.leaveOnFault(),
        ]),
      ),
    );
    return [this.local('v128', low), this.local('v128', high)];
  }
  storePair(address: Val, low: Val, high: Val): void {
    const { m, b } = this;
    const [first, second] = [this.bind(low), this.bind(high)];
    const { va, entry } = this.lookup(address);
    const host = this.newLocal('i32');
    const upper = this.bind(this.add(this.local('i64', va), this.i64(16)));
    const value = (n: number) => m.local.get(n, b.v128);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, 32, 'write'),
        m.block(null, [
          hostStore(m, 16, m.local.tee(host, tlbAddress(b, m, va, entry), b.i32), value(first)),
          hostStore(m, 16, m.local.get(host, b.i32), value(second), 16),
        ]),
        m.block(null, [
          // Whether both halves can be written is known before anything is, and the lower address faults first.
          m.drop(this.slowCall('loadw', 16, va)),
          this.leaveOnFault(),
          m.drop(this.slowCall('loadw', 16, upper)),
          this.leaveOnFault(),
          this.slowCall('store', 16, va, value(first)),
          this.leaveOnFault(),
          this.slowCall('store', 16, upper, value(second)),
          this.leaveOnFault(),
        ]),
      ),
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
    this.requireWritable();
    const { va, entry } = this.lookup(address ?? this.address(i));
    const host = this.newLocal('i32');
    const old = this.newLocal(type);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'write'),
        m.local.set(old, hostLoad(m, size, m.local.tee(host, tlbAddress(b, m, va, entry), b.i32))),
        m.block(null, [m.local.set(host, m.i32.const(0)), m.local.set(old, this.slowCall('loadw', size, va)), this.leaveOnFault()]),
      ),
    );
    // Register and flag writes that `f` makes must follow the store: it may still fault (a store to translated code restarts).
    const before = this.body;
    this.body = [];
    const value = this.bind(f(this.local(type, old)));
    const inner = this.body;
    this.body = before;
    const { pure, effects } = splitEffects(inner, this.deferred);
    this.deferred = new Set();
    this.body.push(...pure);
    this.emit(
      m.if(
        m.local.get(host, b.i32),
        hostStore(m, size, m.local.get(host, b.i32), m.local.get(value, b[type])),
        m.block(null, [this.slowCall('store', size, va, m.local.get(value, b[type])), this.leaveOnFault()]),
      ),
    );
    this.body.push(...effects);
  }
}

/** Statements that only compute come before the store of a read-modify-write, flag and register writes after it. */
function splitEffects(
  statements: binaryen.ExpressionRef[],
  deferred: Set<binaryen.ExpressionRef>,
): { pure: binaryen.ExpressionRef[]; effects: binaryen.ExpressionRef[] } {
  return { pure: statements.filter((s) => !deferred.has(s)), effects: statements.filter((s) => deferred.has(s)) };
}
