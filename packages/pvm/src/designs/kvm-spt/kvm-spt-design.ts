import type { StateIo } from '@pvm/cpu-jit';
import {
  ACCESS_IMPLICIT_SUPERVISOR,
  ACCESS_RMW,
  EXIT_EXCEPTION,
  INTERCEPT_CR3_LOAD,
  INTERCEPT_INVLPG,
  MAXPHYADDR,
  PAGING_SHADOW,
  S_CPL,
  S_CR2,
  S_CR3,
  S_CR4,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_RFLAGS,
  V_CR4_MASK,
  V_EXC_BITMAP,
  V_INTERCEPTS,
  V_LEVELS,
  V_PAGING,
  V_ROOT,
} from '@pvm/cpu-jit/layout';
import { ACCESS_AC, FAULT_FIXED, FAULT_MMIO, FAULT_PF, FAULT_TRACKED, type ShadowMmu } from '@pvm/shadow-mmu';
import { errorClass, PAGE_FAULT } from '../../ledger/sub-reasons.ts';
import type { PageTableCounters } from '../../summary.ts';
import { type DesignContext, type DirtyTracking, type ExitOutcome, TripleFault } from '../design.ts';
import { createShadowMmu, shadowDirtyLog } from '../shadow.ts';
import { VMX_FRAMES } from '../vmx/controls.ts';
import { VmxDesign } from '../vmx/vmx-design.ts';
import { pagingMode } from './paging-mode.ts';

const VECTOR_GP = 13;
const VECTOR_PF = 14;
const CR4_PGE = 1 << 7;
const CR4_PCIDE = 1 << 17;
const CR4_PKE = 1n << 22n;
const CR3_NO_FLUSH = 1n << 63n;
const PCID_MASK = 0xfffn;
/** PWT and PCD: cache attributes of the top-level table, which nothing here looks at. */
const CR3_ATTRIBUTES = 0x18n;
const RFLAGS_AC = 1 << 18;
/** KVM keeps three roots beside the current one (KVM_MMU_NUM_PREV_ROOTS). */
const CACHED_ROOTS = 4;

/**
 * KVM with shadow page tables: the guest's kernel runs at privilege 0, but the CPU walks tables that the hypervisor makes from the guest's. So every
 * page fault leaves the guest, every load of CR3, INVLPG, and every store to a guest table that is kept in step.
 */
export class KvmSptDesign extends VmxDesign {
  readonly name = 'kvm-spt';
  /** Shadow leaves have no protection keys; KVM offers them with EPT only. */
  protected override readonly refusedCr4 = CR4_PKE;
  readonly mmu: ShadowMmu;
  private readonly exits: ReturnType<KvmSptDesign['internRows']>;
  /** Mode and CR3 that the current root was loaded for. */
  private mode = -1;
  /** When the last walk began that ended in a #PF for the guest. */
  private faultStart = 0;

  /** @param shared the shadow MMU of the machine, made by the object of its first vCPU */
  constructor(context: DesignContext, index = 0, shared?: ShadowMmu) {
    super(context, index);
    this.exits = this.internRows();
    this.mmu = shared ?? shadowMmu(context);
  }

  private internRows() {
    const row = (reason: string, sub: string) => this.ledger.row(reason, sub);
    const fault = (sub: string) => row('EXCEPTION_NMI', `#PF ${sub}`);
    return {
      shadow: fault(PAGE_FAULT.shadow),
      unsynced: fault('unsync'),
      tableWrite: fault(PAGE_FAULT.tableWrite),
      mmio: fault(PAGE_FAULT.mmio),
      cr3: row('CR_ACCESS', 'MOV CR3'),
      cr3Resync: row('CR_ACCESS', `MOV CR3, ${PAGE_FAULT.resync}`),
      invlpg: row('INVLPG', ''),
      invlpgResync: row('INVLPG', PAGE_FAULT.resync),
      invpcid: row('INVPCID', ''),
    };
  }

  protected override programControls(): void {
    super.programControls();
    const { vcpu } = this;
    vcpu.set32(V_PAGING, PAGING_SHADOW);
    vcpu.set32(V_EXC_BITMAP, vcpu.get32(V_EXC_BITMAP) | (1 << VECTOR_PF));
    vcpu.set32(V_INTERCEPTS, vcpu.get32(V_INTERCEPTS) | INTERCEPT_CR3_LOAD | INTERCEPT_INVLPG);
    // Without EPT the host owns PGE too: toggling it flushes.
    vcpu.set32(V_CR4_MASK, vcpu.get32(V_CR4_MASK) | CR4_PGE);
    this.loadRoot(true);
    this.core.tlbFlushAll(this.index);
  }

  // ------------------------------------------------------------ roots
  /** Makes the shadow of the guest's CR3, in its paging mode, current. */
  private loadRoot(flush: boolean): void {
    const { vcpu, mmu, core } = this;
    this.mode = pagingMode(vcpu);
    const hasPcid = (vcpu.get32(S_CR4) & CR4_PCIDE) !== 0;
    const cr3 = Number(hasPcid ? vcpu.get64(S_CR3) : vcpu.get64(S_CR3) & ~CR3_ATTRIBUTES);
    const slot = mmu.load(this.index, cr3, cr3, this.mode, flush);
    vcpu.set32(V_ROOT, mmu.kernelRoot(this.index));
    core.selectSlot(this.index, slot);
    vcpu.set32(V_LEVELS, mmu.levels(this.index));
  }

  /** CR0, CR4 or EFER may have changed the paging mode; what does flushes everything. */
  private followMode(before: number): void {
    const { vcpu, mmu } = this;
    vcpu.set32(V_LEVELS, mmu.levels(this.index));
    const flushes = CR4_PGE | CR4_PCIDE;
    if (pagingMode(vcpu) === this.mode && ((before ^ vcpu.get32(S_CR4)) & flushes) === 0) return;
    mmu.flushAll(this.index);
    this.loadRoot(true);
  }

  private loadCr3(wanted: bigint): number {
    const { vcpu, core, mmu } = this;
    const hasPcid = (vcpu.get32(S_CR4) & CR4_PCIDE) !== 0;
    const value = hasPcid ? wanted & ~CR3_NO_FLUSH : wanted;
    if (value >> BigInt(MAXPHYADDR) !== 0n) {
      core.raise(this.index, VECTOR_GP);
      return this.exits.cr3;
    }
    const before = mmu.resyncs;
    vcpu.set64(S_CR3, value);
    core.complete(this.index);
    const flushes = !hasPcid || (wanted & CR3_NO_FLUSH) === 0n;
    this.loadRoot(flushes);
    if (hasPcid && flushes) mmu.flushPcid(this.index, Number(value & PCID_MASK));
    return mmu.resyncs === before ? this.exits.cr3 : this.exits.cr3Resync;
  }

  protected override flushGuestTlb(): void {
    this.mmu.flushAll(this.index);
    super.flushGuestTlb();
  }

  /** SDM vol. 2, INVPCID: type 0 one address of one PCID, 1 one PCID, 2 everything, 3 everything but globals. */
  private invpcid(type: number, pcid: number): void {
    const { vcpu, mmu } = this;
    if (type === 0) mmu.invlpgPcid(this.index, pcid, vcpu.getI32(S_EXIT_VA), vcpu.getI32(S_EXIT_VA + 4));
    else if (type === 1) mmu.flushPcid(this.index, pcid);
    else mmu.flushAll(this.index);
  }

  // ------------------------------------------------------------ exits
  protected override privileged(): number {
    const { vcpu, core, mmu, exits } = this;
    const insn = core.decodeAt(this.index, vcpu.rip);
    const name = typeof insn === 'string' ? '' : insn.row.name;
    if (typeof insn !== 'string' && name === 'mov_cr_r' && insn.reg === 3) return this.loadCr3(vcpu.reg(insn.rm));
    if (name === 'invlpg') {
      const before = mmu.resyncs;
      mmu.invlpg(this.index, vcpu.get32(S_EXIT_VALUE), vcpu.get32(S_EXIT_VALUE + 4));
      core.complete(this.index);
      return mmu.resyncs === before ? exits.invlpg : exits.invlpgResync;
    }
    if (name === 'invpcid') {
      this.invpcid(vcpu.get32(S_EXIT_VALUE), vcpu.get32(S_EXIT_GPA));
      core.complete(this.index);
      return exits.invpcid;
    }
    const before = vcpu.get32(S_CR4);
    const row = super.privileged();
    this.followMode(before);
    return row;
  }

  /** WRMSR of EFER may change what NX means. */
  protected override writeMsr(): number {
    const row = super.writeMsr();
    this.followMode(this.vcpu.get32(S_CR4));
    return row;
  }

  protected override designExit(reason: number, outcome: ExitOutcome): void {
    if (reason === EXIT_EXCEPTION && this.vcpu.get32(S_EXC) === VECTOR_PF + 1) outcome.row = this.reflectFault();
    else super.designExit(reason, outcome);
  }

  /** A #PF that the guest's own tables ask for. @throws TripleFault */
  private reflectFault(): number {
    const { vcpu, core } = this;
    const error = vcpu.get32(S_EXC_ERROR);
    vcpu.copy64(S_CR2, S_EXC_ADDR);
    if (!core.inject(this.index, VECTOR_PF, 'fault', error)) throw new TripleFault('#PF could not be delivered, nor the double fault after it');
    return this.ledger.row('EXCEPTION_NMI', `#PF ${PAGE_FAULT.guest}`, errorClass(VECTOR_PF, error));
  }

  override exitStart(vcpu?: number, reason?: number): number {
    return reason === EXIT_EXCEPTION && this.vcpu.get32(S_EXC) === VECTOR_PF + 1 ? this.faultStart : super.exitStart(vcpu, reason);
  }

  /** #PF on the shadow tables. */
  mmuFault(): 0 | 1 | 2 {
    const start = this.ledger.start();
    const { vcpu, mmu, exits } = this;
    const access = vcpu.get32(S_EXIT_ACCESS);
    const isUser = vcpu.get32(S_CPL) === 3 && (access & ACCESS_IMPLICIT_SUPERVISOR) === 0;
    const ac = (vcpu.get32(S_RFLAGS) & RFLAGS_AC) !== 0 ? ACCESS_AC : 0;
    switch (mmu.fault(this.index, isUser ? 1 : 0, vcpu.get32(S_EXIT_VA), vcpu.get32(S_EXIT_VA + 4), (access & 7) | ac)) {
      case FAULT_FIXED:
        this.recordHook(mmu.faultUnsynced ? exits.unsynced : exits.shadow, start);
        return 0;
      case FAULT_PF:
        vcpu.set32(S_EXC, VECTOR_PF + 1);
        vcpu.set32(S_EXC_ERROR, mmu.errorCode);
        vcpu.copy64(S_EXC_ADDR, S_EXIT_VA);
        this.faultStart = start;
        return 1;
      case FAULT_TRACKED:
        return this.emulateTableWrite(access & 3, start);
      case FAULT_MMIO: {
        vcpu.set64(S_EXIT_GPA, BigInt(mmu.faultGpa));
        const answer = this.deviceAccess();
        this.recordHook(exits.mmio, start);
        return answer;
      }
      default:
        throw new RangeError('unknown answer of the shadow MMU');
    }
  }

  private emulateTableWrite(access: number, start: number): 2 {
    const { vcpu, mmu, core } = this;
    const size = vcpu.get32(S_EXIT_SIZE);
    const hpa = mmu.faultHpa;
    const value = vcpu.base + S_EXIT_VALUE;
    if (access === ACCESS_RMW) {
      // The old value now; the store that completes the instruction comes back as a write, and is the exit.
      core.u8.copyWithin(value, hpa, hpa + size);
      return 2;
    }
    mmu.emulateWrite(hpa, size, value);
    core.dirtyCode(hpa, size);
    this.recordHook(this.exits.tableWrite, start);
    return 2;
  }

  override hostWrote(gpa: number, length: number): void {
    if (gpa < this.core.ramBytes) this.mmu.guestWrote(this.core.ramBase + gpa, length);
  }

  get dirtyLog(): DirtyTracking {
    return shadowDirtyLog(this.mmu);
  }
  checkMmu(): void {
    this.mmu.check();
  }
  pageTables(): PageTableCounters {
    return { ...this.mmu.stats() };
  }
  override shadowPagesBuilt(): number {
    return this.mmu.stats().pagesBuilt;
  }

  override state(s: StateIo): void {
    super.state(s);
    s.fields(this, ['mode']);
    if (this.index === 0) s.fields(this, ['mmu']);
  }
}

function shadowMmu({ core, options }: DesignContext): ShadowMmu {
  return createShadowMmu(core, {
    framePoolFrames: core.framePoolFrames - VMX_FRAMES,
    physicalAddressBits: MAXPHYADDR,
    flavour: 'kvm',
    unsync: options.optimisations.unsync === true,
    largePages: options.optimisations['large-pages'] === true,
    cachedRoots: CACHED_ROOTS,
  });
}
