// Runs the programs of programs/ natively, in pvm and on other emulators, in turns, and prints how much slower than native each is.
//   node -C source benchmarks/run.ts [--only name,...] [--peers native,pvm,...] [--repeat N] [--rounds N] [--json file] [--note text] [--kernel vmlinuz]
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { debianKernel } from '../tests/debian.ts';
import { buildWithLibrary, compilerVersion } from './src/build.ts';
import { describeMachine } from './src/machine.ts';
import { PEERS, type Peer, type Run, runOn, systemPeers } from './src/peers.ts';
import { GEOMETRIC_MEAN_GOAL, PROGRAMS, type Program } from './src/programs.ts';
import { geometricMean, median } from './src/statistics.ts';
import { formatTable } from './src/table.ts';

/** Result of one program on one peer. */
interface Cell {
  readonly steadyNs: number;
  readonly totalNs: number;
  /** Against native, of the same pass over the peers; medians. */
  readonly steadyRatio: number;
  readonly totalRatio: number;
  readonly checksumEqual: boolean;
  readonly tiers: Run['tiers'];
  /** Why there is no result; the numbers are NaN then. */
  readonly failure?: string;
}

interface Row {
  readonly name: string;
  readonly what: string;
  readonly goal: number | undefined;
  readonly core: boolean;
  readonly rounds: number;
  readonly peers: Record<string, Cell>;
}

function fail(message: string): never {
  console.error(`benchmarks: ${message}`);
  process.exit(2);
}

/** The entries of a comma-separated option, in the order of `known`; everything without the option. */
function chosen<T extends { readonly name: string }>(option: string | undefined, known: readonly T[], byDefault: (t: T) => boolean): readonly T[] {
  if (option === undefined) return known.filter(byDefault);
  const names = option.split(',');
  for (const n of names) if (!known.some((k) => k.name === n)) fail(`no "${n}"; there are ${known.map((k) => k.name).join(', ')}`);
  return known.filter((k) => names.includes(k.name));
}

const failed = (failure: string): Cell => ({ steadyNs: NaN, totalNs: NaN, steadyRatio: NaN, totalRatio: NaN, checksumEqual: false, tiers: undefined, failure });

/** All peers in turn, `repeat` times, so that a busy moment of the machine hits all of them alike. */
function measure(program: Program, path: string, peers: readonly Peer[], repeat: number, rounds: number): Row {
  const results = new Map<string, Run[]>(peers.map((p) => [p.name, []]));
  const failures = new Map<string, string>();
  for (let pass = 0; pass < repeat; pass++) {
    for (const peer of peers) {
      if (failures.has(peer.name)) continue;
      try {
        results.get(peer.name)?.push(runOn(peer, path, rounds));
      } catch (error) {
        if (peer.name === 'native') throw error;
        failures.set(peer.name, error instanceof Error ? error.message : String(error));
      }
    }
  }
  const native = results.get('native') ?? [];
  const cells: Record<string, Cell> = {};
  for (const peer of peers) {
    const failure = failures.get(peer.name);
    const runs = results.get(peer.name) ?? [];
    const ratio = (of: (r: Run) => number) => median(runs.map((r, i) => of(r) / of(native[i] ?? r)));
    cells[peer.name] =
      failure !== undefined
        ? failed(failure)
        : {
            steadyNs: median(runs.map((r) => r.steadyNs)),
            totalNs: median(runs.map((r) => r.totalNs)),
            steadyRatio: ratio((r) => r.steadyNs),
            totalRatio: ratio((r) => r.totalNs),
            checksumEqual: runs.every((r) => r.checksum === native[0]?.checksum),
            tiers: runs.at(-1)?.tiers,
          };
  }
  const { name, what, goal, core = false } = program;
  return { name, what, goal, core, rounds, peers: cells };
}

const digits = (n: number) => (n < 10 ? n.toFixed(2) : n.toFixed(0));
const showRatio = (c: Cell | undefined) =>
  c === undefined ? '' : c.failure !== undefined ? 'failed' : `${digits(c.steadyRatio)}${c.checksumEqual ? '' : ' WRONG'}`;
const percent = (part: number, whole: number) => (whole > 0 ? `${Math.round((part / whole) * 100)}%` : '');

function cellsOf(row: Row, others: readonly Peer[]): string[] {
  const ours = row.peers['pvm'];
  const t = ours?.tiers;
  return [
    row.name,
    row.what,
    digits((row.peers['native']?.steadyNs ?? NaN) / 1e6),
    row.goal === undefined ? '' : row.goal.toFixed(1),
    ...others.map((p) => showRatio(row.peers[p.name])),
    ours === undefined || ours.failure !== undefined ? '' : digits(ours.totalRatio),
    t === undefined ? '' : percent(t.interpreterMs, t.runMs),
    t === undefined ? '' : String(t.regions),
  ];
}

function meanRow(label: string, goal: string, rows: readonly Row[], others: readonly Peer[]): string[] {
  const mean = (peer: Peer, of: (c: Cell) => number) => {
    const values = rows.map((r) => r.peers[peer.name]).flatMap((c) => (c === undefined || c.failure !== undefined ? [] : [of(c)]));
    return values.length === rows.length && values.length > 0 ? digits(geometricMean(values)) : '';
  };
  const pvm = others.find((p) => p.name === 'pvm');
  return ['', label, '', goal, ...others.map((p) => mean(p, (c) => c.steadyRatio)), pvm === undefined ? '' : mean(pvm, (c) => c.totalRatio), '', ''];
}

/** The table of slowdowns; `pvm total` includes the time until hot code was compiled. */
function table(rows: readonly Row[], peers: readonly Peer[]): string {
  const others = peers.filter((p) => p.name !== 'native');
  const header = ['program', 'what', 'native ms', 'goal', ...others.map((p) => p.name), 'pvm total', 'interp.', 'regions'];
  const body = rows.map((r) => cellsOf(r, others));
  const core = rows.filter((r) => r.core);
  if (core.length > 1) body.push(meanRow('geometric mean of rows with a goal', GEOMETRIC_MEAN_GOAL.toFixed(1), core, others));
  const rest = rows.filter((r) => !r.core);
  if (rest.length > 1) body.push(meanRow('geometric mean of the others', '', rest, others));
  return formatTable(header, body);
}

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    peers: { type: 'string' },
    repeat: { type: 'string', default: '3' },
    rounds: { type: 'string' },
    json: { type: 'string' },
    note: { type: 'string' },
    kernel: { type: 'string' },
  },
});
const positive = (name: string, text: string) => {
  const n = Number(text);
  return Number.isInteger(n) && n > 0 ? n : fail(`--${name} is a positive number, got "${text}"`);
};
if (compilerVersion() === undefined) fail('needs gcc with static libraries (Debian: gcc libc6-dev) to build the programs');
const programs = chosen(values.only, PROGRAMS, () => true);
const isSystem = values.peers?.split(',').some((name) => name.endsWith('-system')) === true;
const kernel = isSystem ? (values.kernel ?? (await debianKernel('linux-image-cloud-amd64')) ?? fail('apt gave no Debian kernel; name one with --kernel')) : '';
const wanted = chosen(values.peers, [...PEERS, ...systemPeers(kernel)], (p) => ['native', 'pvm', 'qemu-user'].includes(p.name) && p.available());
const peers = wanted.some((p) => p.name === 'native') ? wanted : PEERS.filter((p) => p.name === 'native').concat(wanted);
for (const p of peers) if (!p.available()) fail(`${p.name} is not installed`);
const repeat = positive('repeat', values.repeat);
const rows: Row[] = [];
for (const program of programs) {
  const path = await buildWithLibrary(program);
  if (path === undefined) {
    console.error(`${program.name}: left out, apt cannot fetch ${program.library?.package}`);
    continue;
  }
  const row = measure(program, path, peers, repeat, values.rounds === undefined ? program.rounds : positive('rounds', values.rounds));
  rows.push(row);
  console.error(`${program.name}: ${peers.map((p) => `${p.name} ${showRatio(row.peers[p.name])}`).join(', ')}`);
  for (const [name, cell] of Object.entries(row.peers)) if (cell.failure !== undefined) console.error(`  ${name}: ${cell.failure}`);
}
console.log(table(rows, peers));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine: describeMachine(), note: values.note, repeat, rows }, undefined, 1)}\n`);
if (rows.some((r) => Object.entries(r.peers).some(([name, c]) => name.startsWith('pvm') && !c.checksumEqual))) process.exitCode = 1;
