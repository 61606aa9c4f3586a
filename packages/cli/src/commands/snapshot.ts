import { type SnapshotInfo, snapshotInfo } from '@pvm/pvm';
import type { Argv, CommandModule } from 'yargs';

interface InfoArgs {
  readonly file: string;
  readonly json: boolean;
}

function describe(info: SnapshotInfo): string {
  const { config, sources } = info;
  const lines: readonly (readonly [string, string])[] = [
    ['taken', `${info.created} by pvm ${info.pvm}${info.isCurrent ? '' : ', another build than this one, which cannot restore it'}`],
    [
      'machine',
      `${config.platform === 'pc' ? 'stock kernel' : 'program'} under ${config.design}, ${config.memory / 2 ** 20} MiB, ${info.vcpus} vCPU, ${config.cpu}, clock ${config.clock}`,
    ],
    ['ran', [sources.image ?? 'an image that was in memory', sources.commandLine].filter((s) => s !== '').join(' ')],
    ['instructions', info.instructions],
    ...sources.drives.map(({ file, size }, i) => [`drive ${i}`, `${file ?? 'in memory'}, ${size} bytes`] as const),
    ...sources.shares.map((folder, i) => [`share ${i}`, folder] as const),
    ['size', `${(info.size / 2 ** 20).toFixed(1)} MiB`],
  ];
  return lines.map(([name, value]) => `${name.padEnd(13)} ${value}\n`).join('');
}

/** `pvm snapshot info FILE`. */
export const snapshotCommand: CommandModule = {
  command: 'snapshot',
  describe: 'Say what a snapshot is of, and check it: pvm snapshot info FILE',
  builder: (y: Argv) =>
    y
      .command({
        command: 'info <file>',
        describe: 'Print what a snapshot is of; fails when it is damaged',
        builder: { json: { type: 'boolean', default: false, describe: 'Print its header as JSON' } },
        handler: (a) => {
          const { file, json } = a as unknown as InfoArgs;
          const info = snapshotInfo(file);
          process.stdout.write(json ? `${JSON.stringify(info)}\n` : describe(info));
        },
      })
      .demandCommand(1, 'snapshot: say what to do: pvm snapshot info FILE'),
  handler: () => undefined,
};
