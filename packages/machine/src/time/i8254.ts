import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { PortDevice, PortSize } from '../devices/port-device.ts';
import type { Timer, TimerQueue } from './timer-queue.ts';

/** Input clock of the three counters, Hz. */
export const PIT_HZ = 1_193_182;
const NS_PER_TICK = 1e9 / PIT_HZ;
const COUNTER_PORTS = 0x40;
const CONTROL_PORT = 0x43;
/** System control port B: speaker gate and counter 2's output. */
const PORT_B = 0x61;
const GATE2 = 0x01;
const SPEAKER = 0x02;
const REFRESH = 0x10;
const OUT2 = 0x20;
/** Shortest time between two interrupts of counter 0: a guest may not ask the host for millions a second. */
const MIN_PERIOD_TICKS = 24;

/** One counter of the 8254 (Intel data sheet 231164), computed from the time that has passed since it was loaded. */
class Counter implements Saveable {
  gate = true;
  mode = 3;
  /** Reload value, 1 to 65536. */
  reload = 65536;
  /** When counting began, ns; Infinity: not loaded, or waiting for the gate. */
  start = Number.POSITIVE_INFINITY;
  private access = 3;
  private bcd = false;
  private latch: number | undefined;
  private statusLatch: number | undefined;
  private readHigh = false;
  private writeHigh = false;
  private lowByte = 0;
  private nullCount = true;

  /** Whole ticks since the counter was loaded, 0 while it does not count. */
  ticks(now: number): number {
    return now <= this.start ? 0 : Math.floor((now - this.start) / NS_PER_TICK);
  }

  count(now: number): number {
    if (this.start === Number.POSITIVE_INFINITY) return this.reload & 0xffff;
    const t = this.ticks(now);
    switch (this.mode) {
      case 2:
        return (this.reload - (t % this.reload)) & 0xffff;
      case 3:
        return (this.reload - ((t * 2) % this.reload)) & 0xfffe;
      default:
        return (this.reload - t) & 0xffff;
    }
  }

  output(now: number): boolean {
    if (this.start === Number.POSITIVE_INFINITY) return this.mode !== 0;
    const t = this.ticks(now);
    switch (this.mode) {
      case 0:
      case 1:
        return t >= this.reload;
      case 2:
        return t % this.reload !== this.reload - 1;
      case 3:
        return t % this.reload < (this.reload + 1) >> 1;
      default:
        return t !== this.reload;
    }
  }

  /** When the output changes next after `now`, ns; Infinity: never. */
  nextEdge(now: number): number {
    if (this.start === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    const t = this.ticks(now);
    const period = Math.floor(t / this.reload) * this.reload;
    const phase = t - period;
    let next: number;
    if (this.mode === 2) next = phase < this.reload - 1 ? period + this.reload - 1 : period + this.reload;
    else if (this.mode === 3) next = phase < (this.reload + 1) >> 1 ? period + ((this.reload + 1) >> 1) : period + this.reload;
    else if (t < this.reload) next = this.reload;
    else if (this.mode >= 4 && t === this.reload) next = this.reload + 1;
    else return Number.POSITIVE_INFINITY;
    // A hair later than the exact time, so that rounding cannot put the edge ahead of the clock.
    return this.start + next * NS_PER_TICK + 0.5;
  }

  control(value: number, now: number): void {
    const access = (value >> 4) & 3;
    if (access === 0) {
      this.latchCount(now);
      return;
    }
    this.access = access;
    const mode = (value >> 1) & 7;
    this.mode = mode > 5 ? mode - 4 : mode;
    this.bcd = (value & 1) !== 0;
    this.readHigh = false;
    this.writeHigh = false;
    this.latch = undefined;
    this.statusLatch = undefined;
    this.start = Number.POSITIVE_INFINITY;
    this.nullCount = true;
  }

  latchCount(now: number): void {
    this.latch ??= this.encode(this.count(now));
  }

  latchStatus(now: number): void {
    this.statusLatch ??= (this.output(now) ? 0x80 : 0) | (this.nullCount ? 0x40 : 0) | (this.access << 4) | (this.mode << 1) | (this.bcd ? 1 : 0);
  }

  read(now: number): number {
    if (this.statusLatch !== undefined) {
      const status = this.statusLatch;
      this.statusLatch = undefined;
      return status;
    }
    const value = this.latch ?? this.encode(this.count(now));
    const high = this.access === 2 || (this.access === 3 && this.readHigh);
    if (this.access === 3) this.readHigh = !this.readHigh;
    if (this.access !== 3 || high) this.latch = undefined;
    return high ? value >> 8 : value & 0xff;
  }

  write(value: number, now: number): void {
    if (this.access === 3 && !this.writeHigh) {
      this.lowByte = value;
      this.writeHigh = true;
      return;
    }
    this.writeHigh = false;
    const raw = this.access === 1 ? value : this.access === 2 ? value << 8 : this.lowByte | (value << 8);
    this.load(this.decode(raw), now);
  }

  setGate(gate: boolean, now: number): void {
    const rising = gate && !this.gate;
    this.gate = gate;
    if (rising && !this.nullCount && this.mode !== 0 && this.mode !== 4) this.start = now;
    // Modes 0 and 4 pause; resuming from the start again is close enough for a gate that PCs raise before loading.
    else if (rising && !this.nullCount && this.start === Number.POSITIVE_INFINITY) this.start = now;
    else if (!gate && (this.mode === 2 || this.mode === 3)) this.start = Number.POSITIVE_INFINITY;
  }

  private load(value: number, now: number): void {
    this.reload = value === 0 ? (this.bcd ? 10000 : 65536) : value;
    if ((this.mode === 2 || this.mode === 3) && this.reload < 2) this.reload = 2;
    this.nullCount = false;
    const triggered = this.mode === 1 || this.mode === 5;
    this.start = this.gate && !triggered ? now : Number.POSITIVE_INFINITY;
  }

  private encode(count: number): number {
    if (!this.bcd) return count & 0xffff;
    const n = count % 10000;
    return (Math.floor(n / 1000) << 12) | (Math.floor((n / 100) % 10) << 8) | (Math.floor((n / 10) % 10) << 4) | (n % 10);
  }

  private decode(raw: number): number {
    if (!this.bcd) return raw;
    return (raw >> 12) * 1000 + ((raw >> 8) & 15) * 100 + ((raw >> 4) & 15) * 10 + (raw & 15);
  }

  state(s: StateIo): void {
    s.fields(this, ['gate', 'mode', 'reload', 'start', 'access', 'bcd', 'latch', 'statusLatch', 'readHigh', 'writeHigh', 'lowByte', 'nullCount']);
  }
}

/** The 8254 interval timer with system control port B: counter 0 raises IRQ 0, counter 2 has the speaker's gate. */
export class I8254 implements PortDevice {
  readonly name = 'i8254';
  readonly ports = [
    { first: COUNTER_PORTS, last: CONTROL_PORT },
    { first: PORT_B, last: PORT_B },
  ];
  private readonly queue: TimerQueue;
  private readonly irq: (level: boolean) => void;
  private readonly timer: Timer;
  private counters: readonly [Counter, Counter, Counter];
  private portB = 0;

  constructor(queue: TimerQueue, irq: (level: boolean) => void) {
    this.queue = queue;
    this.irq = irq;
    this.timer = queue.timer((at) => this.edge(at));
    this.counters = this.initial();
    irq(true);
  }

  reset(): void {
    this.counters = this.initial();
    this.portB = 0;
    this.timer.cancel();
    this.irq(true); // an idle output is high: loading the counter is no edge
  }

  read(port: number): number {
    const now = this.queue.now();
    if (port === PORT_B) {
      // The refresh bit toggles every 15 us; old delay loops count it.
      const refresh = Math.floor(now / 15_085) % 2 === 0 ? 0 : REFRESH;
      return this.portB | refresh | (this.counters[2].output(now) ? OUT2 : 0);
    }
    return this.counter(port - COUNTER_PORTS)?.read(now) ?? 0;
  }

  write(port: number, _size: PortSize, value: number): undefined {
    const now = this.queue.now();
    const byte = value & 0xff;
    if (port === PORT_B) {
      this.portB = byte & (GATE2 | SPEAKER | 0x0c);
      this.counters[2].setGate((byte & GATE2) !== 0, now);
    } else if (port === CONTROL_PORT) {
      this.control(byte, now);
    } else {
      this.counter(port - COUNTER_PORTS)?.write(byte, now);
      if (port === COUNTER_PORTS) this.update(now);
    }
  }

  private control(value: number, now: number): void {
    const select = value >> 6;
    if (select !== 3) {
      this.counter(select)?.control(value, now);
      if (select === 0 && (value & 0x30) !== 0) this.update(now);
      return;
    }
    this.counters.forEach((counter, i) => {
      if ((value & (2 << i)) === 0) return;
      if ((value & 0x20) === 0) counter.latchCount(now);
      if ((value & 0x10) === 0) counter.latchStatus(now);
    });
  }

  private edge(at: number): void {
    // After a pause of the host several edges may be due: one interrupt stands for all of them.
    const now = this.queue.now();
    const counter = this.counters[0];
    if (counter.mode === 2 || counter.mode === 3) {
      this.irq(false);
      this.irq(true);
      // Only the rising edge matters: at the start of the next period.
      const period = Math.max(counter.reload, MIN_PERIOD_TICKS);
      const periods = Math.floor(counter.ticks(Math.max(at, now)) / period) + 1;
      this.timer.arm(counter.start + periods * period * NS_PER_TICK + 0.5);
    } else {
      this.irq(counter.output(now));
      this.timer.arm(counter.nextEdge(now));
    }
  }

  /** Counter 0 was programmed. */
  private update(now: number): void {
    const counter = this.counters[0];
    this.irq(counter.output(now));
    if (counter.start === Number.POSITIVE_INFINITY) this.timer.cancel();
    else if (counter.mode === 2 || counter.mode === 3) this.timer.arm(counter.start + Math.max(counter.reload, MIN_PERIOD_TICKS) * NS_PER_TICK + 0.5);
    else this.timer.arm(counter.nextEdge(now));
  }

  private counter(index: number): Counter | undefined {
    return this.counters[index];
  }

  private initial(): [Counter, Counter, Counter] {
    const counters: [Counter, Counter, Counter] = [new Counter(), new Counter(), new Counter()];
    counters[2].gate = false;
    return counters;
  }

  state(s: StateIo): void {
    s.fields(this, ['counters', 'portB']);
  }
}
