import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Boot, SystemPeer } from './peers.ts';

/** What /init printed for one row, in the guest's time, and how long the host saw it take. */
export interface GuestRow {
  readonly steadyNs: number;
  readonly totalNs: number;
  readonly operations: number;
  readonly hostNs: number;
  /** Processor time of the busiest thread, which runs the guest, and of the whole process. Other load disturbs it less than time. */
  readonly vcpuNs: number;
  readonly processNs: number;
}

/** One machine from the start of its process to its end. */
export interface Session {
  /** From the start of the process to the first line of /init, and to the first character of the console, ms. */
  readonly initMs: number;
  readonly consoleMs: number;
  /** Processor time of the busiest thread, and of the whole process, until /init's first line, ms. */
  readonly initVcpuMs: number;
  readonly initProcessMs: number;
  readonly rows: ReadonlyMap<string, GuestRow>;
  /** Most of the process's memory that was ever resident, MiB. */
  readonly peakRssMiB: number;
}

const TIMEOUT_MS = 900_000;

/** Processor time of each thread, ns (first field of schedstat); empty when the process has gone. */
function threadTimes(pid: number): ReadonlyMap<string, number> {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return new Map(threads.map((tid) => [tid, Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ', 1)[0])]));
  } catch {
    return new Map();
  }
}

/** Since `before`: of the thread that took most, and of all. */
export function spentSince(before: ReadonlyMap<string, number>, pid: number): { readonly vcpuNs: number; readonly processNs: number } {
  const spent = [...threadTimes(pid)].map(([tid, ns]) => ns - (before.get(tid) ?? 0));
  return { vcpuNs: Math.max(0, ...spent), processNs: spent.reduce((sum, ns) => sum + ns, 0) };
}

/** NaN when the process has gone: one that waits to be reaped has no memory. */
function peakRssMiB(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** Boots `boot` on `peer` and takes the time of its lines as they arrive. @throws Error with the end of the console when the guest does not say that it is done */
export async function runSession(peer: SystemPeer, boot: Boot): Promise<Session> {
  const [file = '', ...args] = peer.command(boot);
  const start = performance.now();
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
  const pid = child.pid ?? 0;
  const marks = { init: Number.NaN, console: Number.NaN, vcpu: Number.NaN, process: Number.NaN, began: Number.NaN, rss: Number.NaN, done: false };
  let before: ReadonlyMap<string, number> = new Map();
  const rows = new Map<string, GuestRow>();
  const tail: string[] = [];
  child.stderr.on('data', (chunk: Buffer) => tail.push(chunk.toString()));
  child.stdout.once('data', () => {
    marks.console = performance.now() - start;
  });
  const ended = new Promise<void>((resolve, reject) => child.once('error', reject).once('close', () => resolve()));
  for await (const text of createInterface({ input: child.stdout })) {
    const now = performance.now();
    const [word, name = '', ...numbers] = text.trim().split(' ');
    tail.push(text);
    if (word === 'init' && Number.isNaN(marks.init)) {
      marks.init = now - start;
      const spent = spentSince(before, pid);
      marks.vcpu = spent.vcpuNs / 1e6;
      marks.process = spent.processNs / 1e6;
    } else if (word === 'begin') {
      marks.began = now;
      before = threadTimes(pid);
    } else if (word === 'row') {
      const [steadyNs = Number.NaN, totalNs = Number.NaN, operations = Number.NaN] = numbers.map(Number);
      rows.set(name, { steadyNs, totalNs, operations, hostNs: (now - marks.began) * 1e6, ...spentSince(before, pid) });
      marks.rss = peakRssMiB(pid);
    } else if (word === 'done') {
      marks.done = true;
    }
  }
  await ended;
  clearTimeout(timer);
  if (!marks.done) throw new Error(`${peer.name} did not finish: ${tail.slice(-12).join('\n')}`);
  return { initMs: marks.init, consoleMs: marks.console, initVcpuMs: marks.vcpu, initProcessMs: marks.process, rows, peakRssMiB: marks.rss };
}
