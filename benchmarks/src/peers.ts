import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { buildCpio } from '../../packages/machine/src/index.ts';
import { buildLinuxProgram } from './build.ts';

/** What one run of a program gave. */
export interface Run {
  readonly checksum: string;
  /** Median round of the second half, ns. */
  readonly steadyNs: number;
  /** All rounds, ns. */
  readonly totalNs: number;
  /** Ours only: where the time went. */
  readonly tiers: Tiers | undefined;
}

/** Parts of a run, from the summary of `pvm run --json`. */
export interface Tiers {
  readonly instructions: number;
  readonly runMs: number;
  readonly interpreterMs: number;
  readonly compiledMs: number;
  readonly hypervisorMs: number;
  readonly compileMs: number;
  readonly compileStallMs: number;
  readonly regions: number;
  readonly regionInstructions: number;
  readonly jumpCacheMisses: number;
  readonly tlbMisses: number;
}

/** Something that runs a static Linux program. */
export interface Peer {
  readonly name: string;
  available(): boolean;
  /** Command line for a program and its arguments. */
  command(program: string, args: readonly string[]): readonly string[];
}

const CLI = join(import.meta.dirname, '../../packages/cli/bin/pvm.mjs');
const GUEST_MEMORY = '256M';
/** With the kernel's own needs. */
const SYSTEM_MEMORY = '512M';
const TIMEOUT_MS = 600_000;

const runs = (...command: string[]): boolean => {
  const [file = '', ...args] = command;
  return spawnSync(file, args, { stdio: 'ignore' }).status === 0;
};

const pvm = (name: string, ...options: string[]): Peer => ({
  name,
  available: () => true,
  command: (program, args) => [process.execPath, CLI, 'run', '--json', '-m', GUEST_MEMORY, ...options, program, ...args],
});

export const PEERS: readonly Peer[] = [
  { name: 'native', available: () => true, command: (program, args) => [program, ...args] },
  pvm('pvm'),
  pvm('pvm-sync', '--jit', 'sync'),
  pvm('pvm-interpreter', '--jit', 'off'),
  { name: 'qemu-user', available: () => runs('qemu-x86_64', '--version'), command: (program, args) => ['qemu-x86_64', program, ...args] },
];

/** A RAM disk whose /init runs `program` once. */
function initrdOf(program: string): string {
  const directory = join(tmpdir(), 'pvm-benchmarks');
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `${basename(program)}.initrd`);
  const files = { init: buildLinuxProgram('once'), program };
  writeFileSync(path, buildCpio(Object.entries(files).map(([name, file]) => ({ name, data: readFileSync(file), mode: 0o755 }))));
  return path;
}

const linux = (args: readonly string[]): string => ['console=ttyS0 quiet mitigations=off panic=-1 --', ...args].join(' ');

/** Whole machines that run the program in a stock kernel: ours and QEMU's, which translates (TCG). */
export function systemPeers(kernel: string): readonly Peer[] {
  return [
    {
      name: 'pvm-system',
      available: () => true,
      command: (program, args) => [
        ...[process.execPath, CLI, 'run', '--kernel', kernel, '--initrd', initrdOf(program), '--append', linux(args)],
        ...['-m', SYSTEM_MEMORY, '--no-reboot'],
      ],
    },
    {
      name: 'qemu-system',
      available: () => runs('qemu-system-x86_64', '--version'),
      command: (program, args) => [
        ...['qemu-system-x86_64', '-accel', 'tcg', '-kernel', kernel, '-initrd', initrdOf(program), '-append', linux(args)],
        ...['-m', SYSTEM_MEMORY, '-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-nic', 'none', '-no-reboot'],
      ],
    },
  ];
}

function field(text: string, name: string, pattern: string): string {
  const value = new RegExp(`^${name} (${pattern})\\r?$`, 'm').exec(text)?.[1];
  if (value === undefined) throw new Error(`the program's output has no line "${name}"`);
  return value;
}

function tiersOf(summary: Record<string, unknown>): Tiers {
  const jit = (summary['jit'] ?? {}) as Record<string, unknown>;
  const number = (from: Record<string, unknown>, key: string) => Number(from[key] ?? 0);
  return {
    instructions: number(summary, 'instructions'),
    runMs: number(summary, 'runMs'),
    interpreterMs: number(summary, 'interpreterMs'),
    compiledMs: number(summary, 'compiledMs'),
    hypervisorMs: number(summary, 'hypervisorMs'),
    compileMs: number(summary, 'compileMs'),
    compileStallMs: number(summary, 'compileStallMs'),
    regions: number(jit, 'regions'),
    regionInstructions: number(jit, 'instructions'),
    jumpCacheMisses: number(jit, 'jumpCacheMisses'),
    tlbMisses: number(summary, 'tlbMisses'),
  };
}

/** Runs a program on a peer. Throws Error with its output when it fails or does not print what a benchmark prints. */
export function runOn(peer: Peer, program: string, rounds: number): Run {
  const [file = '', ...args] = peer.command(program, [String(rounds)]);
  const r = spawnSync(file, args, { encoding: 'utf8', timeout: TIMEOUT_MS, maxBuffer: 1 << 26 });
  if (r.error !== undefined) throw r.error;
  if (r.status !== 0) throw new Error(`exit ${r.status ?? r.signal}: ${(r.stderr + r.stdout).slice(-600)}`);
  const json = /^\{.*\}$/m.exec(r.stderr)?.[0] ?? /^\{.*\}$/m.exec(r.stdout)?.[0];
  return {
    checksum: field(r.stdout, 'checksum', '[0-9a-f]{16}'),
    steadyNs: Number(field(r.stdout, 'steady_ns', '\\d+')),
    totalNs: Number(field(r.stdout, 'total_ns', '\\d+')),
    tiers: json === undefined ? undefined : tiersOf(JSON.parse(json) as Record<string, unknown>),
  };
}
