// Boots the same Debian kernel in pvm and in QEMU (-accel tcg), in turns, and compares the time to the first line of /init, operations inside the guest, and memory.
//   node -C source benchmarks/system.ts [--only boot,getpid,...] [--peers pvm,qemu-system,...] [--passes N] [--scale 0.1] [--kernel vmlinuz] [--baseline CHECKOUT] [--pvm-options "--code-cache DIR"] [--json file] [--note text]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { compilerVersion } from './src/build.ts';
import { describeMachine } from './src/machine.ts';
import { median } from './src/statistics.ts';
import { prepareGuest, type SystemGuest } from './src/system/guest.ts';
import { pvmPeer, qemuPeer, type SystemPeer } from './src/system/peers.ts';
import { type RestoreTime, restoreShell, saveShell } from './src/system/restore.ts';
import { DISK_GOAL_MB_S, MEMORY_GOAL_MIB, RESTORE_GOAL_MS, ROWS, type SystemRow, UNIT_NS, wordOf } from './src/system/rows.ts';
import { runSession, type Session } from './src/system/session.ts';
import { formatTable } from './src/table.ts';

const MEMORY_MIB = 512;
const BOOT_GOAL = 2;
/** The last thing a session does: so much is touched at once, and what the process then has resident is its peak. */
const FILL_MIB = 320;
const BIG = { memoryMiB: 3072, fillMiB: 2560 };

function fail(message: string): never {
  console.error(`benchmarks: ${message}`);
  process.exit(2);
}

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    peers: { type: 'string', default: 'pvm,qemu-system' },
    passes: { type: 'string', default: '3' },
    scale: { type: 'string', default: '1' },
    kernel: { type: 'string' },
    baseline: { type: 'string' },
    'pvm-options': { type: 'string', default: '' },
    json: { type: 'string' },
    note: { type: 'string' },
  },
});
if (compilerVersion() === undefined) fail('needs gcc with static libraries (Debian: gcc libc6-dev) to build /init');
const passes = Number(values.passes);
if (!Number.isInteger(passes) || passes < 1) fail(`--passes is a positive number, got "${values.passes}"`);

const scale = Number(values.scale);
if (!(scale > 0)) fail(`--scale is a positive number, got "${values.scale}"`);

const options = values['pvm-options'].split(' ').filter((word) => word !== '');
const known: readonly SystemPeer[] = [
  pvmPeer('pvm', join(import.meta.dirname, '..'), options),
  ...(values.baseline === undefined ? [] : [pvmPeer('baseline', resolve(values.baseline), [])]),
  qemuPeer('qemu-system', undefined),
  qemuPeer('qemu-system-max', 'max'),
];
const wantedPeers = values.baseline === undefined ? values.peers.split(',') : [...values.peers.split(','), 'baseline'];
for (const name of wantedPeers) if (!known.some((p) => p.name === name)) fail(`no peer "${name}"; there are ${known.map((p) => p.name).join(', ')}`);
const peers = known.filter((p) => wantedPeers.includes(p.name));
for (const p of peers) if (!p.available()) fail(`${p.name} is not installed`);

const names = ['boot', ...ROWS.map((r) => r.name), 'memory', 'big', 'restore'];
const only = values.only?.split(',') ?? names;
for (const name of only) if (!names.includes(name)) fail(`no row "${name}"; there are ${names.join(', ')}`);

/** Median over the passes, by peer. */
interface Result {
  readonly row: string;
  readonly what: string;
  readonly unit: string;
  readonly goal: number | undefined;
  readonly of: Readonly<Record<string, number>>;
  /** Median of the ratios to the last peer, QEMU, of the same pass. */
  readonly ratio: Readonly<Record<string, number>>;
}

function summarise(row: string, what: string, unit: string, goal: number | undefined, of: (s: Session) => number): Result {
  const last = sessions.get(peers.at(-1)?.name ?? '') ?? [];
  const values = (list: readonly Session[]) => list.map(of);
  return {
    row,
    what,
    unit,
    goal,
    of: Object.fromEntries([...sessions].map(([name, list]) => [name, median(values(list))])),
    ratio: Object.fromEntries([...sessions].map(([name, list]) => [name, median(list.map((s, i) => of(s) / of(last[i] ?? s)))])),
  };
}

function rowResult(row: SystemRow): Result {
  const time = (s: Session) => {
    const got = s.rows.get(row.name);
    return got === undefined ? Number.NaN : (row.whole ? got.totalNs / got.operations : got.steadyNs) / UNIT_NS[row.unit];
  };
  return summarise(row.name, row.what, row.unit, row.goal, time);
}

/** The same in processor time of the vCPU's thread, the whole row. */
function processorResult(row: SystemRow): Result {
  const time = (s: Session) => {
    const got = s.rows.get(row.name);
    return got === undefined ? Number.NaN : got.vcpuNs / got.operations / UNIT_NS[row.unit];
  };
  return summarise(`${row.name}: vCPU`, 'processor time of its thread, the whole row', row.unit, undefined, time);
}

/** How far the guest's clock is from the host's, at worst, in rows that last long enough to tell. */
function clockError(list: readonly Session[]): number {
  const errors = list.flatMap((s) => [...s.rows.values()].filter((r) => r.totalNs > 1e9).map((r) => Math.abs(r.totalNs / r.hostNs - 1)));
  return errors.length === 0 ? 0 : Math.max(...errors);
}

const sessions = new Map<string, Session[]>(peers.map((p) => [p.name, []]));
const load = loadavg()[0] ?? Number.NaN;

async function measure(guest: SystemGuest): Promise<void> {
  const rows = ROWS.filter((r) => only.includes(r.name)).map((r) => wordOf(r, scale));
  const words = only.includes('memory') ? [...rows, `fill:${FILL_MIB}`] : rows;
  for (let pass = 0; pass < passes; pass++) {
    for (const peer of peers) {
      const session = await runSession(peer, { guest, memoryMiB: MEMORY_MIB, words });
      sessions.get(peer.name)?.push(session);
      console.error(
        `pass ${pass + 1} ${peer.name}: init after ${session.initMs.toFixed(0)} ms (${session.initVcpuMs.toFixed(0)} ms of the vCPU's thread, ${session.initProcessMs.toFixed(0)} of all)${[...session.rows].map(([n, r]) => `, ${n} ${r.steadyNs.toFixed(0)}`).join('')}`,
      );
    }
  }
}

async function bigMemory(guest: SystemGuest): Promise<Record<string, string>> {
  const results: Record<string, string> = {};
  for (const peer of peers.filter((p) => p.name === 'pvm')) {
    const session = await runSession(peer, { guest, memoryMiB: BIG.memoryMiB, words: [`fill:${BIG.fillMiB}`] });
    results[peer.name] = `${session.rows.get('fill')?.operations} MiB written and read again, ${session.peakRssMiB.toFixed(0)} MiB resident`;
  }
  return results;
}

/** A machine of this checkout that was saved at the prompt of its shell. */
async function measureRestore(guest: SystemGuest, directory: string): Promise<RestoreTime> {
  const root = join(import.meta.dirname, '..');
  const file = join(directory, 'shell.snapshot');
  saveShell(root, guest, file, MEMORY_MIB);
  const times: RestoreTime[] = [];
  for (let pass = 0; pass < Math.max(3, passes); pass++) times.push(await restoreShell(root, file));
  const of = (key: keyof RestoreTime) => median(times.map((t) => t[key]));
  return { ms: of('ms'), vcpuMs: of('vcpuMs'), processMs: of('processMs') };
}

const directory = mkdtempSync(join(tmpdir(), 'pvm-system-'));
try {
  const guest = await prepareGuest(directory, values.kernel).catch((error: unknown) => fail(error instanceof Error ? error.message : String(error)));
  if (only.some((name) => name !== 'big' && name !== 'restore')) await measure(guest);
  const results: Result[] = [];
  if (only.includes('boot')) {
    results.push(summarise('boot', 'process start to first line of /init', 'ms', BOOT_GOAL, (s) => s.initMs));
    results.push(summarise('boot: vCPU', 'processor time of its thread until then', 'ms', undefined, (s) => s.initVcpuMs));
    results.push(summarise('boot: process', 'and of the whole process', 'ms', undefined, (s) => s.initProcessMs));
    results.push(summarise('console', 'process start to first character of the console', 'ms', undefined, (s) => s.consoleMs));
  }
  for (const row of ROWS.filter((r) => only.includes(r.name))) results.push(rowResult(row), processorResult(row));
  if (only.includes('memory'))
    results.push(summarise('memory', `peak resident set; the guest touched ${FILL_MIB} MiB and more`, 'MiB', undefined, (s) => s.peakRssMiB));
  const big = only.includes('big') ? await bigMemory(guest) : undefined;
  const restore = only.includes('restore') ? await measureRestore(guest, directory) : undefined;

  const digits = (n: number | undefined) => (n === undefined || Number.isNaN(n) ? '' : n < 10 ? n.toFixed(2) : n.toFixed(0));
  const others = peers.slice(0, -1);
  const reference = peers.at(-1)?.name ?? '';
  const header = ['row', 'what', 'unit', ...peers.map((p) => p.name), ...others.map((p) => `${p.name} / ${reference}`), 'goal'];
  const table = results.map((r) => [
    r.row,
    r.what,
    r.unit,
    ...peers.map((p) => digits(r.of[p.name])),
    ...others.map((p) => digits(r.ratio[p.name])),
    r.goal === undefined ? '' : r.goal.toFixed(1),
  ]);
  console.log(formatTable(header, table));
  const disk = results.find((r) => r.row === 'disk');
  if (disk !== undefined)
    console.log(`disk: ${peers.map((p) => `${p.name} ${((1 << 20) / (disk.of[p.name] ?? Number.NaN)).toFixed(0)} MB/s`).join(', ')}; goal ${DISK_GOAL_MB_S}`);
  if (only.includes('memory')) console.log(`memory: goal ${FILL_MIB} + ${MEMORY_GOAL_MIB} MiB and what the guest's kernel and files take`);
  if (big !== undefined) console.log(`-m 3G: ${JSON.stringify(big)}`);
  if (restore !== undefined) {
    const of = `${restore.vcpuMs.toFixed(0)} ms of the vCPU's thread, ${restore.processMs.toFixed(0)} ms of all`;
    console.log(`restore of a machine with a shell to its prompt: ${restore.ms.toFixed(0)} ms (${of}); goal ${RESTORE_GOAL_MS} ms`);
  }
  const clockErrors = Object.fromEntries([...sessions].map(([name, list]) => [name, clockError(list)]));
  console.log(
    `guest clocks against the host's, at worst: ${Object.entries(clockErrors)
      .map(([n, e]) => `${n} ${(e * 100).toFixed(1)} %`)
      .join(', ')}`,
  );
  const passesOf = Object.fromEntries([...sessions].map(([name, list]) => [name, list.map((s) => ({ ...s, rows: Object.fromEntries(s.rows) }))]));
  if (values.json !== undefined)
    writeFileSync(
      values.json,
      `${JSON.stringify({ machine: describeMachine(), load, note: values.note, results, big, restore, clockErrors, passes: passesOf }, undefined, 1)}\n`,
    );
} finally {
  rmSync(directory, { recursive: true });
}
