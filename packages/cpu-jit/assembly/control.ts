// Control and debug registers, and the invalidation of translations (SDM vol. 3, 2.5, 4.10).
import {
  CS, EXIT_PRIVILEGED, INTERCEPT_CR3_LOAD, INTERCEPT_INVLPG, S_CPL, S_CR0, S_CR2, S_CR3, S_CR4, S_CR8, S_EFER, S_EXC, S_EXIT_GPA, S_EXIT_VA, S_EXIT_VALUE, S_GPR, S_TLB, S_XCR0, SEG_ATTR, T_PCID, T_PCID_CLOCK, T_PCID_USED, T_USED,
  TLB_ARRAYS, TLB_SLOTS, V_CR0_FLIP, V_CR0_MASK, V_CR4_FLIP, V_CR4_MASK, V_DEPRIVILEGED, V_INTERCEPTS, V_LEVELS, V_SLOT, MAXPHYADDR,
} from "../src/layout";
import {
  CR0_PE, CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PCIDE, CR4_PGE, CR4_PKE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NXE, GP, UD, done, fail,
  isCanonical,
} from "./cpu";
import { tprChanged } from "./apic-page";
import { supportedXcr0 } from "./cpuid";
import { watch } from "./debug";
import { load64 } from "./memory";
import { ATTR_LONG, enterCode, longMode, segmentAt } from "./mode";
import { updateSmap } from "./smap";
import { selectArray, shareContext, tlbFlushAll, tlbFlushArray, tlbFlushNonGlobal, tlbInvlpg } from "./tlb";

const EFER_SCE: u32 = 1;
const EFER_LME: u32 = 1 << 8;
/** CR0: PE MP EM TS ET NE WP AM NW CD PG. */
const CR0_KNOWN: u32 = 0xe005_003f;
const CR0_ET: u32 = 1 << 4;
const CR0_NW: u32 = 1 << 29;
const CR0_CD: u32 = 1 << 30;
/** CR4 without VME, PVI, VMXE, SMXE, CET, PKS, which CPUID does not report: what a guest may set. */
const CR4_KNOWN: u64 = 0x0077_1ffc;
const CR4_DE: u32 = 8;
const CR4_OSXSAVE: u32 = 1 << 18;
/** CR4 bits that change what translations mean. */
const CR4_TRANSLATION: u32 = CR4_PGE | CR4_PAE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_LA57;
const CR3_NO_FLUSH: u64 = 1 << 63;
const NOT_PHYSICAL: u64 = ~((<u64>1 << MAXPHYADDR) - 1);

/** What the guest reads as CR0 or CR4 while the register holds `value`, and the other way round. */
function throughShadow(cpu: u32, register: u32, value: u64): u64 {
  return value ^ <u64>load<u32>(cpu + (register == S_CR0 ? V_CR0_FLIP : V_CR4_FLIP));
}

/** Does the hypervisor want to see this value go to CR0 or CR4: it changes a bit that is its own? */
function ownsChange(cpu: u32, register: u32, value: u64): bool {
  const changed = throughShadow(cpu, register, load<u64>(cpu + register)) ^ value;
  // Kernels toggle PGE to flush all TLBs: the hypervisor of a deprivileged one has heard of it when PGE was cleared.
  if (register == S_CR4 && changed == CR4_PGE && value & CR4_PGE && load<u32>(cpu, V_DEPRIVILEGED)) return false;
  return (changed & <u64>load<u32>(cpu + (register == S_CR0 ? V_CR0_MASK : V_CR4_MASK))) != 0;
}

/** The hypervisor gets the value that would have been visible. */
function leaveWith(cpu: u32, value: u64): u32 {
  store<u64>(cpu, value, S_EXIT_VALUE);
  return EXIT_PRIVILEGED;
}

/** MOV to the control register at state-block offset `register`; it takes effect at once. */
export function sys_write_cr(cpu: u32, register: u32, value: u64): u32 {
  let real = value;
  if (register == S_CR0 || register == S_CR4) {
    if (ownsChange(cpu, register, value)) return leaveWith(cpu, value);
    real = throughShadow(cpu, register, value);
  }
  if (register == S_CR3 && load<u32>(cpu, V_INTERCEPTS) & INTERCEPT_CR3_LOAD) return EXIT_PRIVILEGED;
  return write_cr(cpu, register, real);
}

/** The same for the hypervisor: whatever it owns, and without read shadows. */
export function write_cr(cpu: u32, register: u32, value: u64): u32 {
  let ok = true;
  if (register == S_CR0) ok = setCr0(cpu, value);
  else if (register == S_CR2) store<u64>(cpu, value, S_CR2);
  else if (register == S_CR3) ok = setCr3(cpu, value);
  else if (register == S_CR4) ok = setCr4(cpu, value);
  else if (value > 15) ok = false;
  else if (value != load<u64>(cpu, S_CR8)) {
    store<u64>(cpu, value, S_CR8);
    return tprChanged(cpu, done(cpu));
  }
  return ok ? done(cpu) : fail(cpu, GP, 0);
}

/** LMSW changes MP, EM, TS, and PE only to 1. */
export function sys_lmsw(cpu: u32, value: u32): u32 {
  const wanted = (throughShadow(cpu, S_CR0, load<u64>(cpu, S_CR0)) & ~0xe) | (value & 0xf);
  if (ownsChange(cpu, S_CR0, wanted)) return leaveWith(cpu, wanted);
  setCr0(cpu, throughShadow(cpu, S_CR0, wanted));
  return done(cpu);
}

function setCr0(cpu: u32, wanted: u64): bool {
  if (wanted >> 32) return false;
  const value = (<u32>wanted & CR0_KNOWN) | CR0_ET;
  if ((value & (CR0_PG | CR0_PE)) == CR0_PG || (value & (CR0_NW | CR0_CD)) == CR0_NW) return false;
  const old = load<u32>(cpu, S_CR0);
  const efer = load<u32>(cpu, S_EFER);
  const cr4 = load<u32>(cpu, S_CR4);
  const isLong = (load<u32>(segmentAt(cpu, CS), SEG_ATTR) & ATTR_LONG) != 0;
  if (value & CR0_PG && !(old & CR0_PG)) {
    if (efer & EFER_LME) {
      if (!(cr4 & CR4_PAE) || (isLong && !(efer & EFER_LMA))) return false;
      store<u32>(cpu, efer | EFER_LMA, S_EFER);
    }
  } else if (!(value & CR0_PG) && old & CR0_PG) {
    if (cr4 & CR4_PCIDE || (efer & EFER_LMA && isLong)) return false;
    store<u32>(cpu, efer & ~EFER_LMA, S_EFER);
  }
  store<u64>(cpu, value, S_CR0);
  if ((old ^ value) & (CR0_PG | CR0_PE | CR0_WP)) {
    tlbFlushAll(cpu);
    enterCode(cpu);
  }
  return true;
}

function setCr4(cpu: u32, value: u64): bool {
  if (value & ~CR4_KNOWN || value >> 13 & 3) return false;
  const old = load<u32>(cpu, S_CR4);
  const changed = old ^ <u32>value;
  const long = longMode(cpu);
  if (long && (!(value & CR4_PAE) || changed & CR4_LA57)) return false;
  if (<u32>value & ~old & CR4_PCIDE && (!long || load<u32>(cpu, S_CR3) & 0xfff)) return false;
  store<u64>(cpu, value, S_CR4);
  store<u32>(cpu, <u32>value & CR4_LA57 ? 5 : 4, V_LEVELS);
  // Shadow translations are never staler than the guest's tables, so a kernel that toggles PGE to flush finds that done.
  if (changed & CR4_TRANSLATION && !(load<u32>(cpu, V_DEPRIVILEGED) && changed == CR4_PGE)) tlbFlushAll(cpu);
  if (changed & CR4_SMAP) updateSmap(cpu);
  if (changed & CR4_DE) watch(cpu);
  if (changed & CR4_PCIDE) {
    // The slot in use goes on as that of PCID 0.
    memory.fill(cpu + T_PCID, 0, TLB_SLOTS * 4);
    const slot = cpu + (load<u32>(cpu, V_SLOT) << 2);
    store<u32>(slot, 1, T_PCID);
    const now = load<u32>(cpu, T_PCID_CLOCK) + 1;
    store<u32>(cpu, now, T_PCID_CLOCK);
    store<u32>(slot, now, T_PCID_USED);
  }
  return true;
}

/** Flush the two arrays of a slot, global pages excepted. */
function flushSlot(cpu: u32, slot: u32): void {
  if (load<u32>(cpu, S_CR4) & CR4_PGE) {
    tlbFlushNonGlobal(cpu, slot << 1);
    tlbFlushNonGlobal(cpu, (slot << 1) + 1);
  } else {
    tlbFlushArray(cpu, slot << 1);
    tlbFlushArray(cpu, (slot << 1) + 1);
  }
}

/** Slot of TLB arrays that holds `pcid`, -1: none. */
function slotOf(cpu: u32, pcid: u32): i32 {
  for (let slot: u32 = 0; slot < <u32>TLB_SLOTS; slot++) if (load<u32>(cpu + (slot << 2), T_PCID) == pcid + 1) return slot;
  return -1;
}

/** The slot for `pcid`: the one that holds it, else the one used longest ago, emptied. */
function takeSlot(cpu: u32, pcid: u32): u32 {
  const now = load<u32>(cpu, T_PCID_CLOCK) + 1;
  store<u32>(cpu, now, T_PCID_CLOCK);
  let slot = slotOf(cpu, pcid);
  if (slot < 0) {
    let oldest: u32 = -1;
    slot = 0;
    for (let i: u32 = 0; i < <u32>TLB_SLOTS; i++) {
      const used = load<u32>(cpu + (i << 2), T_PCID) ? load<u32>(cpu + (i << 2), T_PCID_USED) : 0;
      if (used >= oldest) continue;
      oldest = used;
      slot = i;
    }
    tlbFlushArray(cpu, slot << 1);
    tlbFlushArray(cpu, (slot << 1) + 1);
    store<u32>(cpu + (slot << 2), pcid + 1, T_PCID);
  }
  store<u32>(cpu + (slot << 2), now, T_PCID_USED);
  return slot;
}

/** CR3 of a new task: no PCIDs outside long mode. */
export function loadCr3(cpu: u32, value: u64): void {
  store<u64>(cpu, value, S_CR3);
  flushSlot(cpu, load<u32>(cpu, V_SLOT));
}

function setCr3(cpu: u32, wanted: u64): bool {
  let value = wanted;
  if (load<u32>(cpu, S_CR4) & CR4_PCIDE) {
    value &= ~CR3_NO_FLUSH;
    if (value & NOT_PHYSICAL) return false;
    const slot = takeSlot(cpu, <u32>value & 0xfff);
    store<u64>(cpu, value, S_CR3);
    store<u32>(cpu, slot, V_SLOT);
    if (!(wanted & CR3_NO_FLUSH)) flushSlot(cpu, slot);
    selectArray(cpu, (slot << 1) + (load<u32>(cpu, S_CPL) == 3 ? 1 : 0));
    enterCode(cpu);
    shareContext(cpu, slot << 1);
    return true;
  }
  if (value & NOT_PHYSICAL) return false;
  store<u64>(cpu, value, S_CR3);
  flushSlot(cpu, load<u32>(cpu, V_SLOT));
  return true;
}

/** WRMSR of EFER; false: #GP. */
export function setEfer(cpu: u32, value: u64): bool {
  if (value & ~(<u64>(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))) return false;
  const old = load<u32>(cpu, S_EFER);
  const changed = old ^ <u32>value;
  if (changed & EFER_LME && load<u32>(cpu, S_CR0) & CR0_PG) return false;
  store<u64>(cpu, (value & ~EFER_LMA) | (old & EFER_LMA), S_EFER);
  if (changed & EFER_NXE) tlbFlushAll(cpu);
  return true;
}

/** INVLPG forgets the page in every slot, since it may be global. Intercepted, it leaves with the address in S_EXIT_VALUE. */
export function sys_invlpg(cpu: u32, va: u64): u32 {
  if (load<u32>(cpu, V_INTERCEPTS) & INTERCEPT_INVLPG) return leaveWith(cpu, va);
  forgetPage(cpu, va);
  return done(cpu);
}
function forgetPage(cpu: u32, va: u64): void {
  const used = load<u32>(cpu, T_USED);
  for (let array: u32 = 0; array < <u32>TLB_ARRAYS; array++) if (used >> array & 1) tlbInvlpg(cpu, array, va);
}

/** INVPCID: type, and the linear address of its descriptor. Intercepted, it leaves with the type in S_EXIT_VALUE, the PCID in S_EXIT_GPA and the address in S_EXIT_VA. */
export function sys_invpcid(cpu: u32, type: u64, descriptor: u64): u32 {
  const first = load64(cpu, descriptor);
  if (load<u32>(cpu, S_EXC)) return 16;
  const va = load64(cpu, descriptor + 8);
  if (load<u32>(cpu, S_EXC)) return 16;
  if (type > 3 || (type < 2 && first >> 12)) return fail(cpu, GP, 0);
  const pcid = <u32>first & 0xfff;
  if (type < 2 && pcid && !(load<u32>(cpu, S_CR4) & CR4_PCIDE)) return fail(cpu, GP, 0);
  if (type == 0 && !isCanonical(cpu, va)) return fail(cpu, GP, 0);
  if (load<u32>(cpu, V_INTERCEPTS) & INTERCEPT_INVLPG) {
    store<u64>(cpu, <u64>pcid, S_EXIT_GPA);
    store<u64>(cpu, va, S_EXIT_VA);
    return leaveWith(cpu, type);
  }
  invalidatePcid(cpu, <u32>type, pcid, va);
  return done(cpu);
}

/** What INVPCID of `type` does in the TLB. */
export function invalidatePcid(cpu: u32, type: u32, pcid: u32, va: u64): void {
  if (type == 2) {
    tlbFlushAll(cpu);
  } else if (type == 3) {
    for (let slot: u32 = 0; slot < <u32>TLB_SLOTS; slot++) flushSlot(cpu, slot);
  } else {
    const slot = load<u32>(cpu, S_CR4) & CR4_PCIDE ? slotOf(cpu, pcid) : <i32>load<u32>(cpu, V_SLOT);
    if (slot < 0) return;
    if (type == 1) flushSlot(cpu, slot);
    else {
      tlbInvlpg(cpu, slot << 1, va);
      tlbInvlpg(cpu, (slot << 1) + 1, va);
    }
  }
}

/** XSETBV: components that CPUID leaf 13 has; x87 always, AVX only with SSE. */
export function sys_xsetbv(cpu: u32): u32 {
  if (!(load<u32>(cpu, S_CR4) & CR4_OSXSAVE)) return fail(cpu, UD, 0);
  const value = <u64>load<u32>(cpu, S_GPR) | <u64>load<u32>(cpu, S_GPR + 16) << 32;
  if (load<u32>(cpu, S_GPR + 8) || !(value & 1) || (value & 6) == 4 || value & ~supportedXcr0(cpu)) return fail(cpu, GP, 0);
  store<u64>(cpu, value, S_XCR0);
  return done(cpu);
}
