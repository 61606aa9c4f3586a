import type { CpuCore, Saveable, StateIo } from '@pvm/cpu-jit';
import { S_ICOUNT, S_TSC_OFFSET } from '@pvm/cpu-jit/layout';

/** Virtual time that an exit takes, ns: guests that poll a port for time to pass get somewhere. */
const EXIT_NS = 1000;

/** Time since power-on of a machine with one vCPU, for its devices. The TSC counts the same nanoseconds. */
export interface MachineClock extends Saveable {
  /** Nanoseconds since power-on. */
  now(): number;
  /** When the TSC reaches `tsc`, on the scale of `now`. */
  tscToNs(tsc: bigint): number;
  /** An exit was handled. */
  exitDone(): void;
  /** Nothing happens until `time`: lets it pass at once. Returns false when only waiting helps. */
  skipTo(time: number): boolean;
  /** Instructions that the vCPU may retire until `time`, at least 1. */
  instructionsUntil(time: number): number;
  /** The vCPU retired `instructions` in `ms` of host time. */
  observe(instructions: number, ms: number): void;
}

/** Time is what the host's clock says. */
export class HostMachineClock implements MachineClock {
  private start = Math.floor(performance.now() * 1e6);
  private readonly offset: () => bigint;
  /** Instructions per nanosecond, lately. */
  private speed = 0.05;

  constructor(core: CpuCore, vcpu: number) {
    const at = (core.cpuAddress(vcpu) + S_TSC_OFFSET) >>> 3;
    this.offset = () => core.u64[at] ?? 0n;
    core.u64[at] = BigInt.asUintN(64, BigInt(-this.start));
  }

  now(): number {
    return performance.now() * 1e6 - this.start;
  }
  tscToNs(tsc: bigint): number {
    return Number(BigInt.asIntN(64, tsc - this.offset())) - this.start;
  }
  exitDone(): void {}
  skipTo(): boolean {
    return false;
  }
  instructionsUntil(time: number): number {
    return Math.max(1000, Math.ceil((time - this.now()) * this.speed));
  }
  observe(instructions: number, ms: number): void {
    if (instructions < 1000 || ms <= 0) return;
    this.speed += (instructions / (ms * 1e6) - this.speed) / 8;
  }

  /** Time stood still between the save and the restore. */
  state(s: StateIo): void {
    const now = s.value('now', this.now());
    if (s.restoring) this.start = performance.now() * 1e6 - now;
  }
}

/** Time is the number of retired instructions, and what exits and idling took: the same in every run. */
export class CountMachineClock implements MachineClock {
  private readonly words: BigUint64Array;
  private readonly count: number;
  private readonly offset: number;
  private skipped = 0;

  constructor(core: CpuCore, vcpu: number) {
    this.words = core.u64;
    this.count = (core.cpuAddress(vcpu) + S_ICOUNT) >>> 3;
    this.offset = (core.cpuAddress(vcpu) + S_TSC_OFFSET) >>> 3;
  }

  now(): number {
    return Number(this.words[this.count] ?? 0n) + this.skipped;
  }
  tscToNs(tsc: bigint): number {
    return Number(BigInt.asIntN(64, tsc - (this.words[this.offset] ?? 0n))) + this.skipped;
  }
  exitDone(): void {
    this.skip(EXIT_NS);
  }
  skipTo(time: number): boolean {
    this.skip(Math.max(0, Math.ceil(time - this.now())));
    return true;
  }
  instructionsUntil(time: number): number {
    return Math.max(1, Math.ceil(time - this.now()));
  }
  observe(): void {}

  private skip(ns: number): void {
    this.skipped += ns;
    this.words[this.offset] = BigInt.asUintN(64, (this.words[this.offset] ?? 0n) + BigInt(ns));
  }

  state(s: StateIo): void {
    s.fields(this, ['skipped']);
  }
}
