// Debian's kernels and BusyBox for tests: fetched by apt as any user, once, kept in node_modules. Without apt or its archive there are none.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { buildCpio } from '../packages/machine/src/index.ts';

const cache = join(import.meta.dirname, '../node_modules/.pvm-cache/debian');
/** After a failure nobody tries again for so long. */
const RETRY_MS = 10 * 60_000;
const unavailable = join(cache, 'unavailable');

/** apt with lists and caches of our own, for users who may not write the system's, or machines that have none. */
const ownState = ['-o', `Dir::State=${join(cache, 'state')}`, '-o', 'Dir::State::status=/var/lib/dpkg/status', '-o', `Dir::Cache=${join(cache, 'archives')}`];
const patience = ['-o', 'Acquire::Retries=1', '-o', 'Acquire::http::Timeout=20'];

async function apt(tool: 'apt-get' | 'apt-cache', args: readonly string[], cwd = cache): Promise<string> {
  const { stdout } = await promisify(execFile)(tool, args, { cwd, timeout: 300_000 });
  return stdout;
}

/** Runs `work` with the system's package lists and, where that fails, with lists fetched into the cache; undefined when both fail. */
async function withLists<T>(work: (options: readonly string[]) => Promise<T>): Promise<T | undefined> {
  mkdirSync(cache, { recursive: true });
  if (existsSync(unavailable) && Date.now() - statSync(unavailable).mtimeMs < RETRY_MS) return undefined;
  try {
    return await work(patience);
  } catch {
    // The second attempt says what is wrong.
  }
  try {
    const options = [...patience, ...ownState];
    for (const folder of ['state/lists/partial', 'archives/archives/partial']) mkdirSync(join(cache, folder), { recursive: true });
    await apt('apt-get', [...options, 'update']);
    return await work(options);
  } catch (error) {
    const reason = String(error).split('\n')[0] ?? '';
    writeFileSync(unavailable, `${reason}\n`);
    console.warn(`tests that need Debian packages are skipped: ${reason}`);
    return undefined;
  }
}

/** The folder with the files of a Debian package; undefined when it cannot be had here. Safe in several processes at once. */
export async function debianPackage(name: string): Promise<string | undefined> {
  const target = join(cache, name);
  if (existsSync(target)) return target;
  return withLists(async (options) => {
    const work = mkdtempSync(join(cache, 'fetching-'));
    try {
      await apt('apt-get', [...options, 'download', name], work);
      const archive = readdirSync(work).find((file) => file.endsWith('.deb'));
      if (archive === undefined) throw new Error(`apt-get downloaded nothing for ${name}`);
      await promisify(execFile)('dpkg-deb', ['-x', join(work, archive), join(work, 'files')]);
      try {
        renameSync(join(work, 'files'), target);
      } catch (error) {
        // Another process may have been faster.
        if (!existsSync(target)) throw error;
      }
      return target;
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  });
}

/** The kernel image of a meta package such as `linux-image-cloud-amd64`; undefined when it cannot be had here. */
export async function debianKernel(meta: string): Promise<string | undefined> {
  const known = join(cache, `${meta}.name`);
  if (!existsSync(known)) {
    const depends = await withLists((options) => apt('apt-cache', [...options, 'depends', meta]));
    if (depends === undefined) return undefined;
    const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    if (name === undefined) throw new Error(`${meta} depends on no kernel: ${depends}`);
    writeFileSync(known, name);
  }
  const files = await debianPackage(readFileSync(known, 'utf8'));
  if (files === undefined) return undefined;
  const image = readdirSync(join(files, 'boot')).find((name) => name.startsWith('vmlinuz-'));
  if (image === undefined) throw new Error(`${meta}: no kernel in the package`);
  return join(files, 'boot', image);
}

/** A RAM disk with BusyBox and `init`, the text of a shell script; undefined when BusyBox cannot be had here. */
export async function busyboxInitrd(init: string): Promise<Uint8Array | undefined> {
  const files = await debianPackage('busybox-static');
  if (files === undefined) return undefined;
  return buildCpio([
    { name: 'init', data: new TextEncoder().encode(init), mode: 0o755 },
    { name: 'busybox', data: new Uint8Array(readFileSync(join(files, 'bin/busybox'))), mode: 0o755 },
  ]);
}
