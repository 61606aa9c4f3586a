import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { SystemGuest } from './guest.ts';
import { KERNEL_OPTIONS } from './peers.ts';
import { spentSince } from './session.ts';

const PROMPT = '/ # ';
const TIMEOUT_MS = 300_000;

/** From the start of the process to the prompt that answers a line sent to it, ms; processor time of the vCPU's thread and of all threads until then. */
export interface RestoreTime {
  readonly ms: number;
  readonly vcpuMs: number;
  readonly processMs: number;
}

/** Boots BusyBox' shell with the pvm at `root` and saves the machine at its first prompt. @throws Error with the end of the output when that fails */
export function saveShell(root: string, guest: SystemGuest, file: string, memoryMiB: number): void {
  const command = join(root, 'node_modules/.bin/pvm');
  const append = `${KERNEL_OPTIONS} quiet rdinit=/busybox -- sh`;
  const machine = ['--kernel', guest.kernel, '--initrd', guest.initrd, '--append', append, '-m', `${memoryMiB}M`];
  const { status, stdout, stderr } = spawnSync(command, ['run', ...machine, '--save', file, '--save-on', PROMPT, '--save-exit'], {
    encoding: 'utf8',
    input: '',
    timeout: TIMEOUT_MS,
  });
  if (status !== 0) throw new Error(`no snapshot of a shell, exit code ${status}: ${(stdout + stderr).slice(-1000)}`);
}

/** Restores the machine that `saveShell` has saved, sends it an empty line, and ends it at the prompt. @throws Error when none comes */
export function restoreShell(root: string, file: string): Promise<RestoreTime> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(join(root, 'node_modules/.bin/pvm'), ['run', '--restore', file], { stdio: ['pipe', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
    let output = '';
    let found: RestoreTime | undefined;
    child.stdin.write('\n');
    child.stderr.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (found !== undefined || !output.includes(PROMPT)) return;
      const spent = spentSince(new Map(), child.pid ?? 0);
      found = { ms: performance.now() - start, vcpuMs: spent.vcpuNs / 1e6, processMs: spent.processNs / 1e6 };
      child.kill('SIGTERM');
    });
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      if (found === undefined) reject(new Error(`no prompt after a restore: ${output.slice(-1000)}`));
      else resolve(found);
    });
  });
}
