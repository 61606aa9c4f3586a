import { createVm } from '@pvm/pvm';
import type { Argv, CommandModule } from 'yargs';
import { UsageError } from '../errors.ts';
import { parseRunArguments, refuseNothing, refuseOutside, runSettings } from './run-arguments.ts';

interface JitArgs {
  readonly action: 'dump';
  readonly rip: string;
}

/** Options of `jit`, for yargs. */
export const JIT_OPTIONS = {
  rip: { type: 'string', demandOption: true, requiresArg: true, describe: 'Virtual address of an instruction, such as 0x401800' },
} as const;

/** @throws UsageError */
function parseAddress(text: string): bigint {
  if (!/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text)) throw new UsageError(`--rip: expected an address such as 0x401800, got "${text}"`);
  return BigInt(text);
}

/** `pvm jit dump`; `words` are what follows `--`: arguments of `pvm run`. */
export function jitCommand(words: readonly string[]): CommandModule<object, JitArgs> {
  return {
    command: 'jit <action>',
    describe: 'See what the compiler makes of guest code: pvm jit dump --rip ADDRESS -- RUN-ARGUMENTS',
    builder: (y) =>
      y
        .usage(
          `pvm jit dump --rip ADDRESS -- RUN-ARGUMENTS

Runs what follows -- as pvm run would, its output dropped, and then prints the compiled regions that hold the instruction at ADDRESS: the guest's code, and the Wasm text made of it.`,
        )
        .positional('action', { choices: ['dump'] as const, demandOption: true })
        .options(JIT_OPTIONS)
        .example('pvm jit dump --rip 0x401800 -- ./prog', 'The code around 0x401800, if it was hot') as unknown as Argv<JitArgs>,
    handler: async (a) => {
      const rip = parseAddress(a.rip);
      const { args, program } = await parseRunArguments(words);
      refuseNothing('jit dump', args, program);
      refuseOutside('jit dump', args);
      if (args.jit === 'off') throw new UsageError('jit dump: nothing is compiled with --jit off');
      const vm = await createVm({ ...runSettings(args, program), jit: 'sync' });
      try {
        await vm.run();
        const regions = await vm.dumpCompiled(rip);
        if (regions.length === 0) throw new UsageError(`no compiled code holds an instruction at ${a.rip}: it was not reached often enough, or is not code`);
        process.stdout.write(regions.join('\n'));
      } finally {
        await vm.dispose();
      }
    },
  };
}
