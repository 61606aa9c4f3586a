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
  /** The vCPU that has the next turn if it can run, -1: the next in line. */
  private preferred = -1;
  /** Since when a vCPU that is awake has waited for its turn, ns. */
  private readonly readySince: Float64Array;
  /** Bit per vCPU: its last run ended in the middle of the guest. */
  private interrupted = 0;

  constructor(core: CpuCore, design: Design, clock: MachineClock | undefined) {
    this.core = core;
    this.design = design;
    this.clock = clock;
    this.vcpus = core.vcpus;
    this.readySince = new Float64Array(core.vcpus);
  }

  /** Something waits for a vCPU. */
  wake(vcpu: number): void {
    const bit = 1 << vcpu;
    if ((this.awake & bit) === 0) this.readySince[vcpu] = this.clock?.now() ?? 0;
    this.awake |= bit;
  }

  /** The current vCPU ends its turn, and `vcpu` has the next if it can run. */
  yieldTo(vcpu: number): void {
    this.mustLeave = true;
    this.preferred = vcpu;
  }

  /** Sees to it that the current vCPU is the one whose turn it is. @returns false: all wait */
  choose(): boolean {
    const { current, vcpus, design } = this;
    const isOver = vcpus > 1 && (this.mustLeave || this.retired(current) >= this.turnEnd);
    if (!isOver && design.halted(current) === 'no') return true;
    const next = this.preferred < 0 ? current + 1 : this.preferred;
    this.preferred = -1;
    for (let i = 0; i < vcpus; i++) {
      const vcpu = (next + i) % vcpus;
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
        this.wake(vcpu);
        this.give(vcpu);
        return 'no';
      }
      if (its === 'wakeable') state = 'wakeable';
    }
    return state;
  }

  private give(vcpu: number): void {
    this.mustLeave = false;
    // The host's event loop interrupts at any time: where nobody else can run, nothing may depend on that.
    if (vcpu === this.current) return;
    const { current, clock, design } = this;
    this.turnEnd = this.retired(vcpu) + TURN;
    this.othersRetired += this.retired(current) - this.retired(vcpu);
    clock?.switchTo(vcpu);
    this.current = vcpu;
    const now = clock?.now() ?? 0;
    this.readySince[current] = now;
    design.turnEnds?.(current);
    design.turnBegins?.(vcpu, now - (this.readySince[vcpu] ?? now));
  }

  /** Count of the current vCPU up to which it may run, when all of them together may retire `total` instructions. */
  limit(total: bigint): bigint {
    if (this.vcpus === 1) return total;
    const isAlone = !this.hasOthers();
    this.core.u32[(this.core.cpuAddress(this.current) + V_SPIN_WINDOW) >>> 2] = isAlone ? 0 : SPIN_WINDOW;
    const last = total - this.othersRetired;
    return isAlone || last < this.turnEnd ? last : this.turnEnd;
  }

  /** Whether another vCPU can run. */
  private hasOthers(): boolean {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      const bit = 1 << vcpu;
      if (vcpu === this.current || (this.awake & bit) === 0) continue;
      if (this.design.halted(vcpu) === 'no') return true;
      this.awake &= ~bit;
    }
    return false;
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
    s.fields(this, ['current', 'awake', 'turnEnd', 'mustLeave', 'othersRetired', 'interrupted', 'preferred', 'readySince']);
  }

  private retired(vcpu: number): bigint {
    return this.core.u64[(this.core.cpuAddress(vcpu) + S_ICOUNT) >>> 3] ?? 0n;
  }
}
