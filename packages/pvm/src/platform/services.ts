import type { CpuCore } from '@pvm/cpu-jit';
import type { GuestRam } from '@pvm/machine';
import type { StopReason } from '../designs/design.ts';
import type { CheckedOptions } from '../options.ts';
import type { StdinReader } from '../stdin.ts';
import type { GuestTime } from './guest-time.ts';

/** What a machine gives its platform, and wants to hear from it. */
export interface PlatformServices {
  readonly core: CpuCore;
  readonly ram: GuestRam;
  readonly options: CheckedOptions;
  readonly time: GuestTime;
  readonly stdin: StdinReader;
  /** Fills a buffer with random bytes. */
  random(buffer: Uint8Array): void;
  stop(reason: StopReason, exitCode: number, signal: number): void;
  /** The guest asks for a reset of the machine. */
  reset(): void;
  /** Something waits for a vCPU, which may sleep or run. */
  kick(vcpu: number): void;
  /** The vCPU that runs gives its turn to `vcpu`. */
  yieldTo(vcpu: number): void;
  /** The next deadline of the timers moved forward. */
  deadlineMoved(): void;
  /** The vCPU does not go on before `ready`: a receiver of output is slow. */
  hold(ready: Promise<void>): void;
  /** The program marks the begin of interval `id` of so many operations; 0: its end. It goes on when the promise settles. */
  mark(operations: number, id: number): Promise<void> | undefined;
  /** System calls that the embedded kernel does not know: number -> count. */
  unknownSyscalls(calls: ReadonlyMap<number, number>): void;
}
