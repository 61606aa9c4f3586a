import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Boot, SystemPeer } from './peers.ts';

/** What /init printed for one row, in the guest's time, and how long the host saw it take. */
export interface GuestRow {
  readonly steadyNs: number;
  readonly totalNs: number;
  readonly operations: number;
  readonly hostNs: number;
}

/** One machine from the start of its process to its end. */
export interface Session {
  /** From the start of the process to the first line of /init, and to the first character of the console, ms. */
  readonly initMs: number;
  readonly consoleMs: number;
  /** Processor time of the whole process until /init's first line, ms. */
  readonly initCpuMs: number;
  readonly rows: ReadonlyMap<string, GuestRow>;
  /** Most of the process's memory that was ever resident, MiB. */
  readonly peakRssMiB: number;
}

const TIMEOUT_MS = 900_000;
const SYSTEM_TICK_MS = 10;

/** utime and stime, proc(5); NaN when the process has gone. */
function cpuMs(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * SYSTEM_TICK_MS;
  } catch {
    return Number.NaN;
  }
}

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
  const marks = { init: Number.NaN, console: Number.NaN, initCpu: Number.NaN, began: Number.NaN, rss: Number.NaN, done: false };
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
      marks.initCpu = cpuMs(pid);
    } else if (word === 'begin') marks.began = now;
    else if (word === 'row') {
      const [steadyNs = Number.NaN, totalNs = Number.NaN, operations = Number.NaN] = numbers.map(Number);
      rows.set(name, { steadyNs, totalNs, operations, hostNs: (now - marks.began) * 1e6 });
    } else if (word === 'done') {
      marks.done = true;
      marks.rss = peakRssMiB(pid);
    }
  }
  await ended;
  clearTimeout(timer);
  if (!marks.done) throw new Error(`${peer.name} did not finish: ${tail.slice(-12).join('\n')}`);
  return { initMs: marks.init, consoleMs: marks.console, initCpuMs: marks.initCpu, rows, peakRssMiB: marks.rss };
}
