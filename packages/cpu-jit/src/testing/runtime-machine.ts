/** A vCPU with the Wasm runtime and no generated code, for tests of the runtime. */
import {
  CPU_BASE,
  FRAME_POOL_BASE,
  JC_BASE,
  PAGING_GUEST,
  RUN_LIMIT,
  S_CODE_SIZE,
  S_CPL,
  S_CR0,
  S_CR3,
  S_CR4,
  S_EFER,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_FAR_LIMIT,
  S_GPR,
  S_ICOUNT_LIMIT,
  S_JC,
  S_TLB,
  TLB_BASE,
  V_PAGING,
  V_RAM_BASE,
  V_RAM_LOW,
} from '../layout.ts';
import { instantiateRuntime, type RuntimeExports, type RuntimeHooks } from '../runtime.ts';

export type { RuntimeExports, RuntimeHooks };
export { instantiateRuntime };

export const PAGE = 4096;
export const CPU = CPU_BASE;
export const RAM_BASE = FRAME_POOL_BASE;
export const RAM_BYTES = 16 << 20;

export const CR0_PG_WP_PE = 0x8001_0001;
export const CR4_PAE = 1 << 5;
export const EFER_LMA_LME_NXE = 0xd00;

/** Exports only generated code calls, which tests call too. */
export interface HelperExports extends RuntimeExports {
  sys_write_cr(cpu: number, register: number, value: bigint): number;
  sys_invlpg(cpu: number, va: bigint): number;
  invalidatePcid(cpu: number, type: number, pcid: number, va: bigint): void;
  rep_movs(cpu: number, size: number, addrSize: number, rep: number, segOffset: number): number;
  rep_stos(cpu: number, size: number, addrSize: number, rep: number, segOffset: number): number;
  rep_lods(cpu: number, size: number, addrSize: number, rep: number, segOffset: number): number;
  rep_cmps(cpu: number, size: number, addrSize: number, rep: number, segOffset: number): number;
  rep_scas(cpu: number, size: number, addrSize: number, rep: number, segOffset: number): number;
  blockHead(hpa: number): number;
  mul64hi_u(a: bigint, b: bigint): bigint;
  mul64hi_s(a: bigint, b: bigint): bigint;
  div128_u(high: bigint, low: bigint, d: bigint): bigint;
  pext(v: bigint, mask: bigint): bigint;
  pdep(v: bigint, mask: bigint): bigint;
  crc32c(crc: number, v: bigint, size: number): number;
  cpuid(cpu: number): void;
  rdtsc(cpu: number): bigint;
  rdrand(cpu: number): bigint;
  fxsave(cpu: number, va: bigint, rexw: number): void;
  fxrstor(cpu: number, va: bigint, rexw: number): void;
  xsave(cpu: number, va: bigint, rexw: number, kind: number): void;
  xrstor(cpu: number, va: bigint, rexw: number): void;
}

export class RuntimeMachine {
  readonly memory = new WebAssembly.Memory({ initial: (RAM_BASE + RAM_BYTES) / 65536, maximum: 65536, shared: true });
  readonly table = new WebAssembly.Table({ element: 'anyfunc', initial: 64 });
  readonly view = new DataView(this.memory.buffer);
  readonly u8 = new Uint8Array(this.memory.buffer);
  /** Replace to observe or to answer. */
  readonly hooks: RuntimeHooks = { mmuFault: () => 1, mmio: () => 1, smc: () => 0, hot: () => {}, hostTsc: () => 0 };
  private exports: HelperExports | undefined;

  static async create(): Promise<RuntimeMachine> {
    const m = new RuntimeMachine();
    m.exports = (await instantiateRuntime(m.memory, m.table, {
      mmuFault: (cpu) => m.hooks.mmuFault(cpu),
      mmio: (cpu) => m.hooks.mmio(cpu),
      smc: (cpu) => m.hooks.smc(cpu),
      hot: (cpu) => m.hooks.hot(cpu),
      hostTsc: () => m.hooks.hostTsc(),
    })) as HelperExports;
    m.reset();
    return m;
  }
  get rt(): HelperExports {
    if (this.exports === undefined) throw new Error('not instantiated');
    return this.exports;
  }
  /** 64-bit mode, CPL 0, guest paging with CR3 = 0x1000 and empty tables. */
  reset(): void {
    this.u8.fill(0, CPU, CPU + 0x8000);
    this.u8.fill(0, RAM_BASE, RAM_BASE + RAM_BYTES);
    this.set(S_TLB, TLB_BASE);
    this.set(S_JC, JC_BASE);
    this.set(S_CODE_SIZE, 64);
    this.set(V_RAM_BASE, RAM_BASE);
    this.set(V_RAM_LOW, RAM_BYTES);
    this.set(V_PAGING, PAGING_GUEST);
    this.set(S_CR0, CR0_PG_WP_PE);
    this.set(S_CR3, 0x1000);
    this.set(S_CR4, CR4_PAE);
    this.set(S_EFER, EFER_LMA_LME_NXE);
    for (const at of [S_ICOUNT_LIMIT, S_FAR_LIMIT]) this.set64(at, 0xffff_ffff_ffff_ffffn);
    // `run` would do that; tests call compiled code without it.
    this.view.setBigUint64(RUN_LIMIT, 0xffff_ffff_ffff_ffffn, true);
    this.rt.tlbFlushAll(CPU);
  }
  /** The same with page tables that map nothing, and hooks that refuse. */
  startAnew(): void {
    this.reset();
    this.clearTables();
    Object.assign(this.hooks, { mmuFault: () => 1, mmio: () => 1, smc: () => 0 });
  }
  get(offset: number): number {
    return this.view.getUint32(CPU + offset, true);
  }
  set(offset: number, value: number): void {
    this.view.setUint32(CPU + offset, value, true);
  }
  get64(offset: number): bigint {
    return this.view.getBigUint64(CPU + offset, true);
  }
  set64(offset: number, value: bigint): void {
    this.view.setBigUint64(CPU + offset, BigInt.asUintN(64, value), true);
  }
  reg(n: number): bigint {
    return this.get64(S_GPR + n * 8);
  }
  setReg(n: number, v: bigint): void {
    this.set64(S_GPR + n * 8, v);
  }
  setCpl(cpl: number): void {
    this.set(S_CPL, cpl);
    this.rt.selectArray(CPU, cpl === 3 ? 1 : 0);
  }
  /** Guest-physical memory. */
  phys64(gpa: number): bigint {
    return this.view.getBigUint64(RAM_BASE + gpa, true);
  }
  setPhys64(gpa: number, v: bigint): void {
    this.view.setBigUint64(RAM_BASE + gpa, BigInt.asUintN(64, v), true);
  }
  setPhys32(gpa: number, v: number): void {
    this.view.setUint32(RAM_BASE + gpa, v, true);
  }
  /** Takes the pending exception: undefined, or vector, error code and address (of a page fault). */
  takeException(): { vector: number; error: number; address?: bigint } | undefined {
    const exc = this.get(S_EXC);
    if (exc === 0) return undefined;
    this.set(S_EXC, 0);
    const vector = exc - 1;
    return vector === 14 ? { vector, error: this.get(S_EXC_ERROR), address: this.get64(S_EXC_ADDR) } : { vector, error: this.get(S_EXC_ERROR) };
  }

  private nextTable = 0x2000;
  /** Restarts table allocation (with `reset`). */
  clearTables(): void {
    this.nextTable = 0x2000;
  }
  /** Maps one page at `shift` (12, 21, 30) in 4-level tables below CR3; upper levels allow everything. */
  map(va: bigint, gpa: bigint, flags: bigint, shift = 12): void {
    let table = this.get(S_CR3) & ~0xfff;
    for (let level = 39; level > shift; level -= 9) {
      const at = table + Number((va >> BigInt(level)) & 511n) * 8;
      let entry = this.phys64(at);
      if ((entry & 1n) === 0n) {
        entry = BigInt(this.nextTable) | 7n;
        this.nextTable += PAGE;
        this.setPhys64(at, entry);
      }
      table = Number(entry & 0x000f_ffff_ffff_f000n);
    }
    this.setPhys64(table + Number((va >> BigInt(shift)) & 511n) * 8, gpa | flags | (shift > 12 ? 0x80n : 0n));
  }
}

/** Small repeatable generator: xorshift32. */
export function random(seed: number): (limit: number) => number {
  let x = seed | 0 || 1;
  return (limit) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % limit;
  };
}
