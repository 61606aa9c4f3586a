import type { StateIo } from '@pvm/cpu-jit';
import type { PortDevice, PortSize } from '../devices/port-device.ts';
import type { Timer, TimerQueue } from './timer-queue.ts';

// Motorola MC146818A data sheet.
const INDEX_PORT = 0x70;
const SECONDS = 0x00;
const SECONDS_ALARM = 0x01;
const MINUTES = 0x02;
const MINUTES_ALARM = 0x03;
const HOURS = 0x04;
const HOURS_ALARM = 0x05;
const DAY_OF_WEEK = 0x06;
const DAY = 0x07;
const MONTH = 0x08;
const YEAR = 0x09;
const REG_A = 0x0a;
const REG_B = 0x0b;
const REG_C = 0x0c;
const REG_D = 0x0d;
/** Where firmware announces the century register (FADT). */
export const CMOS_CENTURY = 0x32;

const A_UPDATE_IN_PROGRESS = 0x80;
const B_SET = 0x80;
const B_PERIODIC = 0x40;
const B_ALARM = 0x20;
const B_UPDATE = 0x10;
const B_BINARY = 0x04;
const B_24_HOURS = 0x02;
const C_IRQ = 0x80;
const D_VALID = 0x80;
/** Time before the update during which UIP is set, ns. */
const UPDATE_WINDOW_NS = 244_000;
const SECOND = 1_000_000_000;

/** Battery-backed clock and memory. The time is the wall clock that the machine supplies plus what the guest set. */
export class CmosRtc implements PortDevice {
  readonly name = 'cmos-rtc';
  readonly ports = [{ first: INDEX_PORT, last: INDEX_PORT + 1 }];
  private readonly queue: TimerQueue;
  private readonly wallClock: () => bigint;
  private readonly irq: (level: boolean) => void;
  private readonly memory = new Uint8Array(128);
  private readonly updateTimer: Timer;
  private readonly periodicTimer: Timer;
  private index = 0;
  /** Guest's clock minus wall clock, ms. */
  private offsetMs = 0;
  /** Time registers as the guest writes them while SET is on. */
  private frozen: Date | undefined;

  /**
   * @param wallClock ns since 1970 UTC
   * @param irq IRQ 8
   * @param ramSize for the memory-size bytes that old software reads
   */
  constructor(queue: TimerQueue, wallClock: () => bigint, irq: (level: boolean) => void, ramSize: number) {
    this.queue = queue;
    this.wallClock = wallClock;
    this.irq = irq;
    this.updateTimer = queue.timer((at) => this.secondPassed(at));
    this.periodicTimer = queue.timer((at) => this.periodPassed(at));
    this.memory[REG_A] = 0x26;
    this.memory[REG_B] = B_24_HOURS;
    const extendedKib = Math.min(0xffff, (ramSize >> 10) - 1024);
    const above16MibIn64Kib = Math.min(0xffff, Math.max(0, Math.floor(ramSize / 65536) - 256));
    this.setWord(0x15, 640);
    this.setWord(0x17, extendedKib);
    this.setWord(0x30, extendedKib);
    this.setWord(0x34, above16MibIn64Kib);
  }

  reset(): void {
    this.index = 0;
    this.memory[REG_B] = this.regB & ~(B_PERIODIC | B_ALARM | B_UPDATE | B_SET);
    this.memory[REG_C] = 0;
    this.frozen = undefined;
    this.schedule();
    this.irq(false);
  }

  read(port: number, size: PortSize): number {
    if (port === INDEX_PORT) return size === 1 ? 0xff : 0xff | (this.readByte() << 8);
    return this.readByte();
  }

  write(port: number, size: PortSize, value: number): undefined {
    if (port === INDEX_PORT) {
      this.index = value & 0x7f;
      if (size > 1) this.writeByte((value >> 8) & 0xff);
    } else {
      this.writeByte(value & 0xff);
    }
  }

  private get regB(): number {
    return this.memory[REG_B] ?? 0;
  }

  private now(): Date {
    return this.frozen ?? new Date(Number(this.wallClock() / 1_000_000n) + this.offsetMs);
  }

  private readByte(): number {
    const time = this.now();
    switch (this.index) {
      case SECONDS:
        return this.encode(time.getUTCSeconds());
      case MINUTES:
        return this.encode(time.getUTCMinutes());
      case HOURS:
        return this.encodeHours(time.getUTCHours());
      case DAY_OF_WEEK:
        return this.encode(time.getUTCDay() + 1);
      case DAY:
        return this.encode(time.getUTCDate());
      case MONTH:
        return this.encode(time.getUTCMonth() + 1);
      case YEAR:
        return this.encode(time.getUTCFullYear() % 100);
      case CMOS_CENTURY:
        return this.encode(Math.floor(time.getUTCFullYear() / 100));
      case REG_A:
        return (this.memory[REG_A] ?? 0) | (this.updating() ? A_UPDATE_IN_PROGRESS : 0);
      case REG_C: {
        const flags = this.memory[REG_C] ?? 0;
        this.memory[REG_C] = 0;
        this.irq(false);
        return flags;
      }
      case REG_D:
        return D_VALID;
      default:
        return this.memory[this.index] ?? 0xff;
    }
  }

  private writeByte(value: number): void {
    switch (this.index) {
      case SECONDS:
      case MINUTES:
      case HOURS:
      case DAY:
      case MONTH:
      case YEAR:
      case CMOS_CENTURY:
        this.setTime(this.index, value);
        return;
      case DAY_OF_WEEK:
      case REG_C:
      case REG_D:
        return;
      case REG_A:
        this.memory[REG_A] = value & 0x7f;
        this.schedule();
        return;
      case REG_B:
        if ((value & B_SET) !== 0) this.frozen ??= this.now();
        else if (this.frozen !== undefined) this.release(this.frozen);
        this.memory[REG_B] = value;
        this.schedule();
        return;
      default:
        this.memory[this.index] = value;
    }
  }

  private setTime(register: number, raw: number): void {
    const time = new Date(this.now());
    const value = this.decode(raw);
    if (register === SECONDS) time.setUTCSeconds(value);
    else if (register === MINUTES) time.setUTCMinutes(value);
    else if (register === HOURS) time.setUTCHours(this.decodeHours(raw));
    else if (register === DAY) time.setUTCDate(value);
    else if (register === MONTH) time.setUTCMonth(value - 1);
    else if (register === YEAR) time.setUTCFullYear(Math.floor(time.getUTCFullYear() / 100) * 100 + value);
    else time.setUTCFullYear(value * 100 + (time.getUTCFullYear() % 100));
    if (this.frozen !== undefined) this.frozen = time;
    else this.release(time);
  }

  private release(time: Date): void {
    this.offsetMs = time.getTime() - Number(this.wallClock() / 1_000_000n);
    if (!Number.isFinite(this.offsetMs)) this.offsetMs = 0;
    this.frozen = undefined;
  }

  private updating(): boolean {
    if (this.frozen !== undefined) return false;
    return SECOND - this.nsIntoSecond() <= UPDATE_WINDOW_NS;
  }

  private nsIntoSecond(): number {
    const ns = this.wallClock() + BigInt(Math.trunc(this.offsetMs)) * 1_000_000n;
    return Number(((ns % BigInt(SECOND)) + BigInt(SECOND)) % BigInt(SECOND));
  }

  // ------------------------------------------------------------ interrupts
  private schedule(): void {
    const b = this.regB;
    if ((b & (B_ALARM | B_UPDATE)) !== 0 && (b & B_SET) === 0) this.updateTimer.arm(this.queue.now() + SECOND - this.nsIntoSecond());
    else this.updateTimer.cancel();
    const rate = (this.memory[REG_A] ?? 0) & 0xf;
    if ((b & B_PERIODIC) !== 0 && rate !== 0) this.periodicTimer.arm(this.queue.now() + this.period(rate));
    else this.periodicTimer.cancel();
  }

  private secondPassed(at: number): void {
    this.updateTimer.arm(at + SECOND);
    let flags = B_UPDATE;
    const time = this.now();
    const alarm: readonly [register: number, now: number][] = [
      [SECONDS_ALARM, this.encode(time.getUTCSeconds())],
      [MINUTES_ALARM, this.encode(time.getUTCMinutes())],
      [HOURS_ALARM, this.encodeHours(time.getUTCHours())],
    ];
    // Values from 0xc0 up match anything.
    if (alarm.every(([register, now]) => (this.memory[register] ?? 0) >= 0xc0 || this.memory[register] === now)) flags |= B_ALARM;
    this.raise(flags);
  }

  private periodPassed(at: number): void {
    this.periodicTimer.arm(Math.max(at + this.period((this.memory[REG_A] ?? 0) & 0xf), this.queue.now() + 1));
    this.raise(B_PERIODIC);
  }

  private period(rate: number): number {
    const shift = rate <= 2 ? rate + 7 : rate;
    return ((1 << (shift - 1)) * SECOND) / 32768;
  }

  private raise(flags: number): void {
    this.memory[REG_C] = (this.memory[REG_C] ?? 0) | flags;
    if ((flags & this.regB) === 0) return;
    this.memory[REG_C] |= C_IRQ;
    this.irq(true);
  }

  // ------------------------------------------------------------ number formats
  private encode(n: number): number {
    return (this.regB & B_BINARY) !== 0 ? n : (Math.floor(n / 10) << 4) | (n % 10);
  }

  private decode(raw: number): number {
    return (this.regB & B_BINARY) !== 0 ? raw : (raw >> 4) * 10 + (raw & 15);
  }

  private encodeHours(hour: number): number {
    if ((this.regB & B_24_HOURS) !== 0) return this.encode(hour);
    return this.encode(hour % 12 === 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0);
  }

  private decodeHours(raw: number): number {
    if ((this.regB & B_24_HOURS) !== 0) return this.decode(raw);
    return (this.decode(raw & 0x7f) % 12) + ((raw & 0x80) !== 0 ? 12 : 0);
  }

  private setWord(index: number, value: number): void {
    this.memory[index] = value & 0xff;
    this.memory[index + 1] = value >> 8;
  }

  state(s: StateIo): void {
    s.fields(this, ['memory', 'index', 'offsetMs']);
    const frozen = s.value('frozen', this.frozen?.getTime());
    this.frozen = frozen === undefined ? undefined : new Date(frozen);
  }
}
