/** What a CPU is made of, and what it tells of itself. */
import type { CpuLevel } from './features.ts';
import type { JitCounts } from './jit/jit.ts';
import type { TierSamples } from './sampler.ts';
import type { Stalls } from './stalls.ts';

/** For `setLimit`: never. */
export const NO_LIMIT = 0xffff_ffff_ffff_ffffn;

/** Files of compiled code are called so, see `CpuOptions.codeCache`. */
export const CODE_CACHE_EXTENSION = '.pvm-code';

/** Where an event comes from, in the order of assembly/events.ts; `icebp` is INT1. */
export const EVENT_KINDS = ['fault', 'trap', 'external', 'software', 'icebp'] as const;
export type EventKind = (typeof EVENT_KINDS)[number];

/** Synchronous calls from generated code; arguments are in the `S_EXIT_*` fields of the state block. */
export interface CpuHooks {
  /** The page walk failed: 0 fixed, walk again; 1 raise the #PF in `S_EXC*`; 2 the access was emulated; 3 leave `run` with EXIT_REQUEST. */
  mmuFault(vcpu: number): 0 | 1 | 2 | 3;
  /** Access to guest-physical `S_EXIT_GPA` outside RAM: 2 done, 1 exception in `S_EXC*`. */
  mmio(vcpu: number): 1 | 2;
}

export interface CpuOptions {
  /** Guest RAM in bytes, a multiple of 4 KiB, at most 3.5 GiB. */
  readonly ramBytes: number;
  /** Frames for shadow page tables, bytes; default 16 MiB. */
  readonly framePoolBytes?: number;
  /** 1 to 8; default 1. */
  readonly vcpus?: number;
  /** `off`: interpreter only; `sync`: compile hot code at once on this thread; `on` (default). */
  readonly jit?: 'off' | 'on' | 'sync';
  /** Two compiled regions are merged when both have been entered so often for each 20 instructions of theirs: a power of two. For tests; default 32,768. */
  readonly mergeAfter?: number;
  /** Bytes of compiled Wasm that may be in use; when there are more, all are dropped. Default 64 MiB. */
  readonly codeBytes?: number;
  /** File that keeps compiled code from run to run, see code-store.ts; made when it is missing. Only with `jit: 'on'`. Default: none. */
  readonly codeCache?: string | undefined;
  /** What V8's profiler (`--cpu-prof`, `perf`) should call compiled guest code that starts at a virtual address. Default: no names, which are bytes to compile. */
  readonly nameRegion?: ((rip: bigint) => string) | undefined;
  /** Source of the TSC: retired instructions (default) or the host's clock, both nominally 1 tick = 1 ns. */
  readonly clock?: 'icount' | 'host';
  /** Sample which tier runs (`stats().samples`), from a thread of its own; default false. */
  readonly sample?: boolean;
  /** x86-64-v2 (default), or v3: with AVX, AVX2, FMA and F16C. Decides what there is; what CPUID says is the owner's (`cpuidLeaves`). */
  readonly cpu?: CpuLevel;
  readonly hooks?: Partial<CpuHooks>;
  /**
   * Module with exports `syscall(cpu: i32) -> i32` that serves SYSCALL in `SYSCALL_PVM` mode, and `page_fault(cpu: i32) -> i32` that takes #PF where
   * `directPageFaults` asked for it. It may import `env.memory`, `env.getFlags`, `env.setFlags`, `env.flushArray`, `env.syscall_native`.
   */
  readonly switcher?: WebAssembly.Module;
}

/** Names of LEFT_*. */
export const LEFT_NAMES = ['no region', 'declined', 'exception', 'limit', 'event check', 'VM exit'] as const;

/** Counters since creation. */
export interface CpuStats {
  /** Retired instructions. */
  readonly instructions: bigint;
  readonly tlbMisses: number;
  /** Data accesses that the TLB allowed; undefined while they are not counted (`countTlbHits`). */
  readonly tlbHits: number | undefined;
  readonly tlbFlushes: number;
  readonly walks: number;
  readonly interpreterBlocks: number;
  readonly compiledEntries: number;
  readonly jumpCacheMisses: number;
  /** Of `instructions`, those that compiled code retired. */
  readonly compiledInstructions: number;
  /** How often compiled code came back to the dispatcher, by LEFT_*; `LEFT_NAMES` says why that was. */
  readonly compiledCodeLeft: readonly number[];
  /** Blocks and instructions decoded, pieces of code dropped because it changed. */
  readonly blocksDecoded: number;
  readonly instructionsDecoded: number;
  readonly codeInvalidations: number;
  /** Where vCPU 0 was found by the sampler; undefined without `sample`. */
  readonly samples: TierSamples | undefined;
  /** What kept the thread from running vCPUs, by cause. */
  readonly stalls: Stalls;
  /** The compiler's counters; undefined with `jit: 'off'`. */
  readonly jit: Readonly<JitCounts> | undefined;
}
