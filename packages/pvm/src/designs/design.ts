/** Why a machine stopped. */
export type StopReason =
  /** The guest powered off. */
  | 'poweroff'
  /** The guest wrote the debug-exit port. */
  | 'debug-exit'
  /** A stock kernel asked for a reset. */
  | 'reset'
  /** The guest halted with interrupts off: nothing can wake it. */
  | 'halted'
  /** The `signal` option was aborted. */
  | 'aborted'
  /** The `maxInstructions` option was reached. */
  | 'instruction-limit';

/** What the handling of one VM exit came to; reused from exit to exit. */
export interface ExitOutcome {
  /** Ledger row of the exit. */
  row: number;
  /** The vCPU goes on when this settles. */
  wait: Promise<void> | undefined;
}

/**
 * A virtualisation design: programs the virtualisation control block of a vCPU and handles the exits it asked for.
 * The run loop, the board and the ledger are the same for all of them.
 */
export interface Design {
  readonly name: string;
  /** Before each entry into the guest: deliver pending events. @returns true when an interrupt was delivered */
  prepareEntry(vcpu: number): boolean;
  /** Run the guest until its next exit, or EXIT_LIMIT when `limit` instructions have retired (already set); returns EXIT_* of layout.ts. */
  enter(vcpu: number, limit: bigint): number;
  /**
   * Handle the exit `reason` (EXIT_* of layout.ts) and leave its ledger row in `outcome`.
   * @throws TripleFault, FailedEntry when the guest cannot go on
   */
  handleExit(vcpu: number, reason: number, outcome: ExitOutcome): void;
  /** Hooks of the CPU, called from inside a run; see `CpuHooks`. */
  mmuFault(vcpu: number): 0 | 1 | 2 | 3;
  mmio(vcpu: number): 1 | 2;
  /** When the exit that ended the run began (`performance.now`): in a hook, or just now. */
  exitStart(vcpu: number, reason: number): number;
  /** External interrupt `vector`, delivered as soon as the guest takes it. */
  injectInterrupt(vcpu: number, vector: number): void;
  injectNmi(vcpu: number): void;
  /** The vCPU waits for an interrupt; `wakeable` when one could be delivered. */
  halted(vcpu: number): 'no' | 'wakeable' | 'dead';
  /** How long a halted vCPU sleeps if nothing comes from outside, ms; Infinity: until then. */
  sleepMs(vcpu: number): number;
  /** Lines for the report of a guest that died: registers that only this design has. */
  describe(vcpu: number): string[];
  /** Direct switches so far, by direction. */
  directSwitches(): { syscalls: number; returns: number };
  /** Shadow pages built, for the summary. */
  shadowPagesBuilt(): number;
}
