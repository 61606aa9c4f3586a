import type { CpuCore, Saveable, StateIo } from '@pvm/cpu-jit';
import {
  CS,
  DS,
  ES,
  FS,
  GS,
  P_DIRECT,
  P_DIRECT_ERETUS,
  P_DIRECT_SYSCALLS,
  P_EVENT_ENTRY,
  P_FLUSH_ON_SWITCH,
  P_KERNEL_ROOT,
  P_KERNEL_TLB,
  P_PREFAULT,
  P_PREFAULT_VA,
  P_PVCS,
  P_PVCS_SHIFT,
  P_RETS_RIP,
  P_RETU_RIP,
  P_RFLAGS_ALLOWED,
  P_SMOD,
  P_SUPERVISOR_RSP,
  P_SWITCH_CR3,
  P_USER_ROOT,
  P_USER_TLB,
  PAGING_SHADOW,
  PREFAULT_ON,
  S_CPL,
  S_CR0,
  S_CR3,
  S_CR4,
  S_CTX,
  S_EFER,
  S_EXC_ADDR,
  S_EXIT_ACCESS,
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
  V_CR0_MASK,
  V_LEVELS,
  V_NATIVE,
  V_PAGING,
  V_ROOT,
  V_SLOT,
  V_SYSCALL_MODE,
} from '@pvm/cpu-jit/layout';
import type { InterruptSink } from '@pvm/machine';
import { MODE_LA57, MODE_NX, MODE_SMEP, type ShadowMmu } from '@pvm/shadow-mmu';
import { rfcV1 } from '../abi-rfc-v1/revision.ts';
import { v2 } from '../abi-v2/revision.ts';
import { FailedEntry, TripleFault } from '../designs/design.ts';
import { R11, RCX, VcpuState } from '../vcpu-state.ts';
import { type AddressRange, DEFAULT_RANGE } from './address-range.ts';
import * as abi from './constants.ts';
import { DebugRegisters } from './debug-registers.ts';
import type { AbiRevision, Revision } from './revision.ts';
import { vectorName } from './vectors.ts';

// SDM vol. 3, 2.5 and 2.2.1.
export const CR0_FIXED_SET = 0x8005_0033n; // PG AM WP NE ET MP PE
export const CR4_PAE = 1n << 5n;
export const CR4_LA57 = 1n << 12n;
export const CR4_FSGSBASE = 1n << 16n;
export const CR4_PCIDE = 1n << 17n;
export const CR4_SMEP = 1n << 20n;
/** Bits of CR4 that a guest may set: VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP FSGSBASE PCIDE OSXSAVE SMEP PKE. */
export const CR4_ALLOWED = 0x0077_0fffn & ~CR4_LA57;
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

export interface PvmVcpuOptions {
  readonly mmu: ShadowMmu;
  readonly interrupts: InterruptSink;
  readonly abi: AbiChoice;
  readonly directSwitch: boolean;
  readonly prefault: boolean;
  readonly pcidMap: boolean;
  readonly injectDirect: boolean;
}

/** State of a vCPU at the first instruction, beside "smod, flat segments, everything else zero". */
export interface PvmBootState {
  readonly rip: bigint;
  readonly cr3: bigint;
  readonly registers: readonly (readonly [register: number, value: bigint])[];
  /** CS as the boot protocol has it. */
  readonly codeSelector: number;
}

/** Which revision the guest speaks: one of them, or what the guest shows (see `PvmVcpu.becomeRfcV1`). */
export type AbiChoice = AbiRevision | 'auto';

/** One vCPU of a PVM guest: its modes, its page tables and the delivery of events. */
export class PvmVcpu extends VcpuState implements Saveable {
  readonly mmu: ShadowMmu;
  /** Where external interrupts and NMIs come from. */
  readonly interrupts: InterruptSink;
  /** Legal upper-half window. */
  range: AddressRange = DEFAULT_RANGE;
  /** GDT entries 12-14, set by LOAD_TLS. */
  readonly tls = new BigUint64Array(abi.GDT_TLS_COUNT);
  /** Whether the switcher may work at all (the switch `direct-switch`). */
  readonly directSwitch: boolean;
  /** TLB arrays are tagged by address space and mode; without it, no translation outlives a change of either (the switch `pcid-map`). */
  private readonly pcidMap: boolean;
  revision: Revision;
  /** The choice is `auto` and nothing has been done yet in the way of one revision. */
  private undecided: boolean;
  /** Guest-physical address of the PVCS, -1: none. */
  private pvcsGpa = -1;
  halted = false;
  readonly debug = new DebugRegisters(this);
  /** rfc-v1: MSR SUPERVISOR_REDZONE, and an NMI was delivered from which the guest has not returned. */
  redZone = 0n;
  nmiBlocked = false;

  constructor(core: CpuCore, index: number, options: PvmVcpuOptions) {
    super(core, index);
    this.mmu = options.mmu;
    this.interrupts = options.interrupts;
    this.directSwitch = options.directSwitch;
    this.pcidMap = options.pcidMap;
    this.set32(P_FLUSH_ON_SWITCH, options.pcidMap ? 0 : 1);
    this.set32(P_PREFAULT, options.prefault ? PREFAULT_ON : 0);
    core.directPageFaults(index, options.injectDirect);
    this.undecided = options.abi === 'auto';
    this.revision = options.abi === 'rfc-v1' ? rfcV1 : v2;
  }

  /** State at a 64-bit boot entry: directly in smod, as if it had come there from non-PVM mode with NX on. */
  boot(state: PvmBootState): void {
    for (const [n, value] of state.registers) this.setReg(n, value);
    this.rflags = 0;
    this.rip = state.rip;
    this.set64(S_CR3, state.cr3);
    this.set64(S_CR4, 0n);
    this.set64(S_EFER, EFER_NXE);
    this.set64(S_XCR0, 1n);
    this.convert(state.codeSelector);
  }

  /** The vCPU has reached 64-bit supervisor mode, with `codeSelector` in CS: from here on it runs in smod, at underlying privilege level 3. */
  convert(codeSelector: number): void {
    this.set32(V_NATIVE, 0);
    this.set32(V_CR0_MASK, 0);
    this.set32(V_PAGING, PAGING_SHADOW);
    this.set32(V_SYSCALL_MODE, SYSCALL_PVM);
    this.set32(P_PVCS_SHIFT, this.revision.pvcsShift);
    this.set32(P_RFLAGS_ALLOWED, abi.RFLAGS_ERETU);
    this.set32(P_SMOD, 1);
    this.set32(S_CPL, 3);
    this.set64(S_CR0, CR0_FIXED_SET);
    this.set64(S_CR4, (this.get64(S_CR4) & (CR4_ALLOWED | CR4_LA57) & ~CR4_SMEP) | CR4_PAE | CR4_FSGSBASE);
    this.set64(S_EFER, (this.get64(S_EFER) & EFER_NXE) | EFER_SCE | EFER_LME | EFER_LMA);
    this.set64(S_STAR, (BigInt(abi.USER32_CS) << 48n) | (BigInt(codeSelector) << 32n));
    this.setSegment(CS, abi.USER_CS, ATTR_CODE64);
    for (const segment of [SS, DS, ES]) this.setSegment(segment, abi.USER_DS, ATTR_DATA);
    for (const segment of [FS, GS]) this.setSegment(segment, 0, 0, this.segmentBase(segment), 0);
    this.rflags = (this.rflags & abi.RFLAGS_ERETU) | abi.RFLAGS_SMOD;
    this.core.tlbFlushAll(this.index);
    this.loadRoots(true);
  }

  /** INIT: nothing of what the guest registered is left. */
  init(): void {
    this.setPvcs(0n);
    for (const field of [P_EVENT_ENTRY, P_RETU_RIP, P_RETS_RIP, P_SWITCH_CR3, P_SUPERVISOR_RSP]) this.set64(field, 0n);
    this.tls.fill(0n);
    this.range = DEFAULT_RANGE;
    this.halted = false;
    this.nmiBlocked = false;
    this.redZone = 0n;
    this.debug.init();
  }

  /** The revision is the machine's: that of the boot vCPU, if it is known. */
  speakLike(boot: PvmVcpu): void {
    this.revision = boot.revision;
    this.undecided = boot.undecided;
  }

  /**
   * With `auto`, a guest that writes an MSR of rfc-v1 before its first event and before any change of mode speaks that revision.
   * @returns whether it does from now on
   */
  becomeRfcV1(): boolean {
    if (!this.undecided || this.get64(P_DIRECT_SYSCALLS) + this.get64(P_DIRECT_ERETUS) !== 0n) return false;
    this.undecided = false;
    this.revision = rfcV1;
    this.set32(P_PVCS_SHIFT, rfcV1.pvcsShift);
    this.loadRoots(true);
    return true;
  }

  /** The red zone, written while the choice is still open: it is of use only in rfc-v1, where it then holds. @returns false (#GP) when the choice is made */
  keepRedZone(value: bigint): boolean {
    if (this.undecided) this.redZone = value;
    return this.undecided;
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
    if (!this.pcidMap) this.core.tlbFlushArray(this.index, 2 * this.get32(V_SLOT) + (smod ? 0 : 1));
    this.set32(S_CTX, this.get32(T_CTX + 8 * this.get32(V_SLOT) + (smod ? 0 : 4)));
  }

  /** Load CR3. Its low bits (PCID, marks of the guest) do not name another table. */
  loadCr3(cr3: bigint, flush: boolean): void {
    this.set64(S_CR3, cr3);
    this.loadRoots(flush);
  }

  /** Make the tables of both modes current, from smod: a pair already shadowed is only switched to. */
  loadRoots(flush: boolean): void {
    const { kernel, user } = this.revision.roots(this);
    const cr4 = this.get64(S_CR4);
    // SMEP is on exactly when NX is: user pages are not executable in the kernel shadow.
    const noExecute = this.revision.smep ? MODE_NX | MODE_SMEP : MODE_NX;
    const mode = ((cr4 & CR4_LA57) !== 0n ? MODE_LA57 : 0) | ((this.get64(S_EFER) & EFER_NXE) !== 0n ? noExecute : 0);
    const slot = this.mmu.load(this.index, Number(kernel & CR3_ADDRESS), Number(user & CR3_ADDRESS), mode, flush);
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
  /** RFLAGS as smod sees them: IF is the virtual one. */
  get virtualRflags(): number {
    return (this.rflags & ~abi.RFLAGS_IF) | (this.virtualIf ? abi.RFLAGS_IF : 0);
  }

  // ------------------------------------------------------------ events
  /**
   * Deliver an exception or software interrupt that happened at RIP, in whatever mode the guest is.
   * `error` is 0 for vectors without an error code; CR2 is taken from S_CR2 for #PF.
   * @throws TripleFault when the guest cannot take it
   */
  deliver(vector: number, error: number): void {
    if (this.pvcs === 0) throw new TripleFault(`${vectorName(vector)} before the guest set a PVCS (MSR_PVM_VCPU_STRUCT)`);
    this.undecided = false;
    if (this.smod) this.revision.deliverFromSmod(this, vector, error);
    else this.enterSmod(P_EVENT_ENTRY, vector, error);
  }

  /** An instruction that began with TF set was done by the hypervisor; HLT is over with the trap. @throws TripleFault */
  stepped(): void {
    this.halted = false;
    this.debug.noteStep();
    this.deliver(abi.VECTOR_DB, 0);
  }

  /** umod SYSCALL without the switcher; RIP is already behind the instruction, RCX and R11 as SYSCALL left them. */
  deliverSyscall(): void {
    if (this.pvcs === 0) throw new TripleFault('SYSCALL in user mode without a PVCS');
    this.enterSmod(S_LSTAR, NO_VECTOR, 0);
  }

  private enterSmod(entryField: number, vector: number, error: number): void {
    const { pvcs, revision } = this;
    const at = revision.pvcs;
    const { view, u32 } = this.core;
    this.undecided = false;
    view.setUint16(pvcs + abi.PVCS_USER_CS, this.selector(CS), true);
    view.setUint16(pvcs + abi.PVCS_USER_SS, this.selector(SS), true);
    this.store64(pvcs + at.userGsBase, GS_BASE);
    u32[(pvcs + at.eflags) >>> 2] = this.rflags;
    u32[(pvcs + at.pkru) >>> 2] = this.get32(S_PKRU);
    this.store64(pvcs + at.rip, S_RIP);
    this.store64(pvcs + at.rcx, S_GPR + 8 * RCX);
    this.store64(pvcs + at.r11, S_GPR + 8 * R11);
    if (vector !== NO_VECTOR) revision.storeUserEvent(this, vector, error);
    this.loadUserSegments(abi.USER_CS, abi.USER_DS);
    this.copy64(GS_BASE, S_KERNEL_GS_BASE);
    revision.changeMode(this, true);
    this.enterAt(entryField, 0);
    this.setMode(true);
  }

  /** CS and SS; most often they hold these selectors already. */
  private loadUserSegments(cs: number, ss: number): void {
    if (this.selector(CS) !== cs) this.setSegment(CS, cs, cs === abi.USER_CS ? ATTR_CODE64 : ATTR_CODE32);
    if (this.selector(SS) !== ss) this.setSegment(SS, ss, ATTR_DATA);
  }

  /** Continue in smod at the address that a field holds, plus `offset`. */
  enterAt(field: number, offset: number): void {
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
    const at = this.revision.pvcs;
    this.undecided = false;
    this.set64(GS_BASE, this.canonicalise(view.getBigUint64(pvcs + at.userGsBase, true)));
    this.set32(S_PKRU, view.getUint32(pvcs + at.pkru, true));
    this.rflags = (view.getUint32(pvcs + at.eflags, true) & abi.RFLAGS_ERETU) | abi.RFLAGS_SMOD;
    this.load64(S_RIP, pvcs + at.rip);
    this.load64(S_GPR + 8 * RCX, pvcs + at.rcx);
    this.load64(S_GPR + 8 * R11, pvcs + at.r11);
    this.clearInterruptWaits();
    this.revision.changeMode(this, false);
    this.setMode(false);
    this.retire();
  }

  // ------------------------------------------------------------ prefault
  /** A #PF of umod was injected whose page is to be filled in before the guest returns from its handler. */
  get prefaultPending(): boolean {
    return (this.get32(P_PREFAULT) & ~PREFAULT_ON) !== 0;
  }
  /** Remember the #PF at S_EXC_ADDR, with S_EXIT_ACCESS, when prefault is on. */
  rememberFault(): void {
    if (this.get32(P_PREFAULT) === 0) return;
    this.set32(P_PREFAULT, PREFAULT_ON | ((this.get32(S_EXIT_ACCESS) & 3) + 1));
    this.copy64(P_PREFAULT_VA, S_EXC_ADDR);
  }
  /** The guest's fault handler is done: the page it mapped goes into the shadow now, not by a second fault. */
  fillAfterFault(): void {
    if (!this.prefaultPending) return;
    const access = (this.get32(P_PREFAULT) & ~PREFAULT_ON) - 1;
    this.mmu.prefault(this.index, 1, this.get32(P_PREFAULT_VA), this.get32(P_PREFAULT_VA + 4), access);
    this.set32(P_PREFAULT, PREFAULT_ON);
  }

  // ------------------------------------------------------------ external events
  get interruptPending(): boolean {
    return this.interrupts.hasWork();
  }

  /** What HLT waits for came: an NMI, or an interrupt that the guest takes. */
  wakeUp(): boolean {
    if (this.interrupts.hasNmi() || (this.virtualIf && this.interrupts.pendingVector() >= 0)) this.halted = false;
    return !this.halted;
  }

  /**
   * Before each entry: deliver what is pending and can be delivered, ask for a window for the rest, and tell the
   * switcher whether it may work. @returns true when an interrupt was delivered
   */
  prepareEntry(): boolean {
    const { interrupts, revision } = this;
    let delivered = false;
    if (this.pvcs !== 0) {
      if (interrupts.hasNmi() && (!this.smod || revision.takesNmi(this)) && interrupts.takeNmi()) {
        this.deliver(abi.VECTOR_NMI, 0);
        delivered = true;
      }
      if (interrupts.pendingVector() >= 0 && this.virtualIf && (!this.smod || revision.takesInterrupt(this))) {
        this.deliver(interrupts.acknowledge(), 0);
        delivered = true;
      }
      if (interrupts.pendingVector() >= 0) this.eventFlags |= abi.EVENT_FLAG_IP;
    }
    const direct = this.directSwitch && this.pvcs !== 0 && !interrupts.hasWork() && !this.prefaultPending && revision.canSwitch(this);
    this.set32(P_DIRECT, direct ? 1 : 0);
    return delivered;
  }

  state(s: StateIo): void {
    s.fields(this, ['tls', 'undecided', 'pvcsGpa', 'halted', 'debug', 'redZone', 'nmiBlocked']);
    this.range = s.value('range', { ...this.range });
    this.revision = s.value('revision', this.revision.name) === 'rfc-v1' ? rfcV1 : v2;
  }
}
