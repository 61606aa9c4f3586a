import type { CpuCore, StateIo } from '@pvm/cpu-jit';
import {
  ACCESS_EXEC,
  CS,
  EXIT_EMULATE,
  EXIT_EXCEPTION,
  EXIT_PRIVILEGED,
  EXIT_SOFT_INT,
  EXIT_SYSCALL,
  P_DIRECT_ERETUS,
  P_DIRECT_FAULTS,
  P_DIRECT_SYSCALLS,
  P_RETU_RIP,
  S_CR2,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_INSN_LEN,
  S_EXIT_VA,
  S_GPR,
  S_RIP,
} from '@pvm/cpu-jit/layout';
import type { EntryState, GuestRam } from '@pvm/machine';
import { FAULT_FIXED, FAULT_MMIO, FAULT_PF, FAULT_TRACKED, type ShadowMmu } from '@pvm/shadow-mmu';
import { isLegal } from '../../abi/address-range.ts';
import * as abi from '../../abi/constants.ts';
import { installPvmCpuid } from '../../abi/cpuid.ts';
import { emulate, emulateUser } from '../../abi/emulate.ts';
import { hypercall } from '../../abi/hypercalls.ts';
import { KvmClock } from '../../abi/kvm-clock.ts';
import { type AbiChoice, PvmVcpu } from '../../abi/pvm-vcpu.ts';
import { vectorName } from '../../abi/vectors.ts';
import { GuestPageFault } from '../../guest-memory.ts';
import type { KvmPv } from '../../kvm-pv/kvm-pv.ts';
import type { ExitLedger } from '../../ledger.ts';
import type { Platform } from '../../platform/index.ts';
import type { PageTableCounters } from '../../summary.ts';
import { R11, RAX, RBX, RCX, RSI, RSP } from '../../vcpu-state.ts';
import { type Design, type DirectSwitches, type DirtyTracking, type ExitOutcome, TripleFault } from '../design.ts';
import { accessMmio } from '../mmio.ts';
import { accessTable, createShadowMmu, shadowDirtyLog } from '../shadow.ts';
import { NonPvmMode } from './non-pvm-mode.ts';
import { internRows, type PvmRows } from './rows.ts';

export interface PvmDesignOptions {
  readonly core: CpuCore;
  readonly ram: GuestRam;
  readonly platform: Platform;
  readonly ledger: ExitLedger;
  /** TSC of a vCPU. */
  readonly tsc: (vcpu: number) => bigint;
  /** Nanoseconds since 1970 UTC. */
  readonly wallClock: () => bigint;
  readonly abi: AbiChoice;
  readonly directSwitch: boolean;
  /** Fill the shadow of a page when the guest returns from its fault handler. */
  readonly prefault: boolean;
  /** Keep translations across changes of mode and address space. */
  readonly pcidMap: boolean;
  /** Page faults that the guest's own tables mean go from umod to smod without an exit. */
  readonly injectDirect: boolean;
}

/** PVM: guest kernel and user at privilege level 3 on shadow page tables. */
export class PvmDesign implements Design {
  readonly name = 'pvm';
  readonly mmu: ShadowMmu;
  readonly interruptRow: number;
  readonly timerRow: number;
  private readonly core: CpuCore;
  private readonly ledger: ExitLedger;
  private readonly platform: Platform;
  private readonly vcpus: readonly PvmVcpu[];
  private readonly clocks: readonly KvmClock[];
  private readonly rows: PvmRows;
  /** Drive vCPUs that are not yet in 64-bit code; none on a board whose kernels all begin there. */
  private readonly plain: readonly NonPvmMode[];
  /** By vCPU: which of them does at present; undefined from 64-bit code on. */
  private readonly nonPvm: (NonPvmMode | undefined)[];
  /** When the last walk began that ended in a #PF for the guest. */
  private faultStart = 0;
  private faultTimed = false;

  constructor(options: PvmDesignOptions) {
    const { core, ledger } = options;
    this.core = core;
    this.ledger = ledger;
    this.platform = options.platform;
    this.rows = internRows(ledger);
    this.interruptRow = ledger.row('INTERRUPT');
    this.timerRow = ledger.row('INTERRUPT', 'timer');
    this.mmu = createShadowMmu(core, { isLegal: (_low, high, levels) => isLegal(this.vcpu(0).range, high, levels) });
    this.vcpus = Array.from({ length: core.vcpus }, (_, i) => new PvmVcpu(core, i, { ...options, mmu: this.mmu, interrupts: options.platform.interrupts(i) }));
    this.clocks = this.vcpus.map((v) => this.pv(v.index)?.clock ?? new KvmClock(options.ram, () => options.tsc(v.index), options.wallClock));
    const isPc = this.platform.kind === 'pc';
    this.plain = isPc ? this.vcpus.map((v) => new NonPvmMode({ core, ledger, platform: this.platform }, v.index)) : [];
    this.nonPvm = this.vcpus.map((v) => (v.index === 0 ? undefined : this.plain[v.index]));
    for (const vcpu of this.vcpus) {
      const processor = { id: vcpu.index, count: core.vcpus };
      installPvmCpuid(vcpu, { level: core.level, apic: isPc, processor }, this.platform.kvm !== undefined);
    }
  }

  /** The ABI state of a vCPU. */
  vcpu(index: number): PvmVcpu {
    const vcpu = this.vcpus[index];
    if (vcpu === undefined) throw new RangeError(`no vCPU ${index}`);
    return vcpu;
  }

  /** A 64-bit entry starts in smod; a 32-bit one first has to get there. */
  boot(entry: EntryState): void {
    if (entry.mode === 'protected') {
      this.nonPvm[0] = this.plain[0];
      this.plain[0]?.boot(entry);
      return;
    }
    const { rax = 0n, rbx = 0n, rsp = 0n, rsi = 0n } = entry.registers;
    const registers = [[RAX, rax] as const, [RBX, rbx] as const, [RSP, rsp] as const, [RSI, rsi] as const];
    this.vcpu(0).boot({ rip: entry.rip, registers, cr3: BigInt(entry.cr3), codeSelector: entry.segments.cs.selector });
  }

  /** All writes of the guest to its tables are seen: no vCPU runs on a plain CPU. */
  private get isShadowComplete(): boolean {
    return this.nonPvm.every((plain) => plain?.isStarted !== true);
  }

  /** An INIT takes a vCPU back out of PVM mode; a start-up IPI without one has no effect. */
  private takeReset(vcpu: PvmVcpu): void {
    const { interrupts, index } = vcpu;
    if (!interrupts.takeInit()) {
      interrupts.takeSipi();
      return;
    }
    vcpu.init();
    this.nonPvm[index] = this.plain[index];
    this.plain[index]?.init();
  }

  /** The vCPU has reached 64-bit code. What it wrote to the guest's tables before was not seen: shadowing starts anew. */
  private enterPvm(index: number, plain: NonPvmMode): void {
    const vcpu = this.vcpu(index);
    plain.leave();
    this.nonPvm[index] = undefined;
    const others = this.vcpus.filter((other) => other !== vcpu && this.nonPvm[other.index] === undefined);
    if (others.length > 0) this.mmu.reset();
    for (const other of others) other.loadRoots(true);
    if (index > 0) vcpu.speakLike(this.vcpu(0));
    vcpu.convert(vcpu.selector(CS));
  }

  /** KVM's interface of a vCPU beside the clock; undefined where the platform has no local APIC, or hides it. */
  private pv(index: number): KvmPv | undefined {
    return this.platform.kvm?.kvmPv(index);
  }

  prepareEntry(index: number): boolean {
    const plain = this.nonPvm[index];
    if (plain !== undefined) return plain.prepareEntry();
    const eoi = this.pv(index)?.eoi;
    eoi?.takeBack();
    const delivered = this.vcpu(index).prepareEntry();
    eoi?.offer();
    return delivered;
  }
  turnBegins(index: number, ns: number): void {
    if (this.pv(index)?.steal.begin(ns) === true) this.mmu.flushAll(index);
  }
  turnEnds(index: number): void {
    this.pv(index)?.steal.end();
  }

  enter(index: number): number {
    const plain = this.nonPvm[index];
    if (plain !== undefined) {
      const reason = plain.enter();
      if (!plain.isLongMode) return reason;
      this.enterPvm(index, plain);
    }
    return this.core.run(index);
  }

  // ------------------------------------------------------------ exits
  handleExit(index: number, reason: number, outcome: ExitOutcome): void {
    const vcpu = this.vcpu(index);
    const plain = this.nonPvm[index];
    if (plain !== undefined) {
      plain.handleExit(index, reason, outcome);
      return;
    }
    outcome.wait = undefined;
    this.pv(index)?.eoi.takeBack();
    try {
      switch (reason) {
        case EXIT_SYSCALL:
          outcome.row = this.syscall(vcpu);
          return;
        case EXIT_EXCEPTION:
          this.exception(vcpu, outcome);
          return;
        case EXIT_SOFT_INT:
          outcome.row = this.softInterrupt(vcpu);
          return;
        case EXIT_EMULATE:
        case EXIT_PRIVILEGED:
          outcome.row = this.rows.emulate;
          this.privileged(vcpu, 0, outcome);
          return;
        default:
          throw new TripleFault(`exit reason ${reason} that this design never asked for`);
      }
    } catch (e) {
      if (!(e instanceof GuestPageFault)) throw e;
      // The emulated instruction touched a page the guest's tables forbid.
      vcpu.set64(S_CR2, e.va);
      vcpu.deliver(abi.VECTOR_PF, e.errorCode);
    }
  }

  private syscall(vcpu: PvmVcpu): number {
    const { rows } = this;
    const length = vcpu.get32(S_EXIT_INSN_LEN);
    if (!vcpu.smod) {
      if (vcpu.selector(1) !== abi.USER_CS) {
        // SYSCALL in compat mode: CSTAR is stored and ignored.
        vcpu.deliver(abi.VECTOR_UD, 0);
        return rows.exception(abi.VECTOR_UD);
      }
      vcpu.skip(length);
      vcpu.copy64(S_GPR + 8 * RCX, S_RIP);
      vcpu.setRegNumber(R11, vcpu.rflags);
      vcpu.deliverSyscall();
      return rows.syscall;
    }
    if (vcpu.equal64(S_RIP, P_RETU_RIP)) {
      vcpu.eretu();
      vcpu.fillAfterFault();
      return rows.eretu;
    }
    const synthetic = vcpu.revision.syntheticReturn(vcpu);
    if (synthetic !== undefined) return this.ledger.row(synthetic);
    const row = rows.hypercall(vcpu.reg32(RAX));
    hypercall(vcpu, this.clock(vcpu), this.platform, length);
    return row;
  }

  private exception(vcpu: PvmVcpu, outcome: ExitOutcome): void {
    const vector = vcpu.get32(S_EXC) - 1;
    // That of #DB says of which kind it is.
    const code = vcpu.get32(S_EXC_ERROR);
    const error = vector === abi.VECTOR_DB ? 0 : code;
    const isFault = vector !== abi.VECTOR_DB || code === abi.DEBUG_FAULT;
    vcpu.set32(S_EXC, 0);
    if (vector === abi.VECTOR_PF) {
      outcome.row = this.rows.guestFault(error);
      vcpu.copy64(S_CR2, S_EXC_ADDR);
      if (!vcpu.smod) vcpu.rememberFault();
    } else if (vector === abi.VECTOR_GP && error === 0 && vcpu.smod) {
      outcome.row = this.rows.exception(vector, error);
      this.privileged(vcpu, error, outcome);
      return;
    } else {
      outcome.row = this.rows.exception(vector, error);
    }
    if (isFault) vcpu.debug.setResumeFlag();
    vcpu.deliver(vector, error);
  }

  /** An instruction the CPU refused: emulate it, or give the guest the exception. */
  private privileged(vcpu: PvmVcpu, error: number, outcome: ExitOutcome): void {
    const insn = this.core.decodeAt(vcpu.index, vcpu.rip);
    if (typeof insn === 'string') {
      vcpu.deliver(insn === 'ud' ? abi.VECTOR_UD : abi.VECTOR_GP, 0);
      return;
    }
    const isTraced = (vcpu.rflags & abi.RFLAGS_TF) !== 0;
    if (!vcpu.smod) {
      const vector = emulateUser(vcpu, insn);
      if (vector !== undefined) vcpu.deliver(vector, error);
      else if (isTraced) vcpu.stepped();
      return;
    }
    const result = emulate(vcpu, this.clock(vcpu), this.platform, insn);
    outcome.row = this.ledger.row(vectorName(abi.VECTOR_GP), result.sub);
    if ('fault' in result) {
      vcpu.debug.setResumeFlag();
      vcpu.deliver(result.fault, error);
      return;
    }
    outcome.wait = result.wait;
    if (isTraced) vcpu.stepped();
  }

  /** INT n, INT3, INTO: only 3, 4 and 0x80 have an entry. */
  private softInterrupt(vcpu: PvmVcpu): number {
    const vector = vcpu.get32(S_EXIT_VA) & 0xff;
    if (vector !== abi.VECTOR_BP && vector !== abi.VECTOR_OF && vector !== 0x80) {
      // Error code: the vector's IDT entry (SDM vol. 3, 7.13).
      vcpu.deliver(abi.VECTOR_GP, vector * 8 + 2);
      return this.rows.badInt;
    }
    vcpu.skip(vcpu.get32(S_EXIT_INSN_LEN));
    vcpu.deliver(vector, 0);
    return vector === 0x80 ? this.rows.int80 : this.rows.exception(vector);
  }

  private clock(vcpu: PvmVcpu): KvmClock {
    const clock = this.clocks[vcpu.index];
    if (clock === undefined) throw new RangeError(`no vCPU ${vcpu.index}`);
    return clock;
  }

  // ------------------------------------------------------------ hooks of the CPU
  mmuFault(index: number): 0 | 1 | 2 | 3 {
    const plain = this.nonPvm[index];
    if (plain !== undefined) return plain.mmuFault();
    const start = this.ledger.start();
    const vcpu = this.vcpu(index);
    const access = vcpu.get32(S_EXIT_ACCESS) & 3;
    const low = vcpu.get32(S_EXIT_VA);
    const high = vcpu.get32(S_EXIT_VA + 4);
    const { mmu } = this;
    switch (mmu.fault(index, vcpu.smod ? 0 : 1, low, high, access)) {
      case FAULT_FIXED:
        this.recordHook(this.rows.shadowFault, start, vcpu);
        return 0;
      case FAULT_PF:
        vcpu.set32(S_EXC, abi.VECTOR_PF + 1);
        vcpu.set32(S_EXC_ERROR, mmu.errorCode);
        vcpu.copy64(S_EXC_ADDR, S_EXIT_VA);
        this.faultStart = start;
        this.faultTimed = true;
        return 1;
      case FAULT_TRACKED:
        if (accessTable(mmu, vcpu, access)) this.recordHook(this.rows.tableWrite, start, vcpu);
        return 2;
      case FAULT_MMIO:
        return this.deviceAccess(vcpu, mmu.faultGpa, access, start);
      default:
        throw new RangeError('unknown answer of the shadow MMU');
    }
  }

  /** An access outside RAM. Code cannot be fetched from there. */
  private deviceAccess(vcpu: PvmVcpu, gpa: number, access: number, start: number): 1 | 2 {
    if (access === ACCESS_EXEC) {
      vcpu.set32(S_EXC, abi.VECTOR_GP + 1);
      vcpu.set32(S_EXC_ERROR, 0);
    } else {
      this.pv(vcpu.index)?.eoi.takeBack();
      accessMmio(this.platform, vcpu, gpa);
    }
    this.recordHook(this.rows.mmio, start, vcpu);
    return access === ACCESS_EXEC ? 1 : 2;
  }

  /** Outside RAM in the guest's own tables, which only non-PVM mode walks. */
  mmio(index: number): 1 | 2 {
    const plain = this.nonPvm[index];
    if (plain !== undefined) return plain.mmio();
    const vcpu = this.vcpu(index);
    return this.deviceAccess(vcpu, Number(vcpu.get64(S_EXIT_GPA)), vcpu.get32(S_EXIT_ACCESS) & 3, this.ledger.start());
  }

  hostWrote(gpa: number, length: number): void {
    this.mmu.guestWrote(this.core.ramBase + gpa, length);
  }

  private recordHook(row: number, start: number, vcpu: PvmVcpu): void {
    this.ledger.finish(row, start, vcpu.getI32(S_RIP), vcpu.getI32(S_RIP + 4), vcpu.index);
  }

  exitStart(_index: number, reason: number): number {
    const isFault = reason === EXIT_EXCEPTION && this.faultTimed;
    this.faultTimed = false;
    return isFault ? this.faultStart : this.ledger.start();
  }

  // ------------------------------------------------------------ events and reports
  injectInterrupt(index: number, vector: number): void {
    this.platform.sendInterrupt(index, vector);
  }
  injectNmi(index: number): void {
    this.platform.sendNmi(index);
  }
  halted(index: number): 'no' | 'wakeable' | 'dead' {
    const vcpu = this.vcpu(index);
    let plain = this.nonPvm[index];
    if (plain === undefined && this.plain.length > 0 && vcpu.interrupts.hasReset()) {
      this.takeReset(vcpu);
      plain = this.nonPvm[index];
    }
    if (plain !== undefined) return plain.halted();
    if (vcpu.halted && this.pv(index)?.takeKick() === true) vcpu.halted = false;
    if (!vcpu.halted || vcpu.wakeUp()) return 'no';
    return vcpu.virtualIf ? 'wakeable' : 'dead';
  }

  describe(index: number): string[] {
    const plain = this.nonPvm[index];
    if (plain !== undefined) return ['non-PVM mode', ...plain.describe()];
    const vcpu = this.vcpu(index);
    const lines = [`ABI ${vcpu.revision.name}  mode ${vcpu.smod ? 'smod' : 'umod'}  virtual IF ${vcpu.virtualIf ? 1 : 0}`];
    if (vcpu.pvcs === 0) return [...lines, 'no PVCS'];
    const { view } = this.core;
    const at = vcpu.revision.pvcs;
    const quad = (offset: number) =>
      view
        .getBigUint64(vcpu.pvcs + offset, true)
        .toString(16)
        .padStart(16, '0');
    lines.push(`PVCS at gpa 0x${vcpu.pvcsAddress.toString(16)}: flags ${quad(abi.PVCS_EVENT_FLAGS)} cr2 ${quad(at.cr2)}`);
    lines.push(`     rip ${quad(at.rip)} rcx ${quad(at.rcx)} r11 ${quad(at.r11)} eflags ${view.getUint32(vcpu.pvcs + at.eflags, true).toString(16)}`);
    return lines;
  }

  directSwitches(): DirectSwitches {
    const sum = (field: number) => this.vcpus.reduce((n, v) => n + Number(v.get64(field)), 0);
    return { syscalls: sum(P_DIRECT_SYSCALLS), returns: sum(P_DIRECT_ERETUS), faults: sum(P_DIRECT_FAULTS) };
  }

  /** The switcher writes to the PVCS past the tables, and a guest in non-PVM mode to everything. */
  get dirtyLog(): DirtyTracking {
    return shadowDirtyLog(this.mmu, () => {
      if (!this.isShadowComplete) this.mmu.dirtyEverything();
      for (const { pvcs } of this.vcpus) if (pvcs !== 0) this.mmu.guestWrote(pvcs, abi.PVCS_SIZE);
    });
  }
  pageTables(): PageTableCounters {
    return { ...this.mmu.stats() };
  }

  checkMmu(): void {
    this.mmu.check(this.isShadowComplete);
  }
  shadowPagesBuilt(): number {
    return this.mmu.stats().pagesBuilt;
  }

  state(s: StateIo): void {
    s.fields(this, ['mmu', 'vcpus', 'clocks']);
    const isNonPvm = s.value(
      'isNonPvm',
      this.nonPvm.map((plain) => plain !== undefined),
    );
    this.plain.forEach((plain, i) => {
      this.nonPvm[i] = isNonPvm[i] === true ? plain : undefined;
      s.part('nonPvm', plain);
    });
  }
}
