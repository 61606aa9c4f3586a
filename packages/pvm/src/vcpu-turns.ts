import type { CpuCore, Saveable, StateIo } from '@pvm/cpu-jit';
import { S_ICOUNT, V_SPIN_WINDOW } from '@pvm/cpu-jit/layout';
import type { Design } from './designs/design.ts';
import type { MachineClock } from './platform/machine-clock.ts';

/** Instructions that a vCPU retires in one turn while others want to run. */
const TURN = 50_000n;
/** Instructions in a loop with PAUSE after which a vCPU ends its turn: about what it costs to let another run. */
const SPIN_WINDOW = 400;

/**
 * Whose turn it is among vCPUs that share a thread: round robin by retired instructions, so that it is the same in every run. Those that are halted take no
 * turn; one that waits in a loop with PAUSE ends its turn early.
 */
export class VcpuTurns implements Saveable {
  current = 0;
  private readonly core: CpuCore;
  private readonly design: Design;
  private readonly clock: MachineClock | undefined;
  private readonly vcpus: number;
  /** Bit per vCPU: it may have something to do. */
  private awake = 1;
  /** Retired instructions of the current vCPU at which its turn ends, if another is awake. */
  private turnEnd = TURN;
  private mustLeave = false;
  /** What the others have retired. */
  private othersRetired = 0n;
  /** Bit per vCPU: its last run ended in the middle of the guest. */
  private interrupted = 0;

  constructor(core: CpuCore, design: Design, clock: MachineClock | undefined) {
    this.core = core;
    this.design = design;
    this.clock = clock;
    this.vcpus = core.vcpus;
  }

  /** Something waits for a vCPU. */
  wake(vcpu: number): void {
    this.awake |= 1 << vcpu;
  }

  /** Sees to it that the current vCPU is the one whose turn it is. @returns false: all wait */
  choose(): boolean {
    const { current, vcpus, design } = this;
    const isOver = vcpus > 1 && (this.mustLeave || this.retired(current) >= this.turnEnd);
    if (!isOver && design.halted(current) === 'no') return true;
    for (let i = 1; i <= vcpus; i++) {
      const vcpu = (current + i) % vcpus;
      if ((this.awake & (1 << vcpu)) === 0) continue;
      if (design.halted(vcpu) === 'no') {
        this.give(vcpu);
        return true;
      }
      this.awake &= ~(1 << vcpu);
    }
    return false;
  }

  /** Whether all vCPUs wait; `no`: one does not, and it has the turn. */
  halted(): 'no' | 'wakeable' | 'dead' {
    let state: 'wakeable' | 'dead' = 'dead';
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      const its = this.design.halted(vcpu);
      if (its === 'no') {
        this.awake |= 1 << vcpu;
        this.give(vcpu);
        return 'no';
      }
      if (its === 'wakeable') state = 'wakeable';
    }
    return state;
  }

  private give(vcpu: number): void {
    this.mustLeave = false;
    this.turnEnd = this.retired(vcpu) + TURN;
    if (vcpu === this.current) return;
    this.othersRetired += this.retired(this.current) - this.retired(vcpu);
    this.clock?.switchTo(vcpu);
    this.current = vcpu;
  }

  /** Count of the current vCPU up to which it may run, when all of them together may retire `total` instructions. */
  limit(total: bigint): bigint {
    if (this.vcpus === 1) return total;
    const isAlone = (this.awake & ~(1 << this.current)) === 0;
    this.core.u32[(this.core.cpuAddress(this.current) + V_SPIN_WINDOW) >>> 2] = isAlone ? 0 : SPIN_WINDOW;
    const last = total - this.othersRetired;
    return isAlone || last < this.turnEnd ? last : this.turnEnd;
  }

  /** The run of the current vCPU ended without an exit, perhaps because it only waits for another. */
  leaveInGuest(isSpinning: boolean): void {
    this.interrupted |= 1 << this.current;
    if (isSpinning) this.mustLeave = true;
  }

  /** Whether the last run of the current vCPU ended in the middle of the guest; the call forgets it. */
  takeInterrupted(): boolean {
    const bit = 1 << this.current;
    const was = (this.interrupted & bit) !== 0;
    this.interrupted &= ~bit;
    return was;
  }

  /** Instructions that all vCPUs have retired. */
  total(): bigint {
    return this.othersRetired + this.retired(this.current);
  }

  state(s: StateIo): void {
    s.fields(this, ['current', 'awake', 'turnEnd', 'mustLeave', 'othersRetired', 'interrupted']);
  }

  private retired(vcpu: number): bigint {
    return this.core.u64[(this.core.cpuAddress(vcpu) + S_ICOUNT) >>> 3] ?? 0n;
  }
}
