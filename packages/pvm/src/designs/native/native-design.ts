import type { CpuCore, StateIo } from '@pvm/cpu-jit';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_WRITE,
  EXIT_CR8,
  EXIT_HLT,
  EXIT_INTR_WINDOW,
  EXIT_IO,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  EXIT_SHUTDOWN,
  INTERCEPT_CR8,
  S_APIC_BASE,
  S_CODE_SIZE,
  S_CPL,
  S_CR0,
  S_CR8,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_RFLAGS,
  S_RIP,
  V_INTERCEPTS,
  V_TPR_THRESHOLD,
} from '@pvm/cpu-jit/layout';
import type { EntryState, InterruptSink, PortSize } from '@pvm/machine';
import { installCpuid } from '../../cpuid.ts';
import { kvmLeaves } from '../../kvm-pv/features.ts';
import type { KvmPv } from '../../kvm-pv/kvm-pv.ts';
import type { ExitLedger } from '../../ledger.ts';
import type { Platform } from '../../platform/index.ts';
import { RAX, RCX, RDX, VcpuState } from '../../vcpu-state.ts';
import { type Design, type DesignContext, type DirectSwitches, type ExitOutcome, TripleFault } from '../design.ts';
import { accessMmio } from '../mmio.ts';

const RFLAGS_IF = 1 << 9;
const VECTOR_UD = 6;
const VECTOR_GP = 13;
/** IA32_BIOS_SIGN_ID: the microcode revision, none. */
const MSR_BIOS_SIGN_ID = 0x8b;
/** IA32_APIC_BASE, which the CPU answers. */
const MSR_APIC_BASE = 0x1b;
const ALL_ONES_32 = 0xffff_ffffn;

/** A ledger row: reason and sub-reason, to which a port or MSR number is appended. */
type RowName = readonly [reason: string, sub: string];
/** What the exits of this base are called. */
export interface ExitNames {
  readonly hlt: RowName;
  /** A waiting interrupt can be delivered now. */
  readonly window: RowName;
  readonly in: RowName;
  readonly out: RowName;
  readonly readMsr: RowName;
  readonly writeMsr: RowName;
  /** The task priority fell so far that a waiting interrupt can be delivered. */
  readonly taskPriority: RowName;
  readonly mmioRead: RowName;
  readonly mmioWrite: RowName;
}
/** SDM vol. 3, appendix C. */
const VMX_NAMES: ExitNames = {
  hlt: ['HLT', ''],
  window: ['PENDING_INTERRUPT', ''],
  in: ['IO_INSTRUCTION', 'IN '],
  out: ['IO_INSTRUCTION', 'OUT '],
  readMsr: ['MSR_READ', ''],
  writeMsr: ['MSR_WRITE', ''],
  taskPriority: ['TPR_BELOW_THRESHOLD', ''],
  mmioRead: ['MMIO', 'read'],
  mmioWrite: ['MMIO', 'write'],
};

/**
 * Base of the designs whose guest has the CPU's own state: rings, control registers and events are the hardware's, and
 * the platform answers for its devices. What else leaves the guest is up to the design. Exits have the names of VMX
 * unless the design gives others. One object drives one vCPU (per-vcpu.ts); what is the machine's, such as second-level tables, the objects share.
 */
export abstract class NativeDesign implements Design {
  abstract readonly name: string;
  abstract readonly interruptRow: number;
  abstract readonly timerRow: number;
  protected readonly core: CpuCore;
  protected readonly ledger: ExitLedger;
  protected readonly platform: Platform;
  /** Which vCPU this is. */
  protected readonly index: number;
  protected readonly vcpu: VcpuState;
  protected readonly sink: InterruptSink;
  /** KVM's paravirtual interface, undefined: the guest is offered none. */
  private readonly pv: KvmPv | undefined;
  private readonly rows: Readonly<Record<'hlt' | 'window' | 'taskPriority' | 'mmioRead' | 'mmioWrite' | 'shutdown', number>>;
  private readonly names: ExitNames;
  /** Rows of ports and MSRs by the kind of access, then by number. */
  private readonly numbered = new Map<string, Map<number, number>>();
  /** Activity (SDM vol. 3, 25.4.2): HLT was executed and nothing has woken the vCPU; or it waits for a start-up IPI after INIT, or since power-on. */
  private activity: 'active' | 'hlt' | 'wait-for-sipi';

  constructor({ core, ledger, platform }: Pick<DesignContext, 'core' | 'ledger' | 'platform'>, names = VMX_NAMES, index = 0) {
    this.names = names;
    this.index = index;
    this.activity = index === 0 ? 'active' : 'wait-for-sipi';
    this.core = core;
    this.ledger = ledger;
    this.platform = platform;
    this.sink = platform.interrupts(index);
    this.vcpu = new VcpuState(core, index);
    this.pv = platform.kvm?.kvmPv(index);
    const row = ([reason, sub]: RowName) => ledger.row(reason, sub);
    this.rows = {
      hlt: row(names.hlt),
      window: row(names.window),
      taskPriority: row(names.taskPriority),
      mmioRead: row(names.mmioRead),
      mmioWrite: row(names.mmioWrite),
      shutdown: row(['TRIPLE_FAULT', '']),
    };
    const isPc = platform.kind === 'pc';
    if (index > 0) core.resetToReal(index);
    // Programs see the processor that PVM guests see, so that they run the same code under every design.
    const isKvm = this.pv !== undefined;
    const processor = { id: index, count: core.vcpus };
    // As KVM does by default: with an invariant TSC kernels would not take its clock.
    installCpuid(this.vcpu, { level: core.level, apic: isPc, fsgsbase: !isPc, pcid: isPc, invariantTsc: !isKvm, processor }, kvmLeaves(isKvm));
  }

  /** Programs the control block after every reset of the vCPU: as a CPU without a hypervisor, but for the task priority. */
  protected programControls(): void {
    this.vcpu.set32(V_INTERCEPTS, INTERCEPT_CR8);
  }

  boot(entry: EntryState): void {
    const { rax = 0n, rbx = 0n, rsp = 0n, rsi = 0n } = entry.registers;
    this.core.enterFlat(this.index, entry.mode, {
      rip: entry.rip,
      rax,
      rbx,
      rsp,
      rsi,
      cr3: BigInt(entry.cr3),
      codeSelector: entry.segments.cs.selector,
      dataSelector: entry.segments.ds.selector,
      gdt: { base: BigInt(entry.gdtr.base), limit: entry.gdtr.limit },
    });
    this.programControls();
  }

  /** INIT (SDM vol. 3, 10.1): real mode, where all but the boot vCPU wait for a start-up IPI. */
  init(): void {
    const { core, index } = this;
    core.resetToReal(index);
    this.pv?.reset();
    // INIT leaves it as it is, and with it the x2APIC mode.
    this.vcpu.set64(S_APIC_BASE, this.platform.readMsr(index, MSR_APIC_BASE) ?? 0n);
    this.programControls();
    this.activity = index === 0 ? 'active' : 'wait-for-sipi';
  }

  /** INIT and start-up IPIs of other vCPUs (SDM vol. 3, 10.4). */
  private takeResets(): void {
    const { core, sink, index } = this;
    if (sink.takeInit()) this.init();
    const page = sink.takeSipi();
    if (page < 0 || this.activity !== 'wait-for-sipi') return;
    this.programControls();
    core.startUp(index, page);
    this.activity = 'active';
  }

  // ------------------------------------------------------------ entry
  prepareEntry(): boolean {
    this.lookAtSink();
    const isDelivered = this.deliverInterrupts();
    this.pv?.eoi.offer();
    return isDelivered;
  }

  /** Asks the CPU to take the interrupt that waits, or to leave when it could. @returns whether it takes one */
  protected deliverInterrupts(): boolean {
    const { sink, core } = this;
    if (core.pendingInterrupt(this.index) !== undefined || sink.pendingVector() < 0) return false;
    if (!core.interruptible(this.index)) {
      core.requestInterruptWindow(this.index);
      return false;
    }
    core.setInterrupt(this.index, sink.acknowledge());
    return true;
  }

  /** Task priority and NMI, before an interrupt is asked for. */
  protected lookAtSink(): void {
    const { sink, core } = this;
    this.pv?.eoi.takeBack();
    this.readTaskPriority();
    this.vcpu.set32(V_TPR_THRESHOLD, sink.heldClass());
    if (sink.takeNmi()) core.setNmi(this.index);
  }

  enter(): number {
    return this.core.run(this.index);
  }

  /** The CPU changes the task priority without leaving the guest (TPR shadow); devices hear of it before they are used. */
  private readTaskPriority(): void {
    const value = this.vcpu.get32(S_CR8);
    if (this.sink.taskPriority !== value) this.sink.taskPriority = value;
  }
  /** An access to the local APIC may have changed it. */
  private writeTaskPriority(): void {
    this.vcpu.set32(S_CR8, this.sink.taskPriority);
  }

  // ------------------------------------------------------------ exits
  handleExit(_vcpu: number, reason: number, outcome: ExitOutcome): void {
    outcome.wait = undefined;
    this.pv?.eoi.takeBack();
    switch (reason) {
      case EXIT_IO:
        this.portIo(outcome);
        break;
      case EXIT_MSR_READ:
        outcome.row = this.readMsr();
        break;
      case EXIT_MSR_WRITE:
        outcome.row = this.writeMsr();
        break;
      case EXIT_HLT:
        outcome.row = this.rows.hlt;
        this.activity = 'hlt';
        break;
      case EXIT_INTR_WINDOW:
        outcome.row = this.rows.window;
        break;
      case EXIT_CR8:
        outcome.row = this.rows.taskPriority;
        break;
      case EXIT_SHUTDOWN:
        outcome.row = this.rows.shutdown;
        throw new TripleFault('an exception could not be delivered, nor the double fault after it');
      default:
        this.designExit(reason, outcome);
    }
  }

  /** Exits that only some designs ask for. @throws TripleFault for one that this design did not */
  protected designExit(reason: number, _outcome: ExitOutcome): void {
    const insn = this.core.decodeAt(this.index, this.vcpu.rip);
    const name = typeof insn === 'string' ? insn : insn.row.name;
    throw new TripleFault(`exit reason ${reason} at ${name}, which the CPU should have done itself`);
  }

  private portIo(outcome: ExitOutcome): void {
    const { vcpu, core, platform } = this;
    const port = vcpu.get32(S_EXIT_VA) & 0xffff;
    const size = portSize(vcpu.get32(S_EXIT_SIZE));
    if (vcpu.get32(S_EXIT_ACCESS) === ACCESS_READ) {
      outcome.row = this.numberedRow(this.names.in, port);
      core.completeIo(this.index, platform.readPort(port, size));
      return;
    }
    outcome.row = this.numberedRow(this.names.out, port);
    const value = vcpu.get32(S_EXIT_VALUE);
    outcome.wait = platform.writePort(port, size, size === 4 ? value : value & ((1 << (8 * size)) - 1));
    core.completeIo(this.index);
  }

  /** Whether the CPU did the access to an MSR that left with `reason`, because the register is one of its own. */
  protected cpuDoesMsr(_reason: number): boolean {
    return false;
  }

  protected readMsr(): number {
    const { vcpu, core, platform } = this;
    const msr = vcpu.reg32(RCX);
    const row = this.numberedRow(this.names.readMsr, msr);
    if (this.cpuDoesMsr(EXIT_MSR_READ)) return row;
    this.readTaskPriority();
    const value = msr === MSR_BIOS_SIGN_ID ? 0n : platform.readMsr(this.index, msr);
    if (value === undefined) this.raise(VECTOR_GP);
    else {
      vcpu.setReg(RAX, value & ALL_ONES_32);
      vcpu.setReg(RDX, value >> 32n);
      core.complete(this.index);
    }
    return row;
  }

  protected writeMsr(): number {
    const { vcpu, core, platform } = this;
    const msr = vcpu.reg32(RCX);
    const row = this.numberedRow(this.names.writeMsr, msr);
    if (this.cpuDoesMsr(EXIT_MSR_WRITE)) return row;
    const value = BigInt(vcpu.reg32(RAX)) | (BigInt(vcpu.reg32(RDX)) << 32n);
    this.readTaskPriority();
    const isDone = msr === MSR_BIOS_SIGN_ID || platform.writeMsr(this.index, msr, value);
    this.writeTaskPriority();
    if (isDone && msr === MSR_APIC_BASE) vcpu.set64(S_APIC_BASE, value);
    if (isDone) core.complete(this.index);
    else this.raise(VECTOR_GP);
    return row;
  }

  /** The instruction at RIP is answered with an exception, error code 0. */
  protected raise(vector: number): void {
    this.core.raise(this.index, vector);
  }

  /** Row of a port or MSR; the ledger bounds their number. */
  protected numberedRow([reason, kind]: RowName, number: number): number {
    const name = kind === '' ? reason : kind;
    const rows = this.numbered.get(name) ?? new Map<number, number>();
    if (rows.size === 0) this.numbered.set(name, rows);
    const known = rows.get(number);
    if (known !== undefined) return known;
    const row = this.ledger.row(reason, `${kind}0x${number.toString(16)}`);
    if (rows.size < 256) rows.set(number, row);
    return row;
  }

  // ------------------------------------------------------------ hooks of the CPU
  abstract mmuFault(vcpu: number): 0 | 1 | 2 | 3;

  mmio(): 1 | 2 {
    const start = this.ledger.start();
    const result = this.deviceAccess();
    this.recordHook(this.isWrite() ? this.rows.mmioWrite : this.rows.mmioRead, start);
    return result;
  }

  protected isWrite(): boolean {
    return (this.vcpu.get32(S_EXIT_ACCESS) & 3) === ACCESS_WRITE;
  }

  /** An exit that did not end the run of the guest. */
  protected recordHook(row: number, start: number): void {
    this.ledger.finish(row, start, this.vcpu.getI32(S_RIP), this.vcpu.getI32(S_RIP + 4), this.index);
  }

  /** Performs the access to guest-physical S_EXIT_GPA that the CPU left to the devices. @returns what a hook answers: 2 done, 1 exception */
  protected deviceAccess(): 1 | 2 {
    const { vcpu, platform } = this;
    if ((vcpu.get32(S_EXIT_ACCESS) & 3) === ACCESS_EXEC) {
      // A bus without memory reads as all ones, which is no instruction.
      vcpu.set32(S_EXC, VECTOR_UD + 1);
      vcpu.set32(S_EXC_ERROR, 0);
      return 1;
    }
    this.pv?.eoi.takeBack();
    this.readTaskPriority();
    accessMmio(platform, vcpu, Number(vcpu.get64(S_EXIT_GPA)));
    this.writeTaskPriority();
    return 2;
  }

  /** Nothing here depends on what guest RAM holds. */
  hostWrote(_gpa: number, _length: number): void {}

  exitStart(_vcpu?: number, _reason?: number): number {
    return this.ledger.start();
  }

  // ------------------------------------------------------------ events and reports
  injectInterrupt(vcpu: number, vector: number): void {
    this.platform.sendInterrupt(vcpu, vector);
  }
  injectNmi(vcpu: number): void {
    this.platform.sendNmi(vcpu);
  }

  halted(): 'no' | 'wakeable' | 'dead' {
    if (this.sink.hasReset()) this.takeResets();
    if (this.activity === 'active') return 'no';
    if (this.activity === 'wait-for-sipi') return 'dead';
    this.readTaskPriority();
    const isOpen = (this.vcpu.get32(S_RFLAGS) & RFLAGS_IF) !== 0;
    if ((isOpen && this.sink.hasWork()) || this.sink.hasNmi() || this.pv?.takeKick() === true) {
      this.activity = 'active';
      return 'no';
    }
    return isOpen ? 'wakeable' : 'dead';
  }

  /** False: it waits for another vCPU to start it. */
  get isStarted(): boolean {
    return this.activity !== 'wait-for-sipi';
  }

  turnBegins(_vcpu: number, ns: number): void {
    if (this.pv?.steal.begin(ns) === true) this.flushGuestTlb();
  }
  turnEnds(): void {
    this.pv?.steal.end();
  }
  /** Another vCPU of the guest asked for it while this one did not run. */
  protected flushGuestTlb(): void {
    this.core.tlbFlushAll(this.index);
  }

  describe(): string[] {
    const { vcpu } = this;
    return [`cr0 ${vcpu.get64(S_CR0).toString(16)}  cpl ${vcpu.get32(S_CPL)}  code size ${vcpu.get32(S_CODE_SIZE)}`];
  }

  /** There is nothing to switch between. */
  directSwitches(): DirectSwitches {
    return { syscalls: 0, returns: 0 };
  }
  shadowPagesBuilt(): number {
    return 0;
  }

  state(s: StateIo): void {
    s.fields(this, ['activity']);
  }
}

function portSize(size: number): PortSize {
  return size === 1 || size === 2 ? size : 4;
}
