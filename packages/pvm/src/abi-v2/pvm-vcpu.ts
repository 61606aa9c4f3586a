import type { CpuCore } from '@pvm/cpu-jit';
import {
  CS,
  DS,
  ES,
  GS,
  P_ABI_V2,
  P_DIRECT,
  P_EVENT_ENTRY,
  P_KERNEL_ROOT,
  P_KERNEL_TLB,
  P_PVCS,
  P_RFLAGS_ALLOWED,
  P_SMOD,
  P_USER_ROOT,
  P_USER_TLB,
  PAGING_SHADOW,
  S_CPL,
  S_CR0,
  S_CR2,
  S_CR3,
  S_CR4,
  S_CTX,
  S_EFER,
  S_GPR,
  S_KERNEL_GS_BASE,
  S_LSTAR,
  S_PKRU,
  S_RIP,
  S_SEG,
  S_STAR,
  S_TLB,
  S_XCR0,
  SEG_BASE,
  SEG_STRIDE,
  SS,
  SYSCALL_PVM,
  T_CTX,
  TLB_ARRAY_SIZE,
  TLB_BASE,
  TLB_CPU_SIZE,
  V_LEVELS,
  V_PAGING,
  V_ROOT,
  V_SLOT,
  V_SYSCALL_MODE,
} from '@pvm/cpu-jit/layout';
import type { BootState } from '@pvm/machine';
import { MODE_LA57, MODE_NX, MODE_SMEP, type ShadowMmu } from '@pvm/shadow-mmu';
import { FailedEntry, TripleFault } from '../designs/design.ts';
import { R11, RCX, RSI, VcpuState } from '../vcpu-state.ts';
import { type AddressRange, DEFAULT_RANGE } from './address-range.ts';
import * as abi from './constants.ts';

// SDM vol. 3, 2.5 and 2.2.1.
export const CR0_FIXED_SET = 0x8005_0033n; // PG AM WP NE ET MP PE
export const CR4_PAE = 1n << 5n;
export const CR4_LA57 = 1n << 12n;
export const CR4_FSGSBASE = 1n << 16n;
export const CR4_PCIDE = 1n << 17n;
export const CR4_SMEP = 1n << 20n;
export const EFER_SCE = 1n << 0n;
export const EFER_LME = 1n << 8n;
export const EFER_LMA = 1n << 10n;
export const EFER_NXE = 1n << 11n;

/** Attributes of the flat segments, all DPL 3: 64-bit code, 32-bit code, data. */
export const ATTR_CODE64 = 0xa0fb;
export const ATTR_CODE32 = 0xc0fb;
export const ATTR_DATA = 0xc0f3;

const GS_BASE = S_SEG + GS * SEG_STRIDE + SEG_BASE;
const CR3_ADDRESS = 0x000f_ffff_ffff_f000n;
const NO_VECTOR = -1;

/** One vCPU under ABI v2: its modes, its page tables and the delivery of events. */
export class PvmVcpu extends VcpuState {
  readonly mmu: ShadowMmu;
  /** Legal upper-half window. */
  range: AddressRange = DEFAULT_RANGE;
  /** GDT entries 12-14, set by LOAD_TLS. */
  readonly tls = new BigUint64Array(abi.GDT_TLS_COUNT);
  /** Whether the switcher may work at all (the `directSwitch` option). */
  readonly directSwitch: boolean;
  /** Guest-physical address of the PVCS, -1: none. */
  private pvcsGpa = -1;
  private readonly pendingVectors = new Set<number>();
  private nmiPending = false;
  /** User address of the last injected #PF, filled in the shadow before the ERETU that follows; with its access. */
  prefaultLow = 0;
  prefaultHigh = 0;
  prefaultAccess = -1;
  halted = false;

  constructor(core: CpuCore, index: number, mmu: ShadowMmu, directSwitch: boolean) {
    super(core, index);
    this.mmu = mmu;
    this.directSwitch = directSwitch;
  }

  /** State at a 64-bit boot entry: directly in smod. */
  boot(state: BootState): void {
    this.set32(V_PAGING, PAGING_SHADOW);
    this.set32(V_SYSCALL_MODE, SYSCALL_PVM);
    this.set32(P_ABI_V2, 1);
    this.set32(P_RFLAGS_ALLOWED, abi.RFLAGS_ERETU);
    this.set32(S_CPL, 3);
    this.set64(S_CR0, CR0_FIXED_SET);
    this.set64(S_CR4, CR4_PAE | CR4_FSGSBASE);
    this.set64(S_EFER, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    this.set64(S_XCR0, 1n);
    this.set64(S_STAR, (BigInt(abi.USER32_CS) << 48n) | (BigInt(abi.USER_CS) << 32n));
    this.set32(P_SMOD, 1);
    this.setSegment(CS, abi.USER_CS, ATTR_CODE64);
    for (const segment of [SS, DS, ES]) this.setSegment(segment, abi.USER_DS, ATTR_DATA);
    this.rflags = abi.RFLAGS_SMOD;
    this.rip = state.rip;
    this.setReg(RSI, state.rsi);
    this.loadCr3(state.cr3, true);
  }

  // ------------------------------------------------------------ modes and page tables
  get smod(): boolean {
    return this.get32(P_SMOD) !== 0;
  }

  /** Make the shadow root and TLB array of a mode current. */
  private setMode(smod: boolean): void {
    this.set32(P_SMOD, smod ? 1 : 0);
    this.set32(V_ROOT, this.get32(smod ? P_KERNEL_ROOT : P_USER_ROOT));
    this.set32(S_TLB, this.get32(smod ? P_KERNEL_TLB : P_USER_TLB));
    this.set32(S_CTX, this.get32(T_CTX + 8 * this.get32(V_SLOT) + (smod ? 0 : 4)));
  }

  /** Load CR3: a root already shadowed is only switched to. Its low bits (PCID, marks of the guest) do not name another table. */
  loadCr3(cr3: bigint, flush: boolean): void {
    const cr4 = this.get64(S_CR4);
    // SMEP is on exactly when NX is: user pages are not executable in the kernel shadow.
    const mode = ((cr4 & CR4_LA57) !== 0n ? MODE_LA57 : 0) | ((this.get64(S_EFER) & EFER_NXE) !== 0n ? MODE_NX | MODE_SMEP : 0);
    const root = Number(cr3 & CR3_ADDRESS);
    this.set64(S_CR3, cr3);
    const slot = this.mmu.load(this.index, root, root, mode, flush);
    const arrays = TLB_BASE + this.index * TLB_CPU_SIZE;
    this.set32(V_SLOT, slot);
    this.set32(V_LEVELS, this.mmu.levels(this.index));
    this.set32(P_KERNEL_ROOT, this.mmu.kernelRoot(this.index));
    this.set32(P_USER_ROOT, this.mmu.userRoot(this.index));
    this.set32(P_KERNEL_TLB, arrays + 2 * slot * TLB_ARRAY_SIZE);
    this.set32(P_USER_TLB, arrays + (2 * slot + 1) * TLB_ARRAY_SIZE);
    this.setMode(this.smod);
  }

  /** Virtual addresses have 48 or 57 bits; the ones above copy the highest. */
  isCanonical(va: bigint): boolean {
    return this.canonicalise(va) === BigInt.asUintN(64, va);
  }
  canonicalise(va: bigint): bigint {
    return BigInt.asUintN(64, BigInt.asIntN(this.get32(V_LEVELS) === 5 ? 57 : 48, va));
  }

  // ------------------------------------------------------------ PVCS
  /** HPA of the PVCS, 0: none is set. */
  get pvcs(): number {
    return this.get32(P_PVCS);
  }
  get pvcsAddress(): number {
    return this.pvcsGpa;
  }
  /** @returns false when `gpa` cannot hold a PVCS (#GP) */
  setPvcs(gpa: bigint): boolean {
    if (gpa === 0n) {
      this.pvcsGpa = -1;
      this.set32(P_PVCS, 0);
      return true;
    }
    if ((gpa & 0xfffn) !== 0n || gpa + 4096n > BigInt(this.core.ramBytes)) return false;
    this.pvcsGpa = Number(gpa);
    this.set32(P_PVCS, this.core.ramBase + this.pvcsGpa);
    return true;
  }

  private get eventFlags(): number {
    return this.core.u32[this.pvcs >>> 2] ?? 0;
  }
  private set eventFlags(value: number) {
    this.core.u32[this.pvcs >>> 2] = value;
  }

  /** Virtual IF: PVCS in smod (0 without one), 1 in umod. */
  get virtualIf(): boolean {
    if (!this.smod) return true;
    return this.pvcs !== 0 && (this.eventFlags & abi.EVENT_FLAG_IF) !== 0;
  }
  /** CLI, STI and the like in smod. Without a PVCS the virtual IF stays 0. */
  setVirtualIf(on: boolean): void {
    if (this.pvcs === 0) return;
    this.eventFlags = on ? this.eventFlags | abi.EVENT_FLAG_IF : this.eventFlags & ~abi.EVENT_FLAG_IF;
  }
  clearInterruptWaits(): void {
    if (this.pvcs !== 0) this.eventFlags &= ~abi.EVENT_FLAG_IP;
  }

  // ------------------------------------------------------------ events
  /**
   * Deliver an exception or software interrupt that happened at RIP, in whatever mode the guest is.
   * `error` is 0 for vectors without an error code; CR2 is taken from S_CR2 for #PF.
   * @throws TripleFault when the guest cannot take it
   */
  deliver(vector: number, error: number): void {
    if (this.pvcs === 0) throw new TripleFault(`${vectorName(vector)} before the guest set a PVCS (MSR_PVM_VCPU_STRUCT)`);
    if (this.smod) this.deliverFromSmod(vector, error);
    else this.enterSmod(P_EVENT_ENTRY, vector, error);
  }

  /** umod SYSCALL without the switcher; RIP is already behind the instruction, RCX and R11 as SYSCALL left them. */
  deliverSyscall(): void {
    if (this.pvcs === 0) throw new TripleFault('SYSCALL in user mode without a PVCS');
    this.enterSmod(S_LSTAR, NO_VECTOR, 0);
  }

  private enterSmod(entryField: number, vector: number, error: number): void {
    const { pvcs } = this;
    const { view, u32 } = this.core;
    const flags = this.rflags;
    view.setUint16(pvcs + abi.PVCS_USER_CS, this.selector(CS), true);
    view.setUint16(pvcs + abi.PVCS_USER_SS, this.selector(SS), true);
    this.store64(pvcs + abi.PVCS_USER_GSBASE, GS_BASE);
    u32[(pvcs + abi.PVCS_EFLAGS) >>> 2] = flags;
    u32[(pvcs + abi.PVCS_PKRU) >>> 2] = this.get32(S_PKRU);
    this.store64(pvcs + abi.PVCS_RIP, S_RIP);
    this.store64(pvcs + abi.PVCS_RCX, S_GPR + 8 * RCX);
    this.store64(pvcs + abi.PVCS_R11, S_GPR + 8 * R11);
    if (vector !== NO_VECTOR) this.storeEvent(vector, error);
    this.loadUserSegments(abi.USER_CS, abi.USER_DS);
    this.copy64(GS_BASE, S_KERNEL_GS_BASE);
    this.enterAt(entryField, 0);
    this.setMode(true);
  }

  private deliverFromSmod(vector: number, error: number): void {
    const { pvcs } = this;
    const { view, u32 } = this.core;
    const live = view.getUint16(pvcs + abi.PVCS_EVENT_VECTOR, true);
    if ((live & 0xff00) !== 0) {
      const bit = vector === abi.VECTOR_NMI ? abi.EVENT_VECTOR_NMI : vector === abi.VECTOR_MC ? abi.EVENT_VECTOR_MCE : 0;
      if (bit === 0) throw new TripleFault(`${vectorName(vector)} in supervisor mode while event ${vectorName(live & 0xff)} is still in the PVCS`);
      view.setUint16(pvcs + abi.PVCS_EVENT_VECTOR, live | bit, true);
      return;
    }
    const virtualIf = this.virtualIf ? abi.RFLAGS_IF : 0;
    u32[(pvcs + abi.PVCS_EFLAGS) >>> 2] = (this.rflags & ~abi.RFLAGS_IF) | virtualIf;
    this.store64(pvcs + abi.PVCS_RIP, S_RIP);
    this.store64(pvcs + abi.PVCS_RCX, S_GPR + 8 * RCX);
    this.store64(pvcs + abi.PVCS_R11, S_GPR + 8 * R11);
    this.storeEvent(vector | abi.EVENT_VECTOR_STD, error);
    this.setVirtualIf(false);
    this.enterAt(P_EVENT_ENTRY, abi.EVENT_ENTRY_SMOD_OFFSET);
  }

  /** CS and SS; most often they hold these selectors already. */
  private loadUserSegments(cs: number, ss: number): void {
    if (this.selector(CS) !== cs) this.setSegment(CS, cs, cs === abi.USER_CS ? ATTR_CODE64 : ATTR_CODE32);
    if (this.selector(SS) !== ss) this.setSegment(SS, ss, ATTR_DATA);
  }

  private storeEvent(vector: number, error: number): void {
    const { view } = this.core;
    view.setUint16(this.pvcs + abi.PVCS_EVENT_VECTOR, vector, true);
    view.setUint16(this.pvcs + abi.PVCS_EVENT_ERRCODE, error, true);
    if ((vector & 0xff) === abi.VECTOR_PF) this.store64(this.pvcs + abi.PVCS_CR2, S_CR2);
  }

  private enterAt(field: number, offset: number): void {
    this.copy64(S_RIP, field);
    this.add64(S_RIP, offset);
    this.copy64(S_GPR + 8 * RCX, S_RIP);
    this.setRegNumber(R11, abi.RFLAGS_SMOD);
    this.rflags = abi.RFLAGS_SMOD;
  }

  /** ERETU without the switcher: the user's state comes from the PVCS. @throws TripleFault, FailedEntry */
  eretu(): void {
    const { pvcs } = this;
    if (pvcs === 0) throw new TripleFault('ERETU without a PVCS');
    const { view } = this.core;
    const cs = view.getUint16(pvcs + abi.PVCS_USER_CS, true) | 3;
    const ss = view.getUint16(pvcs + abi.PVCS_USER_SS, true) | 3;
    if (cs !== abi.USER_CS && cs !== abi.USER32_CS) throw new FailedEntry(`ERETU to user_cs 0x${cs.toString(16)}: neither 0x33 nor 0x23`);
    if (ss !== abi.USER_DS) throw new FailedEntry(`ERETU to user_ss 0x${ss.toString(16)}: not 0x2b`);
    this.loadUserSegments(cs, ss);
    this.set64(GS_BASE, this.canonicalise(view.getBigUint64(pvcs + abi.PVCS_USER_GSBASE, true)));
    this.set32(S_PKRU, view.getUint32(pvcs + abi.PVCS_PKRU, true));
    this.rflags = (view.getUint32(pvcs + abi.PVCS_EFLAGS, true) & abi.RFLAGS_ERETU) | abi.RFLAGS_SMOD;
    this.load64(S_RIP, pvcs + abi.PVCS_RIP);
    this.load64(S_GPR + 8 * RCX, pvcs + abi.PVCS_RCX);
    this.load64(S_GPR + 8 * R11, pvcs + abi.PVCS_R11);
    this.clearInterruptWaits();
    this.setMode(false);
    this.retire();
  }

  // ------------------------------------------------------------ external events
  /** An external interrupt; delivered as soon as the guest takes one. */
  raiseInterrupt(vector: number): void {
    this.pendingVectors.add(vector);
    this.halted = false;
  }
  raiseNmi(): void {
    this.nmiPending = true;
    this.halted = false;
  }
  get interruptPending(): boolean {
    return this.nmiPending || this.pendingVectors.size > 0;
  }

  /**
   * Before each entry: deliver what is pending and can be delivered, ask for a window for the rest, and tell the
   * switcher whether it may work. @returns true when an interrupt was delivered
   */
  prepareEntry(): boolean {
    let delivered = false;
    if (this.nmiPending && this.pvcs !== 0) {
      this.nmiPending = false;
      this.deliver(abi.VECTOR_NMI, 0);
      delivered = true;
    }
    // The highest vector has priority (SDM vol. 3, 11.8.3.1).
    if (this.pendingVectors.size > 0 && this.pvcs !== 0) {
      if (this.virtualIf && !this.eventLive()) {
        const vector = Math.max(...this.pendingVectors);
        this.pendingVectors.delete(vector);
        this.deliver(vector, 0);
        delivered = true;
      }
      if (this.pendingVectors.size > 0) this.eventFlags |= abi.EVENT_FLAG_IP;
    }
    this.set32(P_DIRECT, this.directSwitch && this.pvcs !== 0 && !this.interruptPending && this.prefaultAccess < 0 ? 1 : 0);
    return delivered;
  }

  private eventLive(): boolean {
    return this.smod && (this.core.view.getUint16(this.pvcs + abi.PVCS_EVENT_VECTOR, true) & 0xff00) !== 0;
  }
}

const VECTOR_NAMES = [
  '#DE',
  '#DB',
  'NMI',
  '#BP',
  '#OF',
  '#BR',
  '#UD',
  '#NM',
  '#DF',
  '',
  '#TS',
  '#NP',
  '#SS',
  '#GP',
  '#PF',
  '',
  '#MF',
  '#AC',
  '#MC',
  '#XM',
  '#VE',
  '#CP',
];

/** `#PF` and so on; `vector 0x80` for those without a name. */
export function vectorName(vector: number): string {
  return VECTOR_NAMES[vector] || `vector 0x${vector.toString(16)}`;
}
