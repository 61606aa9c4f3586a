/**
 * Fuzzes the machine with hostile guests (packages/pvm/src/testing/hostile): kernels that do anything a kernel can do wrong, under every design.
 *
 *     node -C source scripts/fuzz-guest.ts [SECONDS] [FIRST-SEED] [MACHINE]     MACHINE: bare, bare-2, kvm-ept, ...; or all (default)
 *
 * A run must end by itself, by an end that a guest may have, with the memory of the host unharmed, and the same way interpreted and compiled: to its end, or
 * as far as a processor's way is sure. Goes on after a failure; each prints machine and seed: the same again with 1 SEED MACHINE. Exit code 1 when there was one.
 */
import { fork } from 'node:child_process';
import { MACHINES, tierDifferences } from '../packages/pvm/src/testing/hostile/run.ts';

/** A run takes a second or so on a quiet host. */
const HANG_MS = 120_000;
const MAX_RESIDENT_MIB = 3000;
const [seconds = '60', first = '1', only, ...rest] = process.argv.slice(2);
const names = Object.keys(MACHINES).filter((name) => only === undefined || only === 'all' || name === only);
if (names.length === 0) {
  console.error(`machine ${only}: expected one of ${Object.keys(MACHINES).join(', ')}`);
  process.exit(2);
}

/** What a run of the child came to. */
interface Report {
  readonly name: string;
  readonly seed: number;
  readonly problem?: string;
  /** The run begins. */
  readonly begins?: true;
}

async function runOne(name: string, seed: number): Promise<string | undefined> {
  const machine = MACHINES[name];
  if (machine === undefined) return 'no such machine';
  // Every fourth checks the page tables as well, which is slow.
  try {
    const differing = await tierDifferences(seed, machine, { instructions: seed % 4 === 0 ? 15_000 : 30_000, checkMmu: seed % 4 === 0 ? 50 : 0 });
    return differing.length === 0 ? undefined : `interpreted and compiled differ:\n    ${differing.slice(0, 8).join('\n    ')}`;
  } catch (e) {
    return e instanceof Error ? (e.stack ?? e.message) : String(e);
  }
}

/** In a process of its own, so that a run that hangs, or takes the process with it, is found out. */
async function child(): Promise<void> {
  const say = (report: Report) => new Promise<void>((resolve) => void process.send?.(report, undefined, undefined, () => resolve()));
  const end = performance.now() + Number(seconds) * 1000;
  for (let seed = Number(first); performance.now() < end; seed++) {
    for (const name of names) {
      await say({ name, seed, begins: true });
      const problem = await runOne(name, seed);
      await say({ name, seed, ...(problem === undefined ? {} : { problem }) });
      const resident = process.memoryUsage().rss >> 20;
      if (resident > MAX_RESIDENT_MIB) await say({ name, seed, problem: `${resident} MiB are resident` });
    }
  }
  process.disconnect();
}

/** Starts children until the time is over: one after each that had to be ended. */
async function parent(): Promise<number> {
  const end = performance.now() + Number(seconds) * 1000;
  let runs = 0;
  let failures = 0;
  let seed = Number(first);
  const fail = (name: string, problem: string) => {
    failures++;
    console.error(`${name}, seed ${seed}: ${problem}`);
  };
  while (performance.now() < end) {
    const left = Math.ceil((end - performance.now()) / 1000);
    const running = fork(import.meta.filename, [String(left), String(seed), only ?? 'all', 'child'], { execArgv: process.execArgv });
    let current = names[0] ?? '';
    let watchdog = setTimeout(() => undefined, 0);
    running.on('message', (report: Report) => {
      clearTimeout(watchdog);
      ({ name: current, seed } = report);
      if (report.begins === true) {
        watchdog = setTimeout(() => {
          fail(current, `does not end within ${HANG_MS / 1000} s`);
          running.kill('SIGKILL');
        }, HANG_MS);
      } else if (report.problem === undefined) runs++;
      else fail(current, report.problem);
    });
    const code = await new Promise<number | null>((resolve) => running.on('exit', (exit) => resolve(exit)));
    clearTimeout(watchdog);
    if (code !== 0 && code !== null) fail(current, `took the process with it (exit code ${code})`);
    seed++;
  }
  console.log(`${runs} guests ran well, ${failures} did not; seeds ${first} to ${seed - 1}`);
  return failures === 0 ? 0 : 1;
}

if (rest[0] === 'child') await child();
else process.exitCode = await parent();
