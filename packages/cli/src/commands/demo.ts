import { demoPath } from '@pvm/guests';
import { createVm, formatLedger } from '@pvm/pvm';
import type { CommandModule } from 'yargs';
import { formatSummary } from '../summary.ts';
import { MACHINE_OPTIONS, type MachineArgs, machineSettings } from './machine-options.ts';

interface DemoArgs extends MachineArgs {
  readonly clock: 'host' | 'icount';
}

/** `pvm demo`: the embedded program, then what it cost. */
export const demoCommand: CommandModule<object, DemoArgs> = {
  command: 'demo',
  describe: 'Run the embedded demo program and print what it cost',
  builder: { ...MACHINE_OPTIONS, clock: { choices: ['host', 'icount'], default: 'host', requiresArg: true, describe: "The guest's clock" } },
  handler: async (a) => {
    const vm = await createVm({
      ...machineSettings(a),
      program: demoPath,
      argv0: 'demo',
      clock: a.clock,
      sampleTiers: true,
      onConsole: process.stdout,
      onStderr: process.stderr,
    });
    try {
      const result = await vm.run();
      process.stdout.write(`\n${formatLedger(vm.ledger)}\n\n${formatSummary(result.summary)}\n`);
      process.exitCode = result.exitCode;
    } finally {
      await vm.dispose();
    }
  },
};
