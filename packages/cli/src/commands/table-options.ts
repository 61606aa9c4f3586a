import { PROFILE_NAMES } from '@pvm/pvm';
import type { Options } from 'yargs';

/** How a table of exits is laid out. */
export const TABLE_OPTIONS = {
  sort: { choices: ['samples', 'time'], default: 'samples', requiresArg: true, describe: 'Order of the exits' },
  by: { choices: ['reason', 'sub', 'detail'], default: 'sub', requiresArg: true, describe: 'A row a reason, a sub-reason, or each class of error code' },
  percentiles: { type: 'boolean', default: false, describe: 'Columns for the 50th, 90th and 99th percentile' },
} as const satisfies Readonly<Record<string, Options>>;

/** Files that name guest addresses. */
export const SYMBOLS_OPTION = {
  type: 'string',
  array: true,
  nargs: 1,
  default: [],
  describe: 'System.map, the text of /proc/kallsyms, or an ELF, to name guest addresses; may be given again',
} as const satisfies Options;

/** Whose prices turn counts into modelled time. */
export const PROFILE_OPTION = {
  type: 'string',
  requiresArg: true,
  describe: `Cost profile (${PROFILE_NAMES.join(', ')}, or a file): also show what this would take on the machine it describes`,
} as const satisfies Options;
