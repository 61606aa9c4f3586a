/** Replays x87 vectors captured natively (tests/native/x87-vectors.c) against the `fx_` helpers of the Wasm runtime. */
import { CPU_BASE, FRAME_POOL_BASE, S_SCRATCH, S_X87, S_X87_CW, S_X87_SW, S_X87_TAGS, S_X87_TOP } from '../src/layout.ts';

export const RECORD_SIZE = 72;

/** An 80-bit number: significand and sign + exponent. */
export interface Extended {
  readonly m: bigint;
  readonly s: number;
}
/** What a native run left: see `struct record` in x87-vectors.c. */
export interface Outcome {
  readonly sw: number;
  readonly tags: number;
  readonly flags: number;
  readonly st0: Extended;
  readonly st1: Extended;
  readonly mem: Extended;
}
export interface Vector extends Omit<Outcome, 'sw'> {
  readonly escape: number;
  readonly modrm: number;
  readonly cw: number;
  readonly top: number;
  readonly after: Outcome;
}

const extended = (view: DataView, at: number): Extended => ({ m: view.getBigUint64(at, true), s: view.getUint16(at + 8, true) });

export function readVector(view: DataView, at: number): Vector {
  return {
    escape: view.getUint8(at),
    modrm: view.getUint8(at + 1),
    cw: view.getUint16(at + 2, true),
    top: view.getUint8(at + 4),
    tags: view.getUint8(at + 5),
    flags: view.getUint8(at + 6),
    st0: extended(view, at + 8),
    st1: extended(view, at + 18),
    mem: extended(view, at + 28),
    after: {
      sw: view.getUint16(at + 38, true),
      tags: view.getUint8(at + 40),
      flags: view.getUint8(at + 41),
      st0: extended(view, at + 42),
      st1: extended(view, at + 52),
      mem: extended(view, at + 62),
    },
  };
}

type Helper = (cpu: number, ...args: (number | bigint)[]) => number;

/** Memory forms by escape byte and ModRM.reg: loads with the argument they take, stores with their size and pops. */
const LOADS = new Map<number, readonly [string, (m: bigint, s: number) => (number | bigint)[]]>([
  [0xd90, ['ld_f32', (m) => [Number(BigInt.asIntN(32, m))]]],
  [0xdb0, ['ld_int', (m) => [BigInt.asIntN(32, m)]]],
  [0xdb5, ['ld_f80', (m, s) => [m, s]]],
  [0xdd0, ['ld_f64', (m) => [m]]],
  [0xdf0, ['ld_int', (m) => [BigInt.asIntN(16, m)]]],
  [0xdf4, ['ld_bcd', (m, s) => [m, s]]],
  [0xdf5, ['ld_int', (m) => [m]]],
]);
const STORES = new Map<number, readonly [size: number, pops: number, name: string, ...args: number[]]>([
  [0xd92, [4, 0, 'st_f32']],
  [0xd93, [4, 1, 'st_f32']],
  [0xdb1, [4, 1, 'st_int', 4, 1]],
  [0xdb2, [4, 0, 'st_int', 4, 0]],
  [0xdb3, [4, 1, 'st_int', 4, 0]],
  [0xdb7, [10, 1, 'st_f80']],
  [0xdd1, [8, 1, 'st_int', 8, 1]],
  [0xdd2, [8, 0, 'st_f64']],
  [0xdd3, [8, 1, 'st_f64']],
  [0xdf1, [2, 1, 'st_int', 2, 1]],
  [0xdf2, [2, 0, 'st_int', 2, 0]],
  [0xdf3, [2, 1, 'st_int', 2, 0]],
  [0xdf6, [10, 1, 'st_bcd']],
  [0xdf7, [8, 1, 'st_int', 8, 0]],
]);
/** Register forms of D9 without operands. */
const D9_CALLS = new Map<number, readonly [string, ...number[]]>([
  [0xe0, ['sign', 0xffff, 0x8000]],
  [0xe1, ['sign', 0x7fff, 0]],
  [0xe4, ['tst']],
  [0xe5, ['xam']],
  [0xf0, ['f2xm1']],
  [0xf1, ['yl2x']],
  [0xf2, ['ptan']],
  [0xf3, ['patan']],
  [0xf4, ['xtract']],
  [0xf5, ['rem', 1]],
  [0xf6, ['rotate', 7]],
  [0xf7, ['rotate', 1]],
  [0xf8, ['rem', 0]],
  [0xf9, ['yl2xp1']],
  [0xfa, ['sqrt']],
  [0xfb, ['sincos']],
  [0xfc, ['rndint']],
  [0xfd, ['scale']],
  [0xfe, ['sin']],
  [0xff, ['cos']],
]);

/** The unit on its own: a memory with one state block, and the helpers. */
export class X87Unit {
  private readonly view: DataView;
  private readonly helpers: WebAssembly.Exports;

  constructor(module: WebAssembly.Module) {
    const memory = new WebAssembly.Memory({ initial: FRAME_POOL_BASE >> 16, maximum: 65536, shared: true });
    const imports: Record<string, Record<string, WebAssembly.ImportValue>> = {};
    for (const { module: space, name, kind } of WebAssembly.Module.imports(module)) {
      if (kind !== 'function' && kind !== 'memory') throw new Error(`the unit imports ${space}.${name}, a ${kind}`);
      // No replayed instruction touches guest memory, so none of the functions may be called.
      const refuse = (): never => {
        throw new Error(`${space}.${name} was called`);
      };
      imports[space] = { ...imports[space], [name]: kind === 'memory' ? memory : refuse };
    }
    const { exports } = new WebAssembly.Instance(module, imports);
    this.view = new DataView(memory.buffer);
    this.helpers = exports;
  }

  private call(name: string, ...args: (number | bigint)[]): number {
    const helper = this.helpers[`fx_${name}`] as Helper | undefined;
    if (helper === undefined) throw new Error(`the runtime exports no fx_${name}`);
    return helper(CPU_BASE, ...args);
  }
  private register(n: number): number {
    return CPU_BASE + S_X87 + (n & 7) * 16;
  }
  private get top(): number {
    return this.view.getUint32(CPU_BASE + S_X87_TOP, true);
  }
  private st(i: number): Extended {
    return extended(this.view, this.register(this.top + i));
  }

  run(v: Vector): Outcome {
    const { view } = this;
    view.setUint32(CPU_BASE + S_X87_CW, v.cw, true);
    view.setUint32(CPU_BASE + S_X87_SW, 0, true);
    view.setUint32(CPU_BASE + S_X87_TOP, v.top, true);
    view.setUint32(CPU_BASE + S_X87_TAGS, v.tags, true);
    for (let i = 0; i < 8; i++) {
      const value = i === 0 ? v.st0 : i === 1 ? v.st1 : { m: 0x8000000000000000n | (BigInt(i) << 40n), s: 0x4000 + i };
      view.setBigUint64(this.register(v.top + i), value.m, true);
      view.setBigUint64(this.register(v.top + i) + 8, BigInt(value.s), true);
    }
    const state = { mem: v.mem, flags: v.flags };
    if (v.modrm >= 0xc0) this.registerForm(v, state);
    else this.memoryForm(v, state);
    return {
      sw: this.call('sw'),
      tags: view.getUint32(CPU_BASE + S_X87_TAGS, true),
      flags: state.flags,
      st0: this.st(0),
      st1: this.st(1),
      mem: state.mem,
    };
  }

  /** Store of `size` bytes in two halves, as generated code does it. */
  private store(state: { mem: Extended }, size: number, pops: number, name: string, ...args: number[]): void {
    const status = this.call(name, ...args);
    if (status >= 0) {
      const value = this.view.getBigUint64(CPU_BASE + S_SCRATCH, true);
      const mask = size >= 8 ? 0n : (-1n << BigInt(size * 8)) & 0xffffffffffffffffn;
      const s = size === 10 ? this.view.getUint16(CPU_BASE + S_SCRATCH + 8, true) : state.mem.s;
      state.mem = { m: (state.mem.m & mask) | (value & (mask ^ 0xffffffffffffffffn)), s };
    }
    this.call('commit', status, pops);
  }

  private memoryForm(v: Vector, state: { mem: Extended }): void {
    const reg = (v.modrm >> 3) & 7;
    const { m, s } = v.mem;
    const i16 = Number(BigInt.asIntN(16, m));
    const i32 = Number(BigInt.asIntN(32, m));
    const i64 = BigInt.asIntN(64, m);
    const key = (v.escape << 4) | reg;
    if ((v.escape & 1) === 0) {
      const kind = ['f32', 'int', 'f64', 'int'][(v.escape >> 1) & 3] ?? '';
      const value = [i32, i32, i64, i16][(v.escape >> 1) & 3] ?? 0;
      if (reg === 2 || reg === 3) this.call(`com_${kind}`, value, reg - 2);
      else this.call(`arith_${kind}`, reg, value);
      return;
    }
    const load = LOADS.get(key);
    const store = STORES.get(key);
    if (load !== undefined) this.call(load[0], ...load[1](i64, s));
    else if (store !== undefined) this.store(state, ...store);
    else if (key === 0xd95) this.call('ldcw', i16);
    else if (key === 0xd97) state.mem = { m: (m & ~0xffffn) | BigInt(this.view.getUint16(CPU_BASE + S_X87_CW, true)), s };
    else if (key === 0xdd7) state.mem = { m: (m & ~0xffffn) | BigInt(this.call('sw')), s };
    else throw new Error(`no such memory form: ${key.toString(16)}`);
  }

  private compareFlags(state: { flags: number }, i: number, quiet: number, pops: number): void {
    const flags = this.call('comi', i, quiet, pops);
    // OF, SF and AF are cleared too; OF is not in the byte.
    if (flags >= 0) state.flags = flags | 2;
  }

  private registerForm(v: Vector, state: { flags: number }): void {
    const reg = (v.modrm >> 3) & 7;
    const i = v.modrm & 7;
    const cf = v.flags & 1;
    const pf = (v.flags >> 2) & 1;
    const zf = (v.flags >> 6) & 1;
    const conditions = [cf, zf, cf | zf, pf];
    switch (v.escape) {
      case 0xd8:
        if (reg === 2 || reg === 3) this.call('com', i, 0, reg - 2);
        else this.call('arith', reg, 0, i, 0);
        return;
      case 0xdc:
      case 0xde:
        if (v.modrm === 0xd9) this.call('com', 1, 0, 2);
        // The register forms of DC and DE have sub and subr, div and divr the other way round.
        else this.call('arith', reg >= 4 ? reg ^ 1 : reg, i, 0, v.escape === 0xde ? 1 : 0);
        return;
      case 0xda:
        if (v.modrm === 0xe9) this.call('com', 1, 1, 2);
        else this.call('cmov', i, conditions[reg] ?? 0);
        return;
      case 0xdb:
        if (v.modrm === 0xe2) this.call('clex');
        else if (reg >= 5) this.compareFlags(state, i, reg === 5 ? 1 : 0, 0);
        else this.call('cmov', i, 1 - (conditions[reg] ?? 0));
        return;
      case 0xdd:
        if (reg === 0) this.call('free', i, 0);
        else if (reg <= 3) this.call('st_st', i, reg - 2);
        else this.call('com', i, 1, reg - 4);
        return;
      case 0xdf:
        this.compareFlags(state, i, reg === 5 ? 1 : 0, 1);
        return;
      default:
        this.d9(v.modrm, reg, i);
    }
  }

  private d9(modrm: number, reg: number, i: number): void {
    if (reg === 0) this.call('ld_st', i);
    else if (reg === 1) this.call('xch', i);
    else if (reg === 5) this.call('ld_const', i);
    else {
      const call = D9_CALLS.get(modrm);
      if (call !== undefined) this.call(...call);
      else if (modrm !== 0xd0) throw new Error(`no such register form: d9 ${modrm.toString(16)}`);
    }
  }
}

/** What differs from the native outcome, as text; empty when nothing does. */
export function differences(got: Outcome, want: Outcome): string[] {
  const hex = (v: Extended): string => `${v.s.toString(16).padStart(4, '0')}:${v.m.toString(16).padStart(16, '0')}`;
  const list: string[] = [];
  const check = (name: string, a: string, b: string): void => {
    if (a !== b) list.push(`${name} ${a}, native ${b}`);
  };
  check('sw', got.sw.toString(16), want.sw.toString(16));
  check('tags', got.tags.toString(16), want.tags.toString(16));
  check('flags', got.flags.toString(16), want.flags.toString(16));
  check('st0', hex(got.st0), hex(want.st0));
  check('st1', hex(got.st1), hex(want.st1));
  check('mem', hex(got.mem), hex(want.mem));
  return list;
}
