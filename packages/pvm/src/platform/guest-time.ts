import type { CpuCore } from '@pvm/cpu-jit';
import { S_ICOUNT, S_TSC_OFFSET } from '@pvm/cpu-jit/layout';

/** 2023-11-14T22:13:20Z: when the virtual clock starts. */
export const ICOUNT_EPOCH_NS = 1_700_000_000_000_000_000n;

/** The guest's clocks: the host's, or retired instructions, which makes a run repeatable. */
export class GuestTime {
  private readonly core: CpuCore;
  private readonly isVirtual: boolean;

  constructor(core: CpuCore, clock: 'host' | 'icount') {
    this.core = core;
    this.isVirtual = clock === 'icount';
  }

  /** TSC of a vCPU; it counts nanoseconds. */
  tsc(vcpu: number): bigint {
    const base = this.core.cpuAddress(vcpu);
    const source = this.isVirtual ? (this.core.u64[(base + S_ICOUNT) >>> 3] ?? 0n) : BigInt(Math.floor(performance.now() * 1e6));
    return BigInt.asUintN(64, source + (this.core.u64[(base + S_TSC_OFFSET) >>> 3] ?? 0n));
  }

  /** Nanoseconds since 1970 UTC, for the boot vCPU. */
  wallClock(): bigint {
    if (this.isVirtual) return ICOUNT_EPOCH_NS + this.tsc(0);
    return BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1e3)) * 1000n;
  }

  /** The boot vCPU waits for `ns`. Undefined: virtual time has passed at once. */
  sleep(ns: number): Promise<void> | undefined {
    if (!this.isVirtual) return new Promise((resolve) => setTimeout(resolve, ns / 1e6));
    const at = (this.core.cpuAddress(0) + S_TSC_OFFSET) >>> 3;
    this.core.u64[at] = (this.core.u64[at] ?? 0n) + BigInt(Math.floor(ns));
    return undefined;
  }
}
