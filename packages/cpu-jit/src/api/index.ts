export type { Address, Range } from './address.ts';
export { Cpu, type CpuCreateOptions, type DisassembledInsn, type RunOptions } from './cpu.ts';
export type { Permissions, Region } from './guest-pages.ts';
export type { CodeHook, CpuidHook, HookResult, InterruptHook, MemoryAccess, MemoryHook, MsrHook, PortAccess, PortHook, SyscallHook } from './hooks.ts';
export { type CpuState, type RegisterName, Registers, type SegmentName } from './registers.ts';
export type { StopReason } from './stop-reason.ts';
