import type { EventKind, Insn, StateIo } from '@pvm/cpu-jit';
import {
  ACCESS_IMPLICIT_SUPERVISOR,
  ACCESS_PROBE,
  EXIT_EMULATE,
  EXIT_EXCEPTION,
  EXIT_MSR_WRITE,
  EXIT_PRIVILEGED,
  EXIT_SOFT_INT,
  EXIT_SYSCALL,
  P_DIRECT,
  P_DIRECT_ERETUS,
  P_DIRECT_SYSCALLS,
  S_CPL,
  S_CR2,
  S_CR4,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_INSN_LEN,
  S_EXIT_VA,
  S_INTR,
  V_CR0_MASK,
  V_CR4_MASK,
  V_INTERCEPTS,
} from '@pvm/cpu-jit/layout';
import { FAULT_FIXED, FAULT_MMIO, FAULT_PF, FAULT_TRACKED, type ShadowMmu } from '@pvm/shadow-mmu';
import { DEBUG_FAULT } from '../../../abi/constants.ts';
import { vectorName } from '../../../abi/vectors.ts';
import { kvmHypercall } from '../../../kvm-pv/hypercalls.ts';
import { errorClass, PAGE_FAULT } from '../../../ledger/sub-reasons.ts';
import type { StockChoice } from '../../../options.ts';
import type { PageTableCounters } from '../../../summary.ts';
import { RCX } from '../../../vcpu-state.ts';
import { type DesignContext, type DirectSwitches, type DirtyTracking, type ExitOutcome, TripleFault } from '../../design.ts';
import { NativeDesign } from '../../native/native-design.ts';
import { accessTable, shadowDirtyLog } from '../../shadow.ts';
import { StockMode, StockShadow } from './mode.ts';
import { EXIT_NAMES, FORMS, PrivilegedRows } from './rows.ts';

const VECTOR_DB = 1;
const VECTOR_UD = 6;
const VECTOR_GP = 13;
const VECTOR_PF = 14;
/** INT1 is one byte long, INT n two. */
const ICEBP_LENGTH = 1;
const MSR_EFER = 0xc000_0080;
const CR4_PGE = 1n << 7n;
/** Rows of exceptions kept at hand; selectors in error codes come from the guest. */
const MAX_EXCEPTION_ROWS = 64;

/**
 * An unmodified kernel under PVM. It keeps the view that it has of a CPU of its own (rings, tables, RFLAGS); underneath, kernel and user run at
 * privilege level 3, each on its own shadow table, and what a kernel does by privilege comes here or is turned into what a PVM kernel does
 * (`auto`: the translator puts there hypercalls, the switcher, or work on virtual state that needs no exit; `trap`: each is a #GP at privilege level 3 that is
 * emulated). While paging or long mode is off, there is nothing to shadow and the guest runs as on a plain CPU.
 */
export class StockDesign extends NativeDesign {
  readonly name = 'pvm';
  readonly form: string;
  readonly interruptRow: number;
  readonly timerRow: number;
  readonly mmu: ShadowMmu;
  readonly shadow: StockShadow;
  private readonly mode: StockMode;
  private readonly directSwitch: boolean;
  private readonly prefault: boolean;
  private readonly privilegedRows: PrivilegedRows;
  private readonly rowsOf: Readonly<Record<'syscall' | 'int80' | 'shadowFault' | 'tableWrite', number>>;
  private readonly exceptionRows = new Map<number, number>();
  /** When the last walk began that ended in a #PF for the guest. */
  private faultStart = 0;
  /** User address of the last injected #PF and its access (-1: none), to be filled in the shadow before the return that follows. */
  private prefaultLow = 0;
  private prefaultHigh = 0;
  private prefaultAccess = -1;
  /** An interrupt that has left its controller and is not delivered yet, -1: none. */
  private deferred = -1;

  /** @param shared the shadow MMU of the machine, made by the object of its first vCPU */
  constructor(context: DesignContext, form: StockChoice, index = 0, shared?: StockShadow) {
    super(context, EXIT_NAMES[form], index);
    const { ledger, options } = context;
    this.form = FORMS[form];
    this.shadow = shared ?? new StockShadow(this.core);
    this.mode = new StockMode(this.core, this.vcpu, form, this.shadow, () => this.isStarted);
    this.mmu = this.shadow.mmu;
    this.directSwitch = form === 'auto' && options.optimisations['direct-switch'] === true;
    this.prefault = options.optimisations.prefault === true;
    this.privilegedRows = new PrivilegedRows(ledger, form);
    this.interruptRow = ledger.row('INTERRUPT');
    this.timerRow = ledger.row('INTERRUPT', 'timer');
    this.rowsOf = {
      syscall: ledger.row('SYSCALL'),
      int80: ledger.row('INT80'),
      shadowFault: ledger.row('#PF', PAGE_FAULT.shadow),
      tableWrite: ledger.row('#PF', PAGE_FAULT.tableWrite),
    };
  }

  protected override programControls(): void {
    super.programControls();
    this.mode.update();
  }

  // ------------------------------------------------------------ entry
  /** Interrupts are injected here and nowhere else; one that must wait makes the guest leave as soon as it could take it. */
  protected override deliverInterrupts(): boolean {
    const { sink, core, vcpu } = this;
    let delivered = false;
    this.keepDeferred();
    while ((this.deferred >= 0 || sink.pendingVector() >= 0) && core.interruptible(this.index)) {
      const vector = this.deferred >= 0 ? this.deferred : sink.acknowledge();
      this.deferred = -1;
      this.inject(vector, 'external');
      this.keepDeferred();
      delivered = true;
    }
    if (this.deferred >= 0 || sink.pendingVector() >= 0) core.requestInterruptWindow(this.index);
    else if (vcpu.get32(S_INTR) !== 0) core.setInterrupt(this.index, undefined);
    const isDirect = this.directSwitch && vcpu.get32(S_INTR) === 0 && this.prefaultAccess < 0;
    vcpu.set32(P_DIRECT, isDirect ? 1 : 0);
    this.mode.interceptReturns(!isDirect);
    return delivered;
  }

  /** Takes back an interrupt that waits in the CPU because its delivery met a page fault: interrupts are injected from here only. */
  private keepDeferred(): void {
    const waiting = this.core.pendingInterrupt(this.index);
    if (waiting === undefined) return;
    this.deferred = waiting;
    this.core.setInterrupt(this.index, undefined);
  }

  // ------------------------------------------------------------ exits
  /** EFER may change the mode. */
  protected override cpuDoesMsr(reason: number): boolean {
    if (!this.core.doMsr(this.index, reason)) return false;
    if (this.vcpu.get32(S_EXC) !== 0) this.injectRaised();
    else if (reason === EXIT_MSR_WRITE && this.vcpu.reg32(RCX) === MSR_EFER) this.mode.update();
    return true;
  }

  protected override designExit(reason: number, outcome: ExitOutcome): void {
    switch (reason) {
      case EXIT_EXCEPTION:
        outcome.row = this.exception();
        return;
      case EXIT_PRIVILEGED:
      case EXIT_EMULATE:
        outcome.row = this.privileged();
        return;
      case EXIT_SYSCALL:
        outcome.row = this.rowsOf.syscall;
        this.undirected(() => {
          if (this.core.syscall(this.index) === EXIT_EXCEPTION) this.injectRaised();
        });
        return;
      case EXIT_SOFT_INT:
        outcome.row = this.softInterrupt();
        return;
      default:
        super.designExit(reason, outcome);
    }
  }

  private exceptionRow(vector: number, error = 0): number {
    const key = vector * 0x1_0000 + (error & 0xffff);
    const known = this.exceptionRows.get(key);
    if (known !== undefined) return known;
    const row = this.ledger.row(vectorName(vector), vector === VECTOR_PF ? PAGE_FAULT.guest : '', errorClass(vector, error));
    if (this.exceptionRows.size < MAX_EXCEPTION_ROWS) this.exceptionRows.set(key, row);
    return row;
  }

  private exception(): number {
    const { vcpu } = this;
    const vector = vcpu.get32(S_EXC) - 1;
    const row = this.exceptionRow(vector, vcpu.get32(S_EXC_ERROR));
    if (this.prefault && vector === VECTOR_PF && vcpu.get32(S_CPL) === 3) {
      this.prefaultLow = vcpu.get32(S_EXC_ADDR);
      this.prefaultHigh = vcpu.get32(S_EXC_ADDR + 4);
      this.prefaultAccess = vcpu.get32(S_EXIT_ACCESS) & 3;
    }
    this.injectRaised();
    return row;
  }

  private softInterrupt(): number {
    const { vcpu } = this;
    const vector = vcpu.get32(S_EXIT_VA) & 0xff;
    const isIcebp = vector === VECTOR_DB && vcpu.get32(S_EXIT_INSN_LEN) === ICEBP_LENGTH;
    this.inject(vector, isIcebp ? 'icebp' : 'software');
    return vector === 0x80 ? this.rowsOf.int80 : this.exceptionRow(vector);
  }

  /** An instruction that the control block took away: done here as the CPU would have done it, but for what concerns the page tables. */
  private privileged(): number {
    const { core, vcpu, mode } = this;
    const insn = core.decodeAt(this.index, vcpu.rip);
    if (typeof insn === 'string') throw new TripleFault(`a privileged instruction at 0x${vcpu.rip.toString(16)} cannot be read back`);
    const row = this.privilegedRows.of(insn, this.onlyFlushes(insn), insn.row.name === 'invpcid' ? vcpu.reg(insn.reg) : 0n);
    if (insn.row.name === 'mov_cr_r' && insn.reg === 3) {
      if (mode.loadCr3(vcpu.reg(insn.rm))) core.complete(this.index);
      else this.raise(VECTOR_GP);
      return row;
    }
    if (insn.row.name === 'mov_cr_r' && insn.reg === 4 && !mode.permitsCr4(vcpu.reg(insn.rm))) {
      this.raise(VECTOR_GP);
      return row;
    }
    if (insn.row.name === 'vmcall' || insn.row.name === 'vmmcall') {
      kvmHypercall(vcpu, this.platform.kvm);
      core.complete(this.index);
      return row;
    }
    if (insn.row.name === 'invlpg' || insn.row.name === 'invpcid') {
      // The CPU has checked the operands; the shadow is never behind the guest's tables.
      mode.mmu.invlpg(this.index, 0, 0);
      core.complete(this.index);
      return row;
    }
    const cpl = vcpu.get32(S_CPL);
    this.undirected(() => this.step());
    if (insn.row.name === 'mov_cr_r' || insn.row.name === 'lmsw') mode.update();
    if (cpl < 3 && vcpu.get32(S_CPL) === 3) this.fillAfterFault();
    return row;
  }

  private onlyFlushes(insn: Insn): boolean {
    if (insn.row.name !== 'mov_cr_r' || insn.reg !== 4) return false;
    const old = this.vcpu.get64(S_CR4);
    return (this.vcpu.reg(insn.rm) ^ old) === CR4_PGE && (old & CR4_PGE) !== 0n;
  }

  /** One instruction of the guest with nothing intercepted but exceptions. */
  private step(): void {
    const { core, vcpu } = this;
    const saved = [V_INTERCEPTS, V_CR0_MASK, V_CR4_MASK].map((field) => [field, vcpu.get32(field)] as const);
    for (const [field] of saved) vcpu.set32(field, 0);
    const reason = core.step(this.index);
    for (const [field, value] of saved) vcpu.set32(field, value);
    if (reason === EXIT_EXCEPTION) this.injectRaised();
    // An instruction that this CPU does not have, such as VMCALL.
    else if (reason === EXIT_PRIVILEGED || reason === EXIT_EMULATE) this.raise(VECTOR_UD);
  }

  /** Work of the hypervisor may change the mode; only the switcher's own changes count as direct switches. */
  private undirected(work: () => void): void {
    const { vcpu } = this;
    const syscalls = vcpu.get64(P_DIRECT_SYSCALLS);
    const returns = vcpu.get64(P_DIRECT_ERETUS);
    work();
    vcpu.set64(P_DIRECT_SYSCALLS, syscalls);
    vcpu.set64(P_DIRECT_ERETUS, returns);
  }

  /** The guest's fault handler is done: the page it mapped goes into the shadow now, not by a second fault. */
  private fillAfterFault(): void {
    if (this.prefaultAccess < 0) return;
    this.mmu.prefault(this.index, 1, this.prefaultLow, this.prefaultHigh, this.prefaultAccess);
    this.prefaultAccess = -1;
  }

  // ------------------------------------------------------------ events for the guest
  /** @throws TripleFault */
  private inject(vector: number, kind: EventKind, error = 0): void {
    this.undirected(() => {
      if (!this.core.inject(this.index, vector, kind, error))
        throw new TripleFault(`${vectorName(vector)} could not be delivered, nor the double fault after it`);
    });
  }
  /** The exception that the CPU has raised. */
  private injectRaised(): void {
    const { vcpu } = this;
    const vector = vcpu.get32(S_EXC) - 1;
    if (vector === VECTOR_PF) vcpu.copy64(S_CR2, S_EXC_ADDR);
    const error = vcpu.get32(S_EXC_ERROR);
    this.inject(vector, vector === VECTOR_DB && error !== DEBUG_FAULT ? 'trap' : 'fault', error);
  }
  protected override raise(vector: number): void {
    this.inject(vector, 'fault');
  }

  // ------------------------------------------------------------ hooks of the CPU
  mmuFault(): 0 | 1 | 2 | 3 {
    const start = this.ledger.start();
    const { vcpu, mmu } = this;
    const all = vcpu.get32(S_EXIT_ACCESS);
    const access = all & 3;
    const user = vcpu.get32(S_CPL) === 3 && (all & ACCESS_IMPLICIT_SUPERVISOR) === 0 ? 1 : 0;
    switch (mmu.fault(this.index, user, vcpu.get32(S_EXIT_VA), vcpu.get32(S_EXIT_VA + 4), access)) {
      case FAULT_FIXED:
        this.recordHook(this.rowsOf.shadowFault, start);
        return 0;
      case FAULT_PF:
        vcpu.set32(S_EXC, VECTOR_PF + 1);
        vcpu.set32(S_EXC_ERROR, mmu.errorCode);
        vcpu.copy64(S_EXC_ADDR, S_EXIT_VA);
        this.faultStart = start;
        return 1;
      case FAULT_TRACKED:
        if (accessTable(mmu, vcpu, access)) this.recordHook(this.rowsOf.tableWrite, start);
        return 2;
      case FAULT_MMIO:
        if ((all & ACCESS_PROBE) !== 0) return 2;
        vcpu.set64(S_EXIT_GPA, BigInt(mmu.faultGpa));
        return this.mmio();
      default:
        throw new RangeError('unknown answer of the shadow MMU');
    }
  }

  override hostWrote(gpa: number, length: number): void {
    this.mmu.guestWrote(this.core.ramBase + gpa, length);
  }

  override exitStart(_vcpu = 0, reason = 0): number {
    return reason === EXIT_EXCEPTION && this.vcpu.get32(S_EXC) === VECTOR_PF + 1 ? this.faultStart : this.ledger.start();
  }

  // ------------------------------------------------------------ reports
  override describe(): string[] {
    return [...super.describe(), this.mode.describe()];
  }
  override directSwitches(): DirectSwitches {
    return { syscalls: Number(this.vcpu.get64(P_DIRECT_SYSCALLS)), returns: Number(this.vcpu.get64(P_DIRECT_ERETUS)) };
  }
  /** Writes of a guest on a plain CPU are not seen. */
  get dirtyLog(): DirtyTracking {
    return shadowDirtyLog(this.mmu, () => {
      if (!this.shadow.isComplete) this.mmu.dirtyEverything();
    });
  }
  pageTables(): PageTableCounters {
    return { ...this.mmu.stats() };
  }
  /** Of a guest on a plain CPU nobody sees the writes to its tables. */
  checkMmu(): void {
    this.mmu.check(this.shadow.isComplete);
  }
  override shadowPagesBuilt(): number {
    return this.mmu.stats().pagesBuilt;
  }

  override state(s: StateIo): void {
    super.state(s);
    s.fields(this, ['prefaultLow', 'prefaultHigh', 'prefaultAccess', 'deferred']);
    if (this.index === 0) s.fields(this, ['mmu']);
  }
}
