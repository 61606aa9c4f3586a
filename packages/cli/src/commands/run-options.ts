/** Options of `run` that take their value from the next word, as spelled. */
export const RUN_VALUE_OPTIONS: ReadonlySet<string> = new Set([
  '-m',
  '--memory',
  '--shadow-memory',
  '--env',
  '--file',
  '--clock',
  '--jit',
  '--abi',
  '--design',
  '--opt',
  '--kernel',
  '--initrd',
  '--drive',
  '--append',
  '--max-instructions',
  '--sort',
]);
