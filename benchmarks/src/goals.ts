import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { buildProgram } from './build.ts';
import { PEERS, type Run, runOn } from './peers.ts';
import { median } from './statistics.ts';

/** A number to reach, and how it is measured. */
export interface Goal {
  readonly what: string;
  readonly unit: string;
  readonly limit: number;
  /** Whether the measured number should be at most or at least `limit`. */
  readonly direction: 'at most' | 'at least';
  measure(): number;
}

const CLI = join(import.meta.dirname, '../../packages/cli/bin/pvm.mjs');

/** Runs the command line; throws Error with what it said when it fails in another way than `status`. */
function pvm(
  args: readonly string[],
  status = 0,
  nodeOptions: readonly string[] = [],
): { readonly stdout: string; readonly stderr: string; readonly ms: number } {
  const start = performance.now();
  const r = spawnSync(process.execPath, [...nodeOptions, CLI, ...args], { encoding: 'utf8', maxBuffer: 1 << 26 });
  const ms = performance.now() - start;
  if (r.status !== status) throw new Error(`pvm ${args.join(' ')}: exit ${r.status ?? r.signal}: ${r.stderr.slice(-500)}`);
  return { stdout: r.stdout, stderr: r.stderr, ms };
}

function peerRun(peer: string, program: string, rounds: number): Run {
  const found = PEERS.find((p) => p.name === peer);
  if (found === undefined) throw new RangeError(`no peer "${peer}"`);
  return runOn(found, buildProgram(program), rounds);
}

/** Million instructions per second of the interpreter alone, over a whole run. */
function interpreterMips(program: string): number {
  const tiers = peerRun('pvm-interpreter', program, 4).tiers;
  if (tiers === undefined) throw new Error('pvm run --json printed no summary');
  return tiers.instructions / tiers.runMs / 1000;
}

/** Slowdown of the steady state, natively and in the guest in turns. */
function slowdown(program: string, rounds: number): number {
  return median(
    [1, 2, 3].map(() => {
      const native = peerRun('native', program, rounds).steadyNs;
      return peerRun('pvm', program, rounds).steadyNs / native;
    }),
  );
}

interface BenchOps {
  readonly ops: readonly { readonly name: string; readonly nsPerOp: number }[];
}
const benchRuns = new Map<string, readonly BenchOps[]>();

/** One operation of `pvm bench`, ns; the least of three runs, since other load only ever adds. The runs are made once for all operations. */
function benchNs(what: 'exits' | 'faults', name: string): number {
  const runs = benchRuns.get(what) ?? [1, 2, 3].map(() => JSON.parse(pvm(['bench', what, '--json']).stdout) as BenchOps);
  benchRuns.set(what, runs);
  const ns = runs.flatMap(({ ops }) => ops.filter((o) => o.name === name).map((o) => o.nsPerOp));
  if (ns.length === 0) throw new Error(`pvm bench ${what} has no "${name}"`);
  return Math.min(...ns);
}

/** From starting the process to the end of one guest instruction and the process, ms. */
function firstInstructionMs(): number {
  const program = buildProgram('tight-loop');
  return median([1, 2, 3, 4, 5].map(() => pvm(['run', '--max-instructions', '1', program], 2).ms));
}

/** Greatest resident set of the process that runs a small program in 64 MiB of guest RAM, MiB. */
function residentMiB(): number {
  const report = 'process.on("exit", () => console.error("max-rss", process.resourceUsage().maxRSS))';
  const { stderr } = pvm(['run', '-m', '64M', buildProgram('hash-table'), '10'], 0, ['--import', `data:text/javascript,${encodeURIComponent(report)}`]);
  const kib = /max-rss (\d+)/.exec(stderr)?.[1];
  if (kib === undefined) throw new Error('the process did not report its memory');
  return Number(kib) / 1024;
}

/** The speed and memory that the whole path, from command line to guest program, is held to. */
export const GOALS: readonly Goal[] = [
  { what: 'interpreter alone, integer loop', unit: 'MIPS', limit: 40, direction: 'at least', measure: () => interpreterMips('tight-loop') },
  { what: 'interpreter alone, mixed code', unit: 'MIPS', limit: 40, direction: 'at least', measure: () => interpreterMips('mix') },
  { what: 'tight integer loop over memory', unit: 'x native', limit: 4, direction: 'at most', measure: () => slowdown('tight-loop', 30) },
  { what: 'getpid, switched directly', unit: 'ns', limit: 120, direction: 'at most', measure: () => benchNs('exits', 'getpid') },
  { what: 'PVM hypercall round trip', unit: 'us', limit: 1.5, direction: 'at most', measure: () => benchNs('exits', 'hypercall') / 1000 },
  { what: 'guest page fault, all levels present', unit: 'us', limit: 6, direction: 'at most', measure: () => benchNs('faults', 'page-fault') / 1000 },
  { what: 'process start to first guest instruction', unit: 's', limit: 1.5, direction: 'at most', measure: () => firstInstructionMs() / 1000 },
  { what: 'resident memory, 1 MiB program, 64 MiB RAM', unit: 'MiB', limit: 400, direction: 'at most', measure: residentMiB },
];
