import type { MachineErrorCode } from '@pvm/machine';

/** What went wrong, for programs; the message is for people. Codes of `@pvm/machine` pass through unchanged. */
export type PvmErrorCode =
  | MachineErrorCode
  /** An option is unknown, of the wrong type or out of range. */
  | 'bad-option'
  /** A file that was named cannot be read. */
  | 'unreadable-file'
  /** `run` was called twice, or after `dispose`. */
  | 'wrong-state'
  /** The guest reached a state no event can get it out of (see {@link VmError}). */
  | 'triple-fault'
  /** The underlying CPU refuses the state the guest asked for. */
  | 'failed-vmentry'
  /** The option `checkMmu` found the hypervisor's page tables to be wrong. */
  | 'broken-mmu'
  /** A file of symbols, statistics or costs has not the contents it should have. */
  | 'no-symbols'
  | 'bad-report'
  | 'bad-profile'
  /** A snapshot is damaged, cut off, or none. */
  | 'bad-snapshot'
  /** A snapshot is of another version of pvm, or of a machine other than the options ask for. */
  | 'snapshot-mismatch'
  /** A file that was to be written cannot be. */
  | 'unwritable-file'
  /** A part of the package was not built. */
  | 'not-built';

/** Error thrown by `@pvm/pvm`. `message` is one line. */
export class PvmError extends Error {
  override readonly name: string = 'PvmError';
  readonly code: PvmErrorCode;
  constructor(code: PvmErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The guest cannot go on: triple fault, refused entry, or page tables that failed a check. `report` has the registers and the last exits, on several lines. */
export class VmError extends PvmError {
  override readonly name = 'VmError';
  /** What a command-line tool should exit with (EX_SOFTWARE of sysexits.h). */
  readonly exitCode = 70;
  readonly report: string;
  constructor(code: 'triple-fault' | 'failed-vmentry' | 'broken-mmu', message: string, report: string) {
    super(code, message);
    this.report = report;
  }
}
