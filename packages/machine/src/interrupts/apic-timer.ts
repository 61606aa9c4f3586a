import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { Timer, TimerQueue } from '../time/timer-queue.ts';

/** Modes in LVT timer bits 17-18 (SDM 3A, figure 11-8). */
export const TIMER_ONE_SHOT = 0;
export const TIMER_PERIODIC = 1;
export const TIMER_TSC_DEADLINE = 2;

/** Shortest period a guest can set, ns: shorter ones would only starve it. */
const MIN_PERIOD_NS = 20_000;

/** Clock of the timer's counter, Hz. */
export const APIC_TIMER_HZ = 1_000_000_000;

/** The local APIC's timer: counts down at 1 GHz over the divide configuration, or waits for a TSC value. */
export class ApicTimer implements Saveable {
  private readonly timer: Timer;
  private readonly queue: TimerQueue;
  private readonly tscToNs: (tsc: bigint) => number;
  private readonly fire: () => void;
  private mode = TIMER_ONE_SHOT;
  private initial = 0;
  private divideConfiguration = 0;
  /** When the count in progress reaches zero, ns; Infinity: stopped. */
  private end = Number.POSITIVE_INFINITY;
  private deadline = 0n;

  /**
   * @param fire the count ended
   * @param tscToNs when the vCPU's TSC reaches a value, ns on the queue's clock
   */
  constructor(queue: TimerQueue, fire: () => void, tscToNs: (tsc: bigint) => number) {
    this.queue = queue;
    this.fire = fire;
    this.tscToNs = tscToNs;
    this.timer = queue.timer((at) => this.expired(at));
  }

  reset(): void {
    this.stop();
    this.mode = TIMER_ONE_SHOT;
    this.initial = 0;
    this.divideConfiguration = 0;
  }

  setMode(mode: number): void {
    if (mode === this.mode) return;
    // SDM 3A, 11.5.4.1: a switch to or from TSC-deadline mode disarms the timer.
    if (mode === TIMER_TSC_DEADLINE || this.mode === TIMER_TSC_DEADLINE) this.stop();
    this.mode = mode;
  }

  get initialCount(): number {
    return this.initial;
  }

  set initialCount(count: number) {
    if (this.mode === TIMER_TSC_DEADLINE) return;
    this.initial = count >>> 0;
    this.start(this.queue.now());
  }

  /** Current count register. */
  currentCount(): number {
    if (this.mode === TIMER_TSC_DEADLINE || this.end === Number.POSITIVE_INFINITY) return 0;
    const left = Math.ceil((this.end - this.queue.now()) / this.divisor);
    return Math.max(0, Math.min(left, this.initial));
  }

  get divide(): number {
    return this.divideConfiguration;
  }

  set divide(value: number) {
    const left = this.currentCount();
    this.divideConfiguration = value & 0xb;
    if (this.end === Number.POSITIVE_INFINITY || this.mode === TIMER_TSC_DEADLINE) return;
    this.end = this.queue.now() + left * this.divisor;
    this.timer.arm(this.end);
  }

  /** IA32_TSC_DEADLINE; reads zero when disarmed or in another mode. */
  get tscDeadline(): bigint {
    return this.mode === TIMER_TSC_DEADLINE ? this.deadline : 0n;
  }

  set tscDeadline(tsc: bigint) {
    if (this.mode !== TIMER_TSC_DEADLINE) return;
    this.deadline = tsc;
    if (tsc === 0n) this.timer.cancel();
    else this.timer.arm(this.tscToNs(tsc));
  }

  private get divisor(): number {
    const code = (this.divideConfiguration & 3) | ((this.divideConfiguration & 8) >> 1);
    return 1 << ((code + 1) & 7);
  }

  private start(from: number): void {
    if (this.initial === 0) {
      this.stop();
      return;
    }
    const period = this.initial * this.divisor;
    this.end = from + (this.mode === TIMER_PERIODIC ? Math.max(period, MIN_PERIOD_NS) : period);
    this.timer.arm(this.end);
  }

  private stop(): void {
    this.end = Number.POSITIVE_INFINITY;
    this.deadline = 0n;
    this.timer.cancel();
  }

  private expired(at: number): void {
    if (this.mode === TIMER_PERIODIC) {
      // Periods that went by unseen (a stopped host) are not made up for.
      const now = this.queue.now();
      const period = Math.max(this.initial * this.divisor, MIN_PERIOD_NS);
      this.start(now - at > period ? now - ((now - at) % period) : at);
    } else {
      this.stop();
    }
    this.fire();
  }

  state(s: StateIo): void {
    s.fields(this, ['mode', 'initial', 'divideConfiguration', 'end', 'deadline']);
  }
}
