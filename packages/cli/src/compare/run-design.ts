import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { parseRunReport, type RunReport } from '@pvm/pvm';
import { UsageError } from '../errors.ts';

/** Console output that is kept to find where two differ; the rest only counts for the hash. */
const KEPT_CONSOLE = 32 * 2 ** 20;
const KEPT_ERRORS = 1 << 16;

/** One run of a comparison. */
export interface DesignRun {
  readonly report: RunReport;
  /** The guest's output without the kernel's timestamps: its beginning, and all of its hash. */
  readonly console: { readonly text: string; readonly bytes: number; readonly sha256: string };
}

/** The kernel's `[    1.234567] ` at the beginning of a line: time passes differently under each design. */
const TIMESTAMP = /^\[ *\d+\.\d{6}\] /;

/** Takes console output in pieces and drops timestamps and carriage returns. */
class ConsoleRecord {
  private readonly hash = createHash('sha256');
  private rest = '';
  private text = '';
  private bytes = 0;

  add(piece: string): void {
    const lines = (this.rest + piece).split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) this.take(`${line.replaceAll('\r', '').replace(TIMESTAMP, '')}\n`);
  }

  private take(text: string): void {
    this.hash.update(text);
    this.bytes += Buffer.byteLength(text);
    if (this.text.length < KEPT_CONSOLE) this.text += text;
  }

  end(): DesignRun['console'] {
    if (this.rest !== '') this.take(this.rest.replaceAll('\r', '').replace(TIMESTAMP, ''));
    return { text: this.text, bytes: this.bytes, sha256: this.hash.digest('hex') };
  }
}

/**
 * Runs `pvm run WORDS` under a design in a process of its own, so that no design inherits memory, compiled code or warmth of another.
 *
 * @param folder for files that pass by
 * @param input file for standard input, undefined: nothing
 * @throws UsageError when the run could not begin
 */
export async function runDesign(design: string, words: readonly string[], folder: string, input: string | undefined, signal: AbortSignal): Promise<DesignRun> {
  const file = join(folder, `${design}.json`);
  const command = [...process.execArgv, process.argv[1] ?? '', 'run', '--design', design, '--clock', 'icount', '--stat-out', file, ...words];
  const child = spawn(process.execPath, command, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'], signal });
  const record = new ConsoleRecord();
  let errors = '';
  child.stdout?.setEncoding('utf8').on('data', (piece: string) => record.add(piece));
  child.stderr?.setEncoding('utf8').on('data', (piece: string) => {
    errors = (errors + piece).slice(-KEPT_ERRORS);
  });
  if (input !== undefined && child.stdin !== null) {
    // A guest that ends early does not read all of it.
    child.stdin.on('error', () => undefined);
    createReadStream(input).pipe(child.stdin);
  }
  const ended = await new Promise<string>((resolve, reject) => {
    child.once('close', (code, killedBy) => resolve(killedBy === null ? `exit code ${code}` : `killed by ${killedBy}`)).once('error', reject);
  });
  if (child.stdout !== null) await finished(child.stdout).catch(() => undefined);
  const text = await readFile(file, 'utf8').catch(() => undefined);
  await rm(file, { force: true });
  if (text === undefined) throw new UsageError(`under design ${design}: ${lastLine(errors) || `the run ended without a report (${ended})`}`);
  return { report: parseRunReport(text, file), console: record.end() };
}

function lastLine(text: string): string {
  return (text.trimEnd().split('\n').at(-1) ?? '').replace(/^pvm: /, '');
}
