import type { CpuCore, Saveable, StateIo } from '@pvm/cpu-jit';
import { S_ICOUNT, S_TSC_OFFSET } from '@pvm/cpu-jit/layout';

/** Virtual time that an exit takes, ns: guests that poll a port for time to pass get somewhere. */
const EXIT_NS = 1000;

/** Time since power-on, for the devices of a machine whose vCPUs take turns on one thread. The TSCs count the same nanoseconds, in step unless the guest sets them. */
export interface MachineClock extends Saveable {
  /** Nanoseconds since power-on. */
  now(): number;
  /** When the TSC of a vCPU reaches `tsc`, on the scale of `now`. */
  tscToNs(vcpu: number, tsc: bigint): number;
  /** From now on `vcpu` runs, and the one before it does not. */
  switchTo(vcpu: number): void;
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
  private readonly core: CpuCore;
  /** Instructions per nanosecond, lately. */
  private speed = 0.05;

  constructor(core: CpuCore) {
    this.core = core;
    for (let v = 0; v < core.vcpus; v++) core.u64[tscOffset(core, v)] = BigInt.asUintN(64, BigInt(-this.start));
  }

  now(): number {
    return performance.now() * 1e6 - this.start;
  }
  tscToNs(vcpu: number, tsc: bigint): number {
    return Number(BigInt.asIntN(64, tsc - (this.core.u64[tscOffset(this.core, vcpu)] ?? 0n))) - this.start;
  }
  switchTo(): void {}
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

/** Time is the number of instructions that all vCPUs retired, and what exits and idling took: the same in every run. */
export class CountMachineClock implements MachineClock {
  private readonly core: CpuCore;
  private readonly words: BigUint64Array;
  private current = 0;
  /** Where the count and the TSC offset of the current vCPU are. */
  private count: number;
  private offset: number;
  /** `now` minus what the current vCPU has retired. */
  private skipped = 0;
  /** `now` when a vCPU last stopped running, by vCPU. */
  private readonly leftAt: Float64Array;

  constructor(core: CpuCore) {
    this.core = core;
    this.words = core.u64;
    this.leftAt = new Float64Array(core.vcpus);
    this.count = retired(core, 0);
    this.offset = tscOffset(core, 0);
  }

  now(): number {
    return Number(this.words[this.count] ?? 0n) + this.skipped;
  }
  tscToNs(vcpu: number, tsc: bigint): number {
    if (vcpu === this.current) return Number(BigInt.asIntN(64, tsc - (this.words[this.offset] ?? 0n))) + this.skipped;
    const { core, words } = this;
    const seen = (words[retired(core, vcpu)] ?? 0n) + (words[tscOffset(core, vcpu)] ?? 0n);
    return Number(BigInt.asIntN(64, tsc - seen)) + (this.leftAt[vcpu] ?? 0);
  }
  switchTo(vcpu: number): void {
    const now = this.now();
    this.leftAt[this.current] = now;
    this.select(vcpu);
    this.addToTsc(now - (this.leftAt[vcpu] ?? 0));
    this.skipped = now - Number(this.words[this.count] ?? 0n);
  }
  private select(vcpu: number): void {
    this.current = vcpu;
    this.count = retired(this.core, vcpu);
    this.offset = tscOffset(this.core, vcpu);
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
    this.addToTsc(ns);
  }
  private addToTsc(ns: number): void {
    this.words[this.offset] = BigInt.asUintN(64, (this.words[this.offset] ?? 0n) + BigInt(ns));
  }

  state(s: StateIo): void {
    s.fields(this, ['skipped', 'current', 'leftAt']);
    this.select(this.current);
  }
}

function retired(core: CpuCore, vcpu: number): number {
  return (core.cpuAddress(vcpu) + S_ICOUNT) >>> 3;
}
function tscOffset(core: CpuCore, vcpu: number): number {
  return (core.cpuAddress(vcpu) + S_TSC_OFFSET) >>> 3;
}
