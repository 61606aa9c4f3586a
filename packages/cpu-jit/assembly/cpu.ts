// Small accessors of the vCPU state block.
import {
  CPU_BASE, CPU_STRIDE, EXIT_EXCEPTION, NEXT_CHECK, S_CODE_SIZE, S_EXC, S_EXC_ADDR, S_EXC_ERROR, S_EXIT_INSN_LEN, S_ICOUNT, S_RIP,
  TLB_ARRAY_SIZE, TLB_BASE, TLB_CPU_SIZE, V_LEVELS,
} from "../src/layout";

export const CR0_PE: u32 = 1;
export const CR0_AM: u32 = 1 << 18;
export const CR0_WP: u32 = 1 << 16;
export const CR0_PG: u32 = 1 << 31;
export const CR4_PSE: u32 = 1 << 4;
export const CR4_PAE: u32 = 1 << 5;
export const CR4_LA57: u32 = 1 << 12;
export const CR4_PGE: u32 = 1 << 7;
export const CR4_PCIDE: u32 = 1 << 17;
export const CR4_SMEP: u32 = 1 << 20;
export const CR4_SMAP: u32 = 1 << 21;
export const CR4_PKE: u32 = 1 << 22;
export const EFER_LMA: u32 = 1 << 10;
export const EFER_NXE: u32 = 1 << 11;
export const RFLAGS_TF: u32 = 1 << 8;
export const RFLAGS_IF: u32 = 1 << 9;
export const RFLAGS_DF: u32 = 1 << 10;
export const RFLAGS_IOPL: u32 = 3 << 12;
export const RFLAGS_NT: u32 = 1 << 14;
export const RFLAGS_RF: u32 = 1 << 16;
export const RFLAGS_VM: u32 = 1 << 17;
export const RFLAGS_AC: u32 = 1 << 18;

export const DE: u32 = 0;
export const DB: u32 = 1;
export const UD: u32 = 6;
export const AC: u32 = 17;
export const DF: u32 = 8;
export const TS: u32 = 10;
export const NP: u32 = 11;
export const SS_FAULT: u32 = 12;
export const GP: u32 = 13;
export const PF: u32 = 14;

/** Raise exception `vector` in the current instruction. */
export function raise(cpu: u32, vector: u32, error: u32): void {
  store<u32>(cpu, vector + 1, S_EXC);
  store<u32>(cpu, error, S_EXC_ERROR);
}

export function raisePageFault(cpu: u32, va: u64, error: u32): void {
  store<u64>(cpu, va, S_EXC_ADDR);
  raise(cpu, PF, error);
}

@inline
export function count(cpu: u32, offset: u32): void {
  store<u64>(cpu + offset, load<u64>(cpu + offset) + 1);
}

@inline
export function cpuIndex(cpu: u32): u32 {
  return (cpu - <u32>CPU_BASE) / <u32>CPU_STRIDE;
}

/** Address of TLB array `array` of this vCPU. */
@inline
export function tlbArray(cpu: u32, array: u32): u32 {
  return <u32>TLB_BASE + cpuIndex(cpu) * <u32>TLB_CPU_SIZE + array * <u32>TLB_ARRAY_SIZE;
}

/** Linear addresses outside 64-bit mode are 32 bits wide. */
@inline
export function linear(cpu: u32, va: u64): u64 {
  return load<u32>(cpu, S_CODE_SIZE) == 64 ? va : va & 0xffff_ffff;
}

/** RIP after the instruction at S_RIP, whose length is in S_EXIT_INSN_LEN. */
export function nextRip(cpu: u32): u64 {
  return linear(cpu, load<u64>(cpu, S_RIP) + load<u32>(cpu, S_EXIT_INSN_LEN));
}

/** The instruction at S_RIP is done and control is at `rip`: count it; what `transfer` instructions return. */
export function doneAt(cpu: u32, rip: u64): u32 {
  store<u64>(cpu, rip, S_RIP);
  store<u64>(cpu, load<u64>(cpu, S_ICOUNT) + 1, S_ICOUNT);
  return NEXT_CHECK;
}
export function done(cpu: u32): u32 {
  return doneAt(cpu, nextRip(cpu));
}

/** The instruction at S_RIP raises `vector`; what `transfer` instructions return. */
export function fail(cpu: u32, vector: u32, error: u32): u32 {
  raise(cpu, vector, error);
  return EXIT_EXCEPTION;
}

/** Is the address sign-extended from the width of the paging in use? */
export function isCanonical(cpu: u32, va: u64): bool {
  const spare: u64 = load<u32>(cpu, V_LEVELS) == 5 ? 7 : 16;
  return <u64>(<i64>(va << spare) >> spare) == va;
}
