import { spawn } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { UsageError } from '../errors.ts';
import { output } from './deb.ts';

/** How far a download is, 0 to 1. */
export type OnProgress = (part: number) => void;

const PATIENCE = ['-o', 'Acquire::Retries=2', '-o', 'Acquire::http::Timeout=30', '-o', 'Debug::NoLocking=1'];

/** Runs apt-get; its own report of progress (APT::Status-Fd) goes to `onProgress`. @throws Error with apt's last error line */
async function apt(args: readonly string[], cwd: string, onProgress?: OnProgress): Promise<void> {
  const child = spawn('apt-get', ['-o', 'APT::Status-Fd=3', ...args], { cwd, stdio: ['ignore', 'ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-4096);
  });
  const status = child.stdio[3] as Readable;
  status.setEncoding('utf8').on('data', (text: string) => {
    // dlstatus:ITEM:PERCENT:MESSAGE
    const percent = [...text.matchAll(/^dlstatus:\d+:([\d.]+):/gm)].at(-1)?.[1];
    if (percent !== undefined) onProgress?.(Number(percent) / 100);
  });
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(/^E: (.*)$/m.exec(errors)?.[1] ?? `apt-get ended with ${code}`))));
  });
}

/** Where a Debian host's package manager is asked. */
export class AptSource {
  private readonly folder: string;
  private lists: readonly string[] = [];

  /** @param folder keeps downloads; apt goes on with one that was interrupted, and checks it against its signed lists */
  constructor(folder: string) {
    this.folder = folder;
  }

  /** Whether this host has apt with Debian's archive for amd64. */
  static async isHere(): Promise<boolean> {
    try {
      const [architecture, policy] = await Promise.all([output('dpkg', ['--print-architecture']), output('apt-get', ['--version'])]);
      return architecture.trim() === 'amd64' && policy !== '' && /^ID=debian$/m.test(await output('cat', ['/etc/os-release']));
    } catch {
      return false;
    }
  }

  /** Fetches packages and all they depend on. @returns the archives. @throws UsageError */
  async install(packages: readonly string[], onProgress: OnProgress): Promise<string[]> {
    const archives = join(this.folder, 'archives');
    await mkdir(join(archives, 'partial'), { recursive: true });
    const status = join(this.folder, 'status');
    // No package counts as installed, so all that are needed are fetched.
    await writeFile(status, '');
    await this.withLists((lists) =>
      apt(
        [
          ...PATIENCE,
          ...lists,
          '-o',
          `Dir::State::status=${status}`,
          '-o',
          `Dir::Cache::archives=${archives}`,
          '-o',
          'APT::Sandbox::User=',
          '-y',
          '--no-install-recommends',
          '--download-only',
          'install',
          ...packages,
        ],
        this.folder,
        onProgress,
      ),
    );
    return (await readdir(archives)).filter((file) => file.endsWith('.deb')).map((file) => join(archives, file));
  }

  /** Fetches the package that a meta package stands for. @returns the archive */
  async dependency(meta: string, pattern: RegExp, onProgress: OnProgress): Promise<string> {
    const folder = join(this.folder, meta);
    await mkdir(folder, { recursive: true });
    await this.withLists(async (lists) => {
      const name = pattern.exec(await output('apt-cache', [...lists, 'depends', meta]))?.[1];
      if (name === undefined) throw new Error(`${meta} depends on nothing like ${pattern}`);
      await apt([...PATIENCE, ...lists, '-o', 'APT::Sandbox::User=', 'download', name], folder, onProgress);
    });
    const file = (await readdir(folder))
      .filter((name) => name.endsWith('.deb'))
      .sort()
      .at(-1);
    if (file === undefined) throw new UsageError(`apt-get downloaded nothing for ${meta}`);
    return join(folder, file);
  }

  /** With the system's package lists and, where they are not there, with our own. */
  private async withLists(work: (options: readonly string[]) => Promise<void>): Promise<void> {
    try {
      await work(this.lists);
      return;
    } catch (e) {
      if (this.lists.length > 0) throw explained(e);
    }
    const state = join(this.folder, 'state');
    await mkdir(join(state, 'lists/partial'), { recursive: true });
    this.lists = ['-o', `Dir::State=${state}`, '-o', 'Dir::State::status=/var/lib/dpkg/status'];
    try {
      await apt([...PATIENCE, ...this.lists, '-o', 'APT::Sandbox::User=', 'update'], this.folder);
      await work(this.lists);
    } catch (e) {
      throw explained(e);
    }
  }
}

function explained(e: unknown): UsageError {
  return new UsageError(`the packages cannot be fetched: ${e instanceof Error ? e.message : String(e)}; is there a network?`);
}
