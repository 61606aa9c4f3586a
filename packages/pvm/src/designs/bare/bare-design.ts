import type { CpuCore } from '@pvm/cpu-jit';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  EXIT_HLT,
  EXIT_INTR_WINDOW,
  EXIT_IO,
  EXIT_LIMIT,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  EXIT_SHUTDOWN,
  S_CODE_SIZE,
  S_CPL,
  S_CR0,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_ICOUNT,
  S_RFLAGS,
  S_RIP,
} from '@pvm/cpu-jit/layout';
import type { Board, EntryState, MmioSize, PortSize } from '@pvm/machine';
import { TripleFault } from '../../abi-v2/pvm-vcpu.ts';
import type { ExitLedger } from '../../ledger.ts';
import { RAX, RCX, RDX, VcpuState } from '../../vcpu-state.ts';
import type { Design, ExitOutcome } from '../design.ts';
import { installCpuid } from './cpuid.ts';
import type { MachineClock } from './machine-clock.ts';

const RFLAGS_IF = 1 << 9;
const VECTOR_GP = 13;
/** IA32_BIOS_SIGN_ID: the microcode revision, none. */
const MSR_BIOS_SIGN_ID = 0x8b;
const ALL_ONES_32 = 0xffff_ffffn;

export interface BareDesignOptions {
  readonly core: CpuCore;
  readonly ledger: ExitLedger;
  readonly board: Board;
  readonly clock: MachineClock;
}

/**
 * No hypervisor under the guest: the CPU walks the guest's page tables, delivers its events and does its privileged
 * instructions. Only what the board has to answer leaves it: ports, memory outside RAM, some MSRs, HLT. One vCPU.
 */
export class BareDesign implements Design {
  readonly name = 'bare';
  private readonly core: CpuCore;
  private readonly ledger: ExitLedger;
  private readonly board: Board;
  private readonly clock: MachineClock;
  private readonly vcpu: VcpuState;
  private readonly rows: Readonly<Record<'hlt' | 'window' | 'mmioRead' | 'mmioWrite' | 'shutdown', number>>;
  private readonly numbered = new Map<string, number>();
  /** The vCPU executed HLT and nothing has woken it. */
  private isHalted = false;
  /** The vCPU runs under a limit that `cut` may lower. */
  private isRunning = false;

  constructor(options: BareDesignOptions) {
    this.core = options.core;
    this.ledger = options.ledger;
    this.board = options.board;
    this.clock = options.clock;
    this.vcpu = new VcpuState(this.core, 0);
    const row = (reason: string, sub = '') => this.ledger.row(reason, sub);
    this.rows = { hlt: row('HLT'), window: row('INTERRUPT_WINDOW'), mmioRead: row('MMIO', 'read'), mmioWrite: row('MMIO', 'write'), shutdown: row('SHUTDOWN') };
    installCpuid(this.vcpu);
  }

  /** Puts the vCPU into the state that the boot protocol asks for. */
  boot(entry: EntryState): void {
    const { rax = 0n, rbx = 0n, rsp = 0n, rsi = 0n } = entry.registers;
    this.core.enterFlat(0, entry.mode, {
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
  }

  /** The board has something for the vCPU, or moved its next deadline: a run must end at the next check point. */
  cut(): void {
    if (this.isRunning) this.core.setLimit(0, 0n);
  }

  // ------------------------------------------------------------ entry
  prepareEntry(): boolean {
    const { board, core } = this;
    if (this.clock.now() >= board.nextDeadline()) board.runTimers();
    const sink = board.interrupts[0];
    if (sink === undefined) return false;
    if (sink.takeNmi()) core.setNmi(0);
    if (core.pendingInterrupt(0) !== undefined || sink.pendingVector() < 0) return false;
    if (!core.interruptible(0)) {
      core.requestInterruptWindow(0);
      return false;
    }
    core.setInterrupt(0, sink.acknowledge());
    return true;
  }

  /** Runs up to `limit` retired instructions, with the board's timers on the way: those are no exits. */
  enter(_vcpu: number, limit: bigint): number {
    const { core, board, clock, vcpu } = this;
    for (;;) {
      const first = vcpu.get64(S_ICOUNT);
      const deadline = board.nextDeadline();
      const until = Number.isFinite(deadline) ? first + BigInt(clock.instructionsUntil(deadline)) : limit;
      core.setLimit(0, until < limit ? until : limit);
      const start = performance.now();
      this.isRunning = true;
      const reason = core.run(0);
      this.isRunning = false;
      const last = vcpu.get64(S_ICOUNT);
      clock.observe(Number(last - first), performance.now() - start);
      if (reason !== EXIT_LIMIT || last >= limit) return reason;
      this.prepareEntry();
    }
  }

  // ------------------------------------------------------------ exits
  handleExit(_vcpu: number, reason: number, outcome: ExitOutcome): void {
    outcome.wait = undefined;
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
        this.isHalted = true;
        break;
      case EXIT_INTR_WINDOW:
        outcome.row = this.rows.window;
        break;
      case EXIT_SHUTDOWN:
        outcome.row = this.rows.shutdown;
        throw new TripleFault('an exception could not be delivered, nor the double fault after it');
      default: {
        const insn = this.core.decodeAt(0, this.vcpu.rip);
        throw new TripleFault(`exit reason ${reason} at ${typeof insn === 'string' ? insn : insn.row.name}, which the CPU should have done itself`);
      }
    }
    this.clock.exitDone();
  }

  private portIo(outcome: ExitOutcome): void {
    const { vcpu, core, board } = this;
    const port = vcpu.get32(S_EXIT_VA) & 0xffff;
    const size = portSize(vcpu.get32(S_EXIT_SIZE));
    if (vcpu.get32(S_EXIT_ACCESS) === ACCESS_READ) {
      outcome.row = this.numberedRow('IN', port);
      core.completeIo(0, board.readPort(port, size));
      return;
    }
    outcome.row = this.numberedRow('OUT', port);
    const value = vcpu.get32(S_EXIT_VALUE);
    outcome.wait = board.writePort(port, size, size === 4 ? value : value & ((1 << (8 * size)) - 1));
    core.completeIo(0);
  }

  private readMsr(): number {
    const { vcpu, core, board } = this;
    const msr = vcpu.reg32(RCX);
    const value = board.ownsMsr(msr) ? board.readMsr(0, msr) : msr === MSR_BIOS_SIGN_ID ? 0n : undefined;
    if (value === undefined) core.raise(0, VECTOR_GP);
    else {
      vcpu.setReg(RAX, value & ALL_ONES_32);
      vcpu.setReg(RDX, value >> 32n);
      core.complete(0);
    }
    return this.numberedRow('RDMSR', msr);
  }

  private writeMsr(): number {
    const { vcpu, core, board } = this;
    const msr = vcpu.reg32(RCX);
    const value = BigInt(vcpu.reg32(RAX)) | (BigInt(vcpu.reg32(RDX)) << 32n);
    const isDone = board.ownsMsr(msr) ? board.writeMsr(0, msr, value) : msr === MSR_BIOS_SIGN_ID;
    if (isDone) core.complete(0);
    else core.raise(0, VECTOR_GP);
    return this.numberedRow('WRMSR', msr);
  }

  /** Row of a port or MSR; the ledger bounds their number. */
  private numberedRow(reason: string, number: number): number {
    const key = reason + number;
    const known = this.numbered.get(key);
    if (known !== undefined) return known;
    const row = this.ledger.row(reason, `0x${number.toString(16)}`);
    if (this.numbered.size < 1024) this.numbered.set(key, row);
    return row;
  }

  // ------------------------------------------------------------ hooks of the CPU
  /** The walker raises #PF by itself. */
  mmuFault(): 1 {
    return 1;
  }

  mmio(): 2 {
    const start = performance.now();
    const { vcpu, board } = this;
    const gpa = Number(vcpu.get64(S_EXIT_GPA));
    const total = vcpu.get32(S_EXIT_SIZE);
    const isWrite = vcpu.get32(S_EXIT_ACCESS) === ACCESS_WRITE;
    // Devices know accesses of 1, 2 and 4 bytes.
    for (let at = 0; at < total; at += 4) {
      const size = mmioSize(total - at);
      const shift = BigInt(8 * (at & 4));
      const field = S_EXIT_VALUE + (at & ~7);
      if (isWrite) {
        const value = Number((vcpu.get64(field) >> shift) & ALL_ONES_32);
        board.writeMmio(0, gpa + at, size, size === 4 ? value : value & ((1 << (8 * size)) - 1));
      } else {
        if ((at & 7) === 0) vcpu.set64(field, 0n);
        vcpu.set64(field, vcpu.get64(field) | ((BigInt(board.readMmio(0, gpa + at, size)) & ALL_ONES_32) << shift));
      }
    }
    const row = isWrite ? this.rows.mmioWrite : this.rows.mmioRead;
    this.ledger.record(row, (performance.now() - start) * 1e6, vcpu.get32(S_RIP), vcpu.get32(S_RIP + 4));
    return 2;
  }

  exitStart(): number {
    return performance.now();
  }

  // ------------------------------------------------------------ events and reports
  injectInterrupt(_vcpu: number, vector: number): void {
    // As a message of a device would come: fixed delivery, edge, to APIC 0.
    this.board.sendMsi(0xfee0_0000, vector);
  }
  injectNmi(): void {
    this.board.injectNmi(0);
  }

  halted(): 'no' | 'wakeable' | 'dead' {
    if (!this.isHalted) return 'no';
    const { board, clock } = this;
    if (clock.now() >= board.nextDeadline()) board.runTimers();
    const isOpen = (this.vcpu.get32(S_RFLAGS) & RFLAGS_IF) !== 0;
    const sink = board.interrupts[0];
    if (sink === undefined) return 'dead';
    if ((isOpen && sink.hasWork()) || board.apics.apics[0]?.nmiPending === true) {
      this.isHalted = false;
      return 'no';
    }
    if (!isOpen) return 'dead';
    if (!Number.isFinite(board.nextDeadline()) || !clock.skipTo(board.nextDeadline())) return 'wakeable';
    return this.halted();
  }

  sleepMs(): number {
    return (this.board.nextDeadline() - this.clock.now()) / 1e6;
  }

  describe(): string[] {
    const { vcpu } = this;
    return [`cr0 ${vcpu.get64(S_CR0).toString(16)}  cpl ${vcpu.get32(S_CPL)}  code size ${vcpu.get32(S_CODE_SIZE)}`];
  }

  /** There is nothing to switch between. */
  directSwitches(): { syscalls: number; returns: number } {
    return { syscalls: 0, returns: 0 };
  }
  shadowPagesBuilt(): number {
    return 0;
  }
}

function portSize(size: number): PortSize {
  return size === 1 || size === 2 ? size : 4;
}
function mmioSize(left: number): MmioSize {
  return left === 1 || left === 2 ? left : 4;
}
