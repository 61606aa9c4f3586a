import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The command as users start it; needs a build. */
export const BIN = fileURLToPath(new URL('../../bin/pvm.mjs', import.meta.url));

/** Runs `pvm` to its end. */
export function pvm(args: readonly string[], input: string | Uint8Array = ''): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', input, maxBuffer: 1 << 26 });
}

/** A `pvm` that runs. */
export interface RunningPvm {
  readonly child: ChildProcessWithoutNullStreams;
  stdout(): string;
  stderr(): string;
  /** Resolves when standard output has `text`; rejects with what there is when the process ends before. */
  says(text: string): Promise<void>;
  /** Exit code, or the signal that killed it. */
  readonly ended: Promise<number | string>;
}

export function startPvm(args: readonly string[], command: readonly string[] = [process.execPath, BIN]): RunningPvm {
  const child = spawn(command[0] ?? '', [...command.slice(1), ...args]);
  const text = { out: '', err: '' };
  const waiting: (() => void)[] = [];
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    text.out += piece;
    for (const look of waiting) look();
  });
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    text.err += piece;
  });
  const ended = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'lost'));
  });
  const says = (wanted: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = () => {
        if (text.out.includes(wanted)) resolve();
      };
      waiting.push(look);
      look();
      void ended.then((how) => reject(new Error(`ended (${how}) without saying ${JSON.stringify(wanted)}: ${text.out}\n${text.err}`)));
    });
  return { child, stdout: () => text.out, stderr: () => text.err, says, ended };
}
