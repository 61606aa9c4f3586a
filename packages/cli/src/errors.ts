/** A mistake of the person at the command line: one line on stderr, exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Exit code for wrong use and unreadable or unsuitable files. */
export const EXIT_USAGE = 2;
/** Exit code for a guest that cannot go on (EX_SOFTWARE of sysexits.h). */
export const EXIT_GUEST = 70;
/** Exit code of a run that --timeout ended (as timeout(1) has it). */
export const EXIT_TIMEOUT = 124;
