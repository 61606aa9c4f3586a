import { readFileSync } from 'node:fs';
import { CpuError } from './errors.ts';

/** Calls from the runtime into TypeScript; `cpu` is the address of the state block, arguments are in its S_EXIT_* fields. */
export interface RuntimeHooks {
  /** The hypervisor's tables have no translation: 0 fixed, walk again; 1 exception in S_EXC*; 2 access done; 3 leave `run`. */
  mmuFault(cpu: number): number;
  /** Access to S_EXIT_GPA, which is not RAM: 2 done (a loaded value in S_EXIT_VALUE), 1 exception in S_EXC*. */
  mmio(cpu: number): number;
  /** A single-stepped store is about to change translated code: S_EXIT_BLOCK, S_EXIT_SIZE. */
  smc(cpu: number): number;
  /** The block with the descriptor in S_EXIT_BLOCK became hot. */
  hot(cpu: number): void;
  /** Host clock in TSC ticks. */
  hostTsc(): number;
}

/** Exports that TypeScript calls; generated code imports more of them (see assembly/index.ts). u32 results come as i32. */
export interface RuntimeExports {
  /** Runs from S_RIP until an exit: EXIT_*. */
  run(cpu: number): number;
  /** Runs the records at `record` once, S_BLOCK_RIP being set: NEXT, NEXT_CHECK or EXIT_*. */
  callRecord(cpu: number, record: number): number;
  lookupBlock(cpu: number): number;
  /** Decodes, on from DECODED_*, what has templates of the block of 64-bit code at `hpa`, of which `room` bytes lie in its page. */
  decodeKnown(hpa: number, room: number): void;
  syscall_native(cpu: number): number;
  /** Delivers what is pending between two instructions: NEXT, NEXT_CHECK or EXIT_*. */
  attention(cpu: number): number;
  /** Delivers an event whatever is intercepted; `kind` as in assembly/events.ts. NEXT_CHECK or EXIT_SHUTDOWN. */
  inject(cpu: number, vector: number, kind: number, error: number): number;
  /** MOV to the control register at state-block offset `register`, whatever the hypervisor owns of it; NEXT_CHECK, or EXIT_EXCEPTION with S_EXC set. */
  write_cr(cpu: number, register: number, value: bigint): number;
  /** XSETBV by the registers; the same results. */
  sys_xsetbv(cpu: number): number;
  /** RDMSR and WRMSR by the registers: NEXT_CHECK, EXIT_EXCEPTION with S_EXC set, or EXIT_MSR_*. */
  sys_rdmsr(cpu: number): number;
  sys_wrmsr(cpu: number): number;
  /** CPUID by the registers. */
  cpuid(cpu: number): void;
  /** Before a single instruction: NEXT, or what came of delivering the breakpoint at it; uses up RFLAGS.RF. */
  debug_fetch(cpu: number): number;
  /** MOV to the debug register at state-block offset `register`. */
  sys_write_dr(cpu: number, register: number, value: bigint): number;
  /** After a single instruction that TF was set before; `branch`: it was a branch that was taken. */
  debug_step(cpu: number, branch: number): void;
  debug_trap(cpu: number): void;
  /** The instruction at RIP was completed from outside: with TF a trap is due. */
  debug_completed(cpu: number): void;
  /** The debug registers were written from outside: arms what they say. */
  watch(cpu: number): void;
  /** 1 when an external interrupt could be delivered now. */
  interruptible(cpu: number): number;
  /** Finishes the IN, OUT, INS or OUTS that left with EXIT_IO: NEXT_CHECK, or EXIT_EXCEPTION with S_EXC set. */
  io_complete(cpu: number): number;
  /** Whether Wasm's relaxed multiply-add rounds once on this host. */
  fuses(): number;
  setSegment(cpu: number, n: number, selector: number, base: bigint, limit: number, attr: number): void;
  setCpl(cpu: number, cpl: number): void;
  /** CPL, RFLAGS.AC or CR0.AM was changed: alignment checks and SMAP follow. */
  alignment(cpu: number): void;
  /** CS or the mode was changed from outside: S_CODE_SIZE and the context follow. */
  enterCode(cpu: number): void;

  /** HPA, or 0 with S_EXC set (`probeExec`: without). */
  translateExec(cpu: number, va: bigint): number;
  probeExec(cpu: number, va: bigint): number;
  /** HPA of the byte for ACCESS_*; 0: S_EXC set, or the access was emulated. */
  translate(cpu: number, va: bigint, access: number): number;
  /** 1 when [va, va + size), at most two pages, may be written; else 0 with S_EXC set. */
  probeWrite(cpu: number, va: bigint, size: number): number;
  load8(cpu: number, va: bigint): number;
  load16(cpu: number, va: bigint): number;
  load32(cpu: number, va: bigint): number;
  load64(cpu: number, va: bigint): bigint;
  store8(cpu: number, va: bigint, value: number): void;
  store16(cpu: number, va: bigint, value: number): void;
  store32(cpu: number, va: bigint, value: number): void;
  store64(cpu: number, va: bigint, value: bigint): void;
  loadw8(cpu: number, va: bigint): number;
  loadw16(cpu: number, va: bigint): number;
  loadw32(cpu: number, va: bigint): number;
  loadw64(cpu: number, va: bigint): bigint;
  /** At privilege 0 whatever CPL is: descriptor tables, task state. */
  loadSys16(cpu: number, va: bigint): number;
  loadSys32(cpu: number, va: bigint): number;
  loadSys64(cpu: number, va: bigint): bigint;
  storeSys8(cpu: number, va: bigint, value: number): void;
  storeSys16(cpu: number, va: bigint, value: number): void;
  storeSys32(cpu: number, va: bigint, value: number): void;
  storeSys64(cpu: number, va: bigint, value: bigint): void;

  /** Makes an array the current one (S_TLB, S_CTX). */
  selectArray(cpu: number, array: number): void;
  newContext(cpu: number, array: number): void;
  /** Everything cached by virtual code address is stale, in all arrays. */
  forgetLinks(cpu: number): void;
  jumpCacheFlush(cpu: number): void;
  protectFrame(cpu: number, hpa: number): void;
  tlbFlushArray(cpu: number, array: number): void;
  tlbFlushNonGlobal(cpu: number, array: number): void;
  tlbFlushAll(cpu: number): void;
  tlbInvlpg(cpu: number, array: number, va: bigint): void;
  setPkru(cpu: number, value: number): void;

  /** Status flags at RFLAGS positions. */
  getFlags(cpu: number): number;
  setFlags(cpu: number, flags: number): void;
  condition(cpu: number, cc: number): number;
}

let compiled: WebAssembly.Module | undefined;

/** The runtime's module, compiled once per thread. Throws `CpuError` when the package has not been built. */
export function runtimeModule(): WebAssembly.Module {
  if (compiled === undefined) {
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = new Uint8Array(readFileSync(new URL('../build/runtime.wasm', import.meta.url)));
    } catch (cause) {
      throw new CpuError('not-built', 'build/runtime.wasm is missing from @pvm/cpu-jit: run `pnpm build`', { cause });
    }
    compiled = new WebAssembly.Module(bytes);
  }
  return compiled;
}

/** Instantiates the Wasm runtime on the shared memory and the function table. One instance per thread. */
export async function instantiateRuntime(memory: WebAssembly.Memory, table: WebAssembly.Table, hooks: RuntimeHooks): Promise<RuntimeExports> {
  const instance = await WebAssembly.instantiate(runtimeModule(), { env: { memory, table }, host: { ...hooks } });
  return instance.exports as unknown as RuntimeExports;
}
