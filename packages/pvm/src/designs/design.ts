import type { CpuCore, Saveable } from '@pvm/cpu-jit';
import type { EntryState, GuestRam } from '@pvm/machine';
import type { DirtyLogKind } from '@pvm/shadow-mmu';
import type { ExitLedger } from '../ledger.ts';
import type { CheckedOptions } from '../options.ts';
import type { GuestTime, Platform, PlatformKind } from '../platform/index.ts';
import type { PageTableCounters } from '../summary.ts';
import type { Optimisation } from './optimisations.ts';

/** Why a machine stopped. */
export type StopReason =
  /** The guest powered off. */
  | 'poweroff'
  /** The guest wrote the debug-exit port. */
  | 'debug-exit'
  /** A stock kernel asked for a reset, and the option `reboot` is off. */
  | 'reset'
  /** A stock kernel panicked. */
  | 'panic'
  /** The guest halted with interrupts off: nothing can wake it. */
  | 'halted'
  /** The `signal` option was aborted. */
  | 'aborted'
  /** A snapshot was taken with `stop`. */
  | 'saved'
  /** The `maxInstructions` option was reached. */
  | 'instruction-limit';

/** The guest cannot take an event: the run loop ends the machine with this message. */
export class TripleFault extends Error {
  override readonly name = 'TripleFault';
}
/** The underlying CPU cannot enter the state that the guest asked for. */
export class FailedEntry extends Error {
  override readonly name = 'FailedEntry';
}

/** A check of the design's page tables (`checkMmu`) found that they are wrong: a bug of the hypervisor. */
export class BrokenMmu extends Error {
  override readonly name = 'BrokenMmu';
}

/** What the handling of one VM exit came to; reused from exit to exit. */
export interface ExitOutcome {
  /** Ledger row of the exit. */
  row: number;
  /** The vCPU goes on when this settles. */
  wait: Promise<void> | undefined;
}

/** Changes of mode without an exit: system calls, returns, page faults injected. */
export interface DirectSwitches {
  readonly syscalls: number;
  readonly returns: number;
  /** Absent: the design injects none. */
  readonly faults?: number;
}

/** Notes which pages of guest RAM are written, as live migration needs it. Addresses are guest-physical. */
export interface DirtyTracking {
  /** Starts to log writes to [gpa, gpa + bytes), whole 4 KiB pages, in place of an earlier log: by the CPU's dirty bits, or by an exit at the first write to each page. */
  start(gpa: number, bytes: number, kind?: DirtyLogKind): void;
  /** Pages written since the start or the last call: bit n of word w is page w * 32 + n of the range. @throws Error when no log is on */
  take(): Uint32Array;
  stop(): void;
}

/** What a design is made of. */
export interface DesignContext {
  readonly core: CpuCore;
  readonly ram: GuestRam;
  readonly ledger: ExitLedger;
  readonly platform: Platform;
  readonly time: GuestTime;
  readonly options: CheckedOptions;
}

/** A design's entry in the registry. */
export interface DesignInfo {
  /** One line for help and reports. */
  readonly title: string;
  /** Platforms whose guests it runs. */
  readonly platforms: readonly PlatformKind[];
  /** On the PC it runs kernels that speak its guest ABI (the option `abi`). */
  readonly abiKernels: boolean;
  /** The switches it has, with their defaults. */
  readonly optimisations: Readonly<Partial<Record<Optimisation, boolean>>>;
  /** SYSCALL goes to the switcher; without it, it means what it means on a PC. */
  readonly switcher: boolean;
  /** Machines may have several vCPUs; default false. */
  readonly smp?: boolean;
  create(context: DesignContext): Design;
}

/**
 * A virtualisation design: programs the virtualisation control block of a vCPU and handles the exits it asked for.
 * The run loop, the platforms and the ledger are the same for all of them.
 *
 * Its state, for snapshots, is what its objects remember beside the state blocks, the TLBs and the frame pool, which are saved as memory. A restored
 * machine is constructed with the same options and gets all of this back; `boot` is not called.
 */
export interface Design extends Saveable {
  readonly name: string;
  /** How it runs this guest, for the report, where it has more than one way. */
  readonly form?: string;
  /** Puts the boot vCPU into the state that the boot protocol asks for. */
  boot(entry: EntryState): void;
  /** Before each entry into the guest: deliver pending events. @returns true when an interrupt was delivered */
  prepareEntry(vcpu: number): boolean;
  /** Run the guest until its next exit, or EXIT_LIMIT at the limit of instructions (already set); returns EXIT_* of layout.ts. */
  enter(vcpu: number): number;
  /**
   * Handle the exit `reason` (EXIT_* of layout.ts) and leave its ledger row in `outcome`.
   * @throws TripleFault, FailedEntry when the guest cannot go on
   */
  handleExit(vcpu: number, reason: number, outcome: ExitOutcome): void;
  /** Ledger rows of the exits because an interrupt came from outside, or a timer of the guest came due, while it ran; -1: these are no exits. */
  readonly interruptRow: number;
  readonly timerRow: number;
  /** Hooks of the CPU, called from inside a run; see `CpuHooks`. */
  mmuFault(vcpu: number): 0 | 1 | 2 | 3;
  mmio(vcpu: number): 1 | 2;
  /** A device or the host wrote `length` bytes of guest RAM at `gpa`. */
  hostWrote(gpa: number, length: number): void;
  /** What `ExitLedger.start` said when the exit that ended the run began: in a hook, or just now. */
  exitStart(vcpu: number, reason: number): number;
  /** External interrupt `vector`, delivered as soon as the guest takes it. */
  injectInterrupt(vcpu: number, vector: number): void;
  injectNmi(vcpu: number): void;
  /** The vCPU waits for an interrupt; `wakeable` when one could be delivered, `dead` when none can, or it waits for another vCPU to start it. */
  halted(vcpu: number): 'no' | 'wakeable' | 'dead';
  /** The vCPU's turn to run begins, for which it waited `ns`, or is over; absent: the guest is not told. */
  turnBegins?(vcpu: number, ns: number): void;
  turnEnds?(vcpu: number): void;
  /** Lines for the report of a guest that died: registers that only this design has. */
  describe(vcpu: number): string[];
  /** Direct switches so far, by direction. */
  directSwitches(): DirectSwitches;
  /** Work on shadow or second-level tables so far, by name (`ShadowMmuStats` and the like); absent: there are none. */
  pageTables?(): PageTableCounters;
  /** Checks the invariants of the design's page tables; absent: it has none. @throws Error naming the first that is broken */
  checkMmu?(): void;
  /** Absent: the design cannot note writes. */
  readonly dirtyLog?: DirtyTracking;
  /** Shadow pages built, for the summary. */
  shadowPagesBuilt(): number;
}
