import type { I8259Pair } from '../interrupts/i8259.ts';
import type { LocalApic } from '../interrupts/local-apic.ts';

/** What a vCPU asks its interrupt controllers. All of it is synchronous and cheap enough for every entry. */
export interface InterruptSink {
  /** Vector of the external interrupt that waits, -1: none. The vCPU takes it when RFLAGS.IF and no shadow forbid it. */
  pendingVector(): number;
  /** Take the waiting interrupt (interrupt acknowledge cycle); only after `pendingVector()` was not -1. */
  acknowledge(): number;
  /** Whether an NMI waits. */
  hasNmi(): boolean;
  /** The same; the call takes it. */
  takeNmi(): boolean;
  /** Whether an INIT or a start-up IPI waits. */
  hasReset(): boolean;
  /** Whether an INIT waits; the call takes it. The APIC's own state is already reset by it. */
  takeInit(): boolean;
  /** Start-up page number 0 to 255 (real-mode CS = page << 8, IP 0), -1: none; the call takes it. */
  takeSipi(): number;
  /** Task-priority class 0 to 15, which is CR8 (SDM 3A, 11.8.6); there is none without a local APIC. */
  taskPriority: number;
  /** Priority class of the interrupt that only the task priority holds back, 0: none. */
  heldClass(): number;
  /** Something of the above waits: wakes a halted vCPU (an external interrupt only if it is enabled). */
  hasWork(): boolean;
}

/** Local APIC and, for the boot vCPU, the 8259 behind it. */
export class VcpuInterrupts implements InterruptSink {
  readonly apic: LocalApic;
  private readonly pic: I8259Pair;

  constructor(apic: LocalApic, pic: I8259Pair) {
    this.apic = apic;
    this.pic = pic;
  }

  pendingVector(): number {
    return this.extInt() ? this.pic.peek() : this.apic.pendingVector();
  }

  acknowledge(): number {
    return this.extInt() ? this.pic.acknowledge() : this.apic.acknowledge();
  }

  hasNmi(): boolean {
    return this.apic.nmiPending;
  }

  takeNmi(): boolean {
    const pending = this.apic.nmiPending;
    this.apic.nmiPending = false;
    return pending;
  }

  hasReset(): boolean {
    return this.apic.initPending || this.apic.sipiPending >= 0;
  }

  takeInit(): boolean {
    const pending = this.apic.initPending;
    this.apic.initPending = false;
    if (pending) this.apic.init();
    return pending;
  }

  takeSipi(): number {
    const page = this.apic.sipiPending;
    this.apic.sipiPending = -1;
    return page;
  }

  get taskPriority(): number {
    return this.apic.cr8;
  }
  set taskPriority(value: number) {
    this.apic.cr8 = value;
  }
  heldClass(): number {
    return this.apic.heldClass();
  }

  hasWork(): boolean {
    const { apic } = this;
    return apic.nmiPending || apic.initPending || apic.sipiPending >= 0 || this.pendingVector() >= 0;
  }

  private extInt(): boolean {
    return this.pic.output && this.apic.acceptsExtInt();
  }
}
