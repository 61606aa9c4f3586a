import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { TimerQueue } from '../time/timer-queue.ts';
import { ApicTimer } from './apic-timer.ts';
import { type ApicMessage, DELIVER_EXTINT, DELIVER_FIXED, DELIVER_INIT, DELIVER_LOWEST, DELIVER_NMI, DELIVER_SIPI } from './messages.ts';
import { VectorSet } from './vector-set.ts';

// SDM 3A, table 11-1: register offsets; x2APIC MSR = 0x800 + offset / 16.
const ID = 0x020;
const VERSION = 0x030;
const TPR = 0x080;
const APR = 0x090;
const PPR = 0x0a0;
const EOI = 0x0b0;
const LDR = 0x0d0;
const DFR = 0x0e0;
const SVR = 0x0f0;
const ISR = 0x100;
const TMR = 0x180;
const IRR = 0x200;
const ESR = 0x280;
const ICR_LOW = 0x300;
const ICR_HIGH = 0x310;
const LVT_TIMER = 0x320;
const LVT_THERMAL = 0x330;
const LVT_PERFORMANCE = 0x340;
const LVT_LINT0 = 0x350;
const LVT_LINT1 = 0x360;
const LVT_ERROR = 0x370;
const TIMER_INITIAL = 0x380;
const TIMER_CURRENT = 0x390;
const TIMER_DIVIDE = 0x3e0;
const SELF_IPI = 0x3f0;

/** Version 0x14 (integrated APIC), highest LVT entry 5. */
const VERSION_VALUE = 0x0005_0014;
const SVR_ENABLE = 0x100;
const LVT_MASKED = 0x1_0000;
/** Writable bits of each LVT register, without the mask bit. */
const LVT_BITS: Readonly<Record<number, number>> = {
  [LVT_TIMER]: 0x6_00ff,
  [LVT_THERMAL]: 0x07ff,
  [LVT_PERFORMANCE]: 0x07ff,
  [LVT_LINT0]: 0xa7ff,
  [LVT_LINT1]: 0xa7ff,
  [LVT_ERROR]: 0x00ff,
};
const ERROR_SEND_ILLEGAL = 1 << 5;
const ERROR_RECEIVE_ILLEGAL = 1 << 6;
const ERROR_ILLEGAL_REGISTER = 1 << 7;

/** IA32_APIC_BASE bits. */
export const APIC_BASE_BSP = 1 << 8;
export const APIC_BASE_X2APIC = 1 << 10;
export const APIC_BASE_ENABLE = 1 << 11;
export const APIC_DEFAULT_BASE = 0xfee0_0000;
const X2APIC_FIRST_MSR = 0x800;
const X2APIC_LAST_MSR = 0x8ff;

/** What a local APIC tells its vCPU and the other controllers. */
export interface LocalApicWiring {
  /** Send a message to the APICs it addresses; `shorthand` as in ICR bits 18-19, 0: none. */
  send(message: ApicMessage, shorthand: number, from: LocalApic): void;
  /** A level-triggered vector has been served. */
  broadcastEoi(vector: number): void;
  /** Something became pending: the vCPU should look. */
  kick(vcpu: number): void;
  /** When the vCPU's TSC reaches `tsc`, ns. */
  tscToNs(vcpu: number, tsc: bigint): number;
}

/** The local APIC of one vCPU: xAPIC by MMIO, x2APIC by MSRs. Its APIC ID is the vCPU's number. */
export class LocalApic implements Saveable {
  readonly id: number;
  /** NMI, INIT and start-up requests that the vCPU has not taken yet. */
  nmiPending = false;
  initPending = false;
  /** Page number of a SIPI, -1: none. */
  sipiPending = -1;
  /** The guest may end the interrupt in service without telling. */
  eoiDeferred = false;
  private readonly wiring: LocalApicWiring;
  private readonly timer: ApicTimer;
  private readonly irr = new VectorSet();
  private readonly isr = new VectorSet();
  private readonly tmr = new VectorSet();
  private readonly lvt = new Map<number, number>();
  private base: number;
  private xapicId: number;
  private tpr = 0;
  private ldr = 0;
  private dfr = 0xffff_ffff;
  private svr = 0xff;
  private esr = 0;
  private errors = 0;
  private icrLow = 0;
  private icrHigh = 0;
  /** Highest requested vector, -1: none. */
  private requested = -1;
  private ppr = 0;

  constructor(id: number, queue: TimerQueue, wiring: LocalApicWiring) {
    this.id = id;
    this.wiring = wiring;
    this.xapicId = id;
    this.base = this.initialBase();
    this.timer = new ApicTimer(
      queue,
      () => this.deliverLocal(LVT_TIMER),
      (tsc) => wiring.tscToNs(id, tsc),
    );
    this.reset();
  }

  /** Power-on state. The boot vCPU gets its LINT pins as firmware leaves them: 8259 and NMI. */
  reset(): void {
    this.base = this.initialBase();
    this.init();
    this.nmiPending = false;
    this.initPending = false;
    this.sipiPending = -1;
    if (this.id === 0) {
      this.lvt.set(LVT_LINT0, DELIVER_EXTINT << 8);
      this.lvt.set(LVT_LINT1, DELIVER_NMI << 8);
    }
  }

  /** State after INIT (SDM 3A, 11.4.7.3): everything but IA32_APIC_BASE and the ID. */
  init(): void {
    this.xapicId = this.id;
    this.tpr = 0;
    this.ldr = this.x2apic ? this.x2apicLdr() : 0;
    this.dfr = 0xffff_ffff;
    this.svr = 0xff;
    this.esr = 0;
    this.errors = 0;
    this.eoiDeferred = false;
    this.icrLow = 0;
    this.icrHigh = 0;
    this.irr.clear();
    this.isr.clear();
    this.tmr.clear();
    for (const register of Object.keys(LVT_BITS)) this.lvt.set(Number(register), LVT_MASKED);
    this.timer.reset();
    this.update();
  }

  // ------------------------------------------------------------ towards the vCPU
  /** Highest vector that the processor priority lets through, -1: none. */
  pendingVector(): number {
    return this.requested >> 4 > this.ppr >> 4 ? this.requested : -1;
  }

  /** Priority class of the highest request when only the task priority is in its way, 0: not so. */
  heldClass(): number {
    const wanted = this.requested >> 4;
    return this.requested >= 0 && wanted <= this.tpr >> 4 && wanted > this.isr.highest() >> 4 ? wanted : 0;
  }

  /** Take the pending vector: it is in service until EOI. Returns the spurious vector when there is none. */
  acknowledge(): number {
    const vector = this.pendingVector();
    if (vector < 0) return this.svr & 0xff;
    this.irr.delete(vector);
    this.isr.add(vector);
    this.update();
    return vector;
  }

  /** Whether the 8259's output reaches the vCPU (SDM 3A, 11.1: through LINT0, or directly while the APIC is off). */
  acceptsExtInt(): boolean {
    if (!this.enabled) return this.id === 0;
    const lint0 = this.lvt.get(LVT_LINT0) ?? LVT_MASKED;
    return (lint0 & LVT_MASKED) === 0 && ((lint0 >> 8) & 7) === DELIVER_EXTINT;
  }

  /** The 8259's output line changed; only a rising edge on a LINT0 that is not in ExtINT mode does anything here. */
  lint0(level: boolean): void {
    const mode = ((this.lvt.get(LVT_LINT0) ?? 0) >> 8) & 7;
    if (level && mode !== DELIVER_EXTINT) this.deliverLocal(LVT_LINT0);
  }

  /**
   * Paravirtual end of interrupt: whether that of the vector in service would do nothing but end it, so that the guest may do it without telling. Until
   * `settleEoi` every new request kicks the vCPU, for it may be deliverable.
   */
  deferEoi(): boolean {
    const serving = this.isr.highest();
    this.eoiDeferred = serving >= 0 && this.requested < 0 && !this.tmr.has(serving);
    return this.eoiDeferred;
  }

  /** @param isDone the guest has ended the interrupt */
  settleEoi(isDone: boolean): void {
    this.eoiDeferred = false;
    if (isDone) this.eoi();
  }

  /** CR8. */
  get cr8(): number {
    return this.tpr >> 4;
  }

  set cr8(value: number) {
    this.tpr = (value & 0xf) << 4;
    this.update();
  }

  // ------------------------------------------------------------ IA32_APIC_BASE
  get enabled(): boolean {
    return (this.base & APIC_BASE_ENABLE) !== 0;
  }

  get x2apic(): boolean {
    return (this.base & APIC_BASE_X2APIC) !== 0;
  }

  get apicBase(): bigint {
    return BigInt(this.base);
  }

  /** Guest-physical address of the register page, -1 while there is none. */
  get mmioBase(): number {
    return this.enabled && !this.x2apic ? this.base - (this.base % 4096) : -1;
  }

  /** WRMSR IA32_APIC_BASE. @returns false: #GP */
  writeApicBase(value: bigint): boolean {
    if (value >= 1n << 46n || (value & 0x2ffn) !== 0n) return false;
    const next = Number(value);
    const enable = (next & APIC_BASE_ENABLE) !== 0;
    const extended = (next & APIC_BASE_X2APIC) !== 0;
    // SDM 3A, figure 11-27: x2APIC needs the enable bit, and is left only by disabling.
    if (extended && !enable) return false;
    if (this.x2apic && enable && !extended) return false;
    if (extended && !this.enabled) return false;
    const wasExtended = this.x2apic;
    const bsp = this.base & APIC_BASE_BSP;
    this.base = next - (next & APIC_BASE_BSP) + bsp;
    if (!enable) this.init();
    if (extended && !wasExtended) this.ldr = this.x2apicLdr();
    this.wiring.kick(this.id);
    return true;
  }

  /** Logical ID in x2APIC mode (SDM 3A, 11.12.10.2). */
  private x2apicLdr(): number {
    return ((this.id >> 4) << 16) | (1 << (this.id & 15));
  }

  private initialBase(): number {
    return APIC_DEFAULT_BASE + APIC_BASE_ENABLE + (this.id === 0 ? APIC_BASE_BSP : 0);
  }

  // ------------------------------------------------------------ from the bus
  /** Whether a message is for this APIC. */
  matches(message: ApicMessage): boolean {
    const { destination, logical, wide } = message;
    if (!this.enabled) return false;
    if (destination === (wide ? 0xffff_ffff : 0xff)) return true;
    if (!logical) return destination === (this.x2apic ? this.id : this.xapicId);
    if (this.x2apic) return destination >>> 16 === this.ldr >>> 16 && (destination & this.ldr & 0xffff) !== 0;
    const own = this.ldr >>> 24;
    if (this.dfr >>> 28 === 0xf) return (destination & own) !== 0;
    return destination >> 4 === own >> 4 && (destination & own & 0xf) !== 0;
  }

  get softwareEnabled(): boolean {
    return this.enabled && (this.svr & SVR_ENABLE) !== 0;
  }

  /** For lowest-priority arbitration. */
  get priority(): number {
    return this.ppr;
  }

  accept(message: ApicMessage): void {
    switch (message.delivery) {
      case DELIVER_FIXED:
      case DELIVER_LOWEST:
        this.request(message.vector, message.level);
        return;
      case DELIVER_NMI:
        this.nmiPending = true;
        break;
      case DELIVER_INIT:
        this.initPending = true;
        this.sipiPending = -1;
        break;
      case DELIVER_SIPI:
        this.sipiPending = message.vector;
        break;
      default:
        return;
    }
    this.wiring.kick(this.id);
  }

  private request(vector: number, level: boolean): void {
    if (!this.softwareEnabled) return;
    if (vector < 16) {
      this.error(ERROR_RECEIVE_ILLEGAL);
      return;
    }
    if (level) this.tmr.add(vector);
    else this.tmr.delete(vector);
    this.irr.add(vector);
    this.update();
    if (this.eoiDeferred || this.pendingVector() >= 0) this.wiring.kick(this.id);
  }

  private deliverLocal(register: number): void {
    const entry = this.lvt.get(register) ?? LVT_MASKED;
    if ((entry & LVT_MASKED) !== 0 || !this.enabled) return;
    const delivery = register === LVT_TIMER || register === LVT_ERROR ? DELIVER_FIXED : (entry >> 8) & 7;
    this.accept({ destination: this.id, logical: false, wide: true, delivery, vector: entry & 0xff, level: false });
  }

  private error(bit: number): void {
    const first = (this.errors & bit) === 0;
    this.errors |= bit;
    if (first) this.deliverLocal(LVT_ERROR);
  }

  private update(): void {
    this.requested = this.irr.highest();
    const serving = this.isr.highest();
    this.ppr = serving >> 4 > this.tpr >> 4 ? serving & 0xf0 : this.tpr;
  }

  private eoi(): void {
    const vector = this.isr.highest();
    if (vector < 0) return;
    this.isr.delete(vector);
    const level = this.tmr.has(vector);
    this.update();
    if (level) this.wiring.broadcastEoi(vector);
    if (this.pendingVector() >= 0) this.wiring.kick(this.id);
  }

  // ------------------------------------------------------------ registers
  /** Read at an offset in the register page. Accesses that are not 32-bit aligned get the bytes of the aligned register. */
  readMmio(offset: number): number {
    const register = offset & 0xff0;
    const value = (offset & 0xc) === 0 ? this.read(register) : 0;
    return (value >>> (8 * (offset & 3))) >>> 0;
  }

  writeMmio(offset: number, value: number): void {
    if ((offset & 0xf) !== 0) return;
    const register = offset & 0xff0;
    if (register === ICR_HIGH) this.icrHigh = value & 0xff00_0000;
    else if (register === ID) this.xapicId = value >>> 24;
    else if (register === LDR) this.ldr = value & 0xff00_0000;
    else if (register === DFR) this.dfr = value | 0x0fff_ffff;
    else if (register === SELF_IPI) this.error(ERROR_ILLEGAL_REGISTER);
    else if (!this.write(register, value >>> 0)) this.error(ERROR_ILLEGAL_REGISTER);
  }

  /** RDMSR of 0x800-0x8ff. @returns undefined: #GP */
  readMsr(msr: number): bigint | undefined {
    if (!this.x2apic || msr < X2APIC_FIRST_MSR || msr > X2APIC_LAST_MSR) return undefined;
    const register = (msr - X2APIC_FIRST_MSR) << 4;
    if (register === ICR_LOW) return (BigInt(this.icrHigh >>> 0) << 32n) | BigInt(this.icrLow >>> 0);
    if (register === DFR || register === ICR_HIGH || register === APR || register === EOI || register === SELF_IPI || !isRegister(register)) return undefined;
    return BigInt(this.read(register));
  }

  /** WRMSR to 0x800-0x8ff. @returns false: #GP */
  writeMsr(msr: number, value: bigint): boolean {
    if (!this.x2apic || msr < X2APIC_FIRST_MSR || msr > X2APIC_LAST_MSR) return false;
    const register = (msr - X2APIC_FIRST_MSR) << 4;
    const low = Number(value & 0xffff_ffffn);
    const high = Number((value >> 32n) & 0xffff_ffffn);
    if (register === ICR_LOW) {
      this.icrHigh = high;
      this.sendIpi(low, high, true);
      return true;
    }
    if (high !== 0) return false;
    switch (register) {
      case SELF_IPI:
        if (low > 0xff) return false;
        this.request(low, false);
        return true;
      case EOI:
      case ESR:
        return low === 0 && this.write(register, 0);
      case ID:
      case LDR:
      case DFR:
      case ICR_HIGH:
        return false;
      default:
        return this.write(register, low);
    }
  }

  /** IA32_TSC_DEADLINE. */
  get tscDeadline(): bigint {
    return this.timer.tscDeadline;
  }

  set tscDeadline(tsc: bigint) {
    this.timer.tscDeadline = tsc;
  }

  private read(register: number): number {
    if (register >= ISR && register < ESR) {
      const set = register < TMR ? this.isr : register < IRR ? this.tmr : this.irr;
      return set.words[(register >> 4) & 7] ?? 0;
    }
    const lvt = this.lvt.get(register);
    if (lvt !== undefined) return lvt;
    switch (register) {
      case ID:
        return this.x2apic ? this.id : (this.xapicId << 24) >>> 0;
      case VERSION:
        return VERSION_VALUE;
      case TPR:
        return this.tpr;
      case PPR:
        return this.ppr;
      case LDR:
        return this.ldr >>> 0;
      case DFR:
        return this.dfr >>> 0;
      case SVR:
        return this.svr;
      case ESR:
        return this.esr;
      case ICR_LOW:
        return this.icrLow >>> 0;
      case ICR_HIGH:
        return this.icrHigh >>> 0;
      case TIMER_INITIAL:
        return this.timer.initialCount;
      case TIMER_CURRENT:
        return this.timer.currentCount();
      case TIMER_DIVIDE:
        return this.timer.divide;
      default:
        return 0;
    }
  }

  /** Registers that both interfaces write alike. @returns false: there is no such writable register */
  private write(register: number, value: number): boolean {
    if (this.lvt.has(register)) {
      this.writeLvt(register, value);
      return true;
    }
    switch (register) {
      case TPR:
        this.tpr = value & 0xff;
        this.update();
        if (this.pendingVector() >= 0) this.wiring.kick(this.id);
        return true;
      case EOI:
        this.eoi();
        return true;
      case SVR:
        this.svr = value & 0x1ff;
        if ((value & SVR_ENABLE) === 0) for (const [entry, bits] of this.lvt) this.lvt.set(entry, bits | LVT_MASKED);
        return true;
      case ESR:
        this.esr = this.errors;
        this.errors = 0;
        return true;
      case ICR_LOW:
        this.sendIpi(value, this.icrHigh >>> 24, false);
        return true;
      case TIMER_INITIAL:
        this.timer.initialCount = value;
        return true;
      case TIMER_DIVIDE:
        this.timer.divide = value;
        return true;
      default:
        return false;
    }
  }

  private writeLvt(register: number, value: number): void {
    const forced = (this.svr & SVR_ENABLE) === 0 ? LVT_MASKED : 0;
    this.lvt.set(register, (value & ((LVT_BITS[register] ?? 0) | LVT_MASKED)) | forced);
    if (register === LVT_TIMER) this.timer.setMode((value >> 17) & 3);
    if (register === LVT_LINT0) this.wiring.kick(this.id);
  }

  private sendIpi(low: number, destination: number, wide: boolean): void {
    this.icrLow = low & 0xc_cfff;
    const delivery = (low >> 8) & 7;
    const level = (low & 0x8000) !== 0;
    // An INIT level de-assert only synchronises arbitration IDs, which these APICs do not have.
    if (delivery === DELIVER_INIT && level && (low & 0x4000) === 0) return;
    const vector = low & 0xff;
    if ((delivery === DELIVER_FIXED || delivery === DELIVER_LOWEST) && vector < 16) {
      this.error(ERROR_SEND_ILLEGAL);
      return;
    }
    this.wiring.send({ destination, logical: (low & 0x800) !== 0, wide, delivery, vector, level: false }, (low >> 18) & 3, this);
  }

  state(s: StateIo): void {
    s.fields(this, [
      'nmiPending',
      'initPending',
      'sipiPending',
      'eoiDeferred',
      'timer',
      'irr',
      'isr',
      'tmr',
      'lvt',
      'base',
      'xapicId',
      'tpr',
      'ldr',
      'dfr',
      'svr',
      'esr',
      'errors',
      'icrLow',
      'icrHigh',
      'requested',
      'ppr',
    ]);
  }
}

function isRegister(register: number): boolean {
  if (register >= ISR && register < ESR) return true;
  return (
    register === ID ||
    register === VERSION ||
    register === TPR ||
    register === PPR ||
    register === LDR ||
    register === SVR ||
    register === ESR ||
    (register >= LVT_TIMER && register <= TIMER_CURRENT) ||
    register === TIMER_DIVIDE
  );
}
