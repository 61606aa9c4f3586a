// Entry of the Wasm runtime: what generated code and TypeScript may call.
export {
  load8, load16, load32, load64, load128, loadw8, loadw16, loadw32, loadw64, loadw128, store8, store16, store32, store64, store128,
  loadSys16, loadSys32, loadSys64, storeSys8, storeSys16, storeSys32, storeSys64, probeExec, probeSpan, probeWrite, translate, translateExec,
} from "./memory";
export {
  forgetLinks, jumpCacheFlush, newContext, protectFrame, selectArray, setPkru, tlbFlushAll, tlbFlushArray, tlbFlushNonGlobal,
  tlbInvlpg,
} from "./tlb";
export { decodeKnown } from "./decode";
export { blockHead, lookupBlock, callRecord, run } from "./run";
export { attention, inject, interruptible, sys_int } from "./events";
export { alignment, enterCode, setCpl, setSegment, sys_enter } from "./mode";
export { load_segment, sys_access, sys_lldt, sys_ltr } from "./segment";
export { sys_callf, sys_iret, sys_jmpf, sys_retf } from "./far";
export { syscall_native, sys_sysenter, sys_sysexit, sys_sysret } from "./syscall";
export { invalidatePcid, sys_invlpg, sys_invpcid, sys_lmsw, sys_write_cr, sys_xsetbv, write_cr } from "./control";
export { debug_completed, debug_fetch, debug_step, debug_trap, sys_read_dr, sys_write_dr, watch } from "./debug";
export { sys_rdmsr, sys_wrmsr } from "./msr";
export { segment_fault } from "./limits";
export { io_allowed, io_complete, io_open, sys_string_io } from "./port";
export { condition, getFlags, setFlags } from "./flags";
export * from "./aes";
export * from "./sha";
export {
  sse_arith, sse_comis, sse_compare, sse_from_dwords, sse_from_integer, sse_narrow, sse_round, sse_to_dwords, sse_to_integer, sse_widen,
} from "./sse-float";
export { fuses, sse_fma } from "./sse-fma";
export * from "./f16c";
export * from "./muldiv";
export * from "./bits";
export { rep_cmps, rep_lods, rep_movs, rep_scas, rep_stos } from "./string";
export * from "./time";
export { cpuid } from "./cpuid";
export { fxrstor, fxsave, xrstor, xsave } from "./xsave";
export * from "./pcmpstr";
export { profileTarget } from "./profile";
