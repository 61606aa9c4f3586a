import { type CpuCore, MAX_WATCHPOINTS, Registers, type Watchpoint } from '@pvm/cpu-jit';
import type { GuestRam } from '@pvm/machine';
import { GuestView } from './guest-view.ts';

/** Why the machine stands still. */
export type DebugStop =
  | { readonly kind: 'pause' | 'step' | 'breakpoint'; readonly vcpu: number }
  | { readonly kind: 'watchpoint'; readonly vcpu: number; readonly watchpoint: Watchpoint }
  /** The guest cannot go on: triple fault and the like. */
  | { readonly kind: 'dead'; readonly vcpu: number; readonly message: string };

/** What the debugger asks of the machine. */
export interface DebuggedMachine {
  /** Ends a run of the guest, and its sleep. */
  interrupt(): void;
  /** Runs one instruction of a vCPU, without interrupts. @throws TripleFault, FailedEntry */
  step(vcpu: number): void;
}

/**
 * Stops and inspects a machine. While it is stopped the guest's time stands still as far as retired instructions are concerned; devices and the host's clock go on.
 */
export class Debugger {
  /** Called at each stop. */
  onStop: ((stop: DebugStop) => void) | undefined;
  private readonly core: CpuCore;
  private readonly machine: DebuggedMachine;
  private readonly memory: GuestView;
  private readonly files: Registers[];
  private breakpoints = new Set<bigint>();
  private watchpoints: Watchpoint[] = [];
  private wantsPause = false;
  /** Breakpoints that nobody wants any more may still be in place. */
  private isStale = false;
  private stopped: DebugStop | undefined;
  private readonly waiting: (() => void)[] = [];
  private resumed: { promise: Promise<void>; resolve: () => void } | undefined;

  constructor(core: CpuCore, ram: GuestRam, machine: DebuggedMachine) {
    this.core = core;
    this.machine = machine;
    this.memory = new GuestView(core, ram);
    this.files = Array.from({ length: core.vcpus }, (_, vcpu) => new Registers(core, vcpu));
  }

  // ------------------------------------------------------------ for users
  get vcpus(): number {
    return this.core.vcpus;
  }
  /** Undefined: the machine runs, or has not begun. */
  get stop(): DebugStop | undefined {
    return this.stopped;
  }
  /** Registers of a vCPU; only while the machine is stopped. */
  registers(vcpu: number): Registers {
    const file = this.files[vcpu];
    if (file === undefined) throw new RangeError(`there is no vCPU ${vcpu}; there are ${this.vcpus}`);
    return file;
  }
  /** As many bytes as are mapped. */
  read(vcpu: number, address: bigint, length: number): Uint8Array {
    return this.memory.read(vcpu, address, length);
  }
  /** @returns false, and nothing is written, when some of it is not mapped */
  write(vcpu: number, address: bigint, data: Uint8Array): boolean {
    return this.memory.write(vcpu, address, data);
  }
  /** Stops before the instruction at linear `address`. Heard when the machine is resumed. */
  addBreakpoint(address: bigint): void {
    this.breakpoints.add(address);
  }
  removeBreakpoint(address: bigint): void {
    this.breakpoints.delete(address);
  }
  /** @returns false: there are four already */
  addWatchpoint(watchpoint: Watchpoint): boolean {
    if (this.watchpoints.length === MAX_WATCHPOINTS) return false;
    this.watchpoints.push(watchpoint);
    return true;
  }
  removeWatchpoint({ address, size, kind }: Watchpoint): void {
    const at = this.watchpoints.findIndex((w) => w.address === address && w.size === size && w.kind === kind);
    if (at >= 0) this.watchpoints.splice(at, 1);
  }
  /** Stops the machine soon; before its first instruction when it has not begun to run. */
  pause(): void {
    if (this.stopped !== undefined) return;
    this.wantsPause = true;
    this.machine.interrupt();
  }
  /** Settles at once when the machine is stopped, else at its next stop. */
  untilStopped(): Promise<void> {
    return this.stopped === undefined ? new Promise((resolve) => this.waiting.push(resolve)) : Promise.resolve();
  }
  /** Goes on, over a breakpoint at the next instruction. */
  resume(): void {
    const from = this.stopped;
    if (from === undefined) return;
    this.stopped = undefined;
    if (from.kind !== 'dead') {
      if (this.core.debug.breakpointHere(from.vcpu) !== 'none' && !this.stepOnce(from.vcpu)) return;
      this.arm();
    }
    this.go();
  }
  /** Runs one instruction of a vCPU. */
  step(vcpu: number): void {
    if (this.stopped === undefined || this.stopped.kind === 'dead') return;
    this.arm();
    this.stopped = undefined;
    if (this.stepOnce(vcpu)) this.stopAt({ kind: 'step', vcpu });
  }
  /** Removes all breakpoints and watchpoints and goes on. */
  detach(): void {
    this.onStop = undefined;
    this.breakpoints.clear();
    this.watchpoints = [];
    this.wantsPause = false;
    if (this.stopped === undefined) this.isStale = true;
    else this.resume();
  }

  // ------------------------------------------------------------ for the run loop
  /** Before the guest is entered from the event loop. @returns true: it must not be */
  holds(vcpu: number): boolean {
    if (this.isStale) this.arm();
    if (this.watchpoints.length > 0) this.core.debug.setWatchpoints(vcpu, this.watchpoints);
    if (this.wantsPause) this.stopAt({ kind: 'pause', vcpu });
    return this.stopped !== undefined;
  }

  /** `pause` was called and the machine has not heard it yet. */
  get wantsStop(): boolean {
    return this.wantsPause;
  }

  /** The guest left with EXIT_REQUEST. 'stop': at a breakpoint or watchpoint; 'step': the next instruction must run by itself. */
  requested(vcpu: number): 'stop' | 'step' | 'go' {
    if (this.watchHit(vcpu)) return 'stop';
    const here = this.core.debug.breakpointHere(vcpu);
    if (here === 'none') return 'go';
    if (here === 'alias') return 'step';
    this.stopAt({ kind: 'breakpoint', vcpu });
    return 'stop';
  }

  /** The guest cannot go on. The error is the machine's end when the debugger has let go. */
  async died(vcpu: number, message: string): Promise<void> {
    if (this.onStop === undefined) return;
    this.stopAt({ kind: 'dead', vcpu, message });
    await this.untilResumed();
  }

  /** Settles when the machine may run again. */
  untilResumed(): Promise<void> {
    if (this.stopped === undefined) return Promise.resolve();
    if (this.resumed === undefined) {
      let resolve = () => {};
      const promise = new Promise<void>((r) => {
        resolve = r;
      });
      this.resumed = { promise, resolve };
    }
    return this.resumed.promise;
  }

  private go(): void {
    this.resumed?.resolve();
    this.resumed = undefined;
  }

  /** @returns false: it stopped for a reason of its own */
  private stepOnce(vcpu: number): boolean {
    try {
      this.machine.step(vcpu);
    } catch (e) {
      if (!(e instanceof Error)) throw e;
      this.stopAt({ kind: 'dead', vcpu, message: e.message });
      return false;
    }
    return !this.watchHit(vcpu);
  }

  private watchHit(vcpu: number): boolean {
    const hit = this.core.debug.takeHit(vcpu);
    const watchpoint = hit === undefined ? undefined : this.watchpoints[hit];
    if (watchpoint === undefined) return false;
    this.stopAt({ kind: 'watchpoint', vcpu, watchpoint });
    return true;
  }

  private stopAt(stop: DebugStop): void {
    this.stopped = stop;
    this.wantsPause = false;
    this.onStop?.(stop);
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  /** Puts breakpoints and watchpoints where they are wanted now. */
  private arm(): void {
    this.isStale = false;
    const { core } = this;
    core.debug.setBreakpoints(this.breakpoints, (address) => {
      const found = new Set<number>();
      for (let vcpu = 0; vcpu < core.vcpus; vcpu++) {
        const gpa = this.memory.translate(vcpu, address);
        if (gpa !== undefined) found.add(core.ramBase + gpa);
      }
      return [...found];
    });
    for (let vcpu = 0; vcpu < core.vcpus; vcpu++) core.debug.setWatchpoints(vcpu, this.watchpoints);
  }
}
