import { readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileProblem, makeFolders } from '@pvm/pvm';
import { UsageError } from '../errors.ts';

/** What is known of a stored image. */
export interface StoredImage {
  readonly name: string;
  /** One line for people. */
  readonly title: string;
  readonly kernel: string;
  readonly initrd: string;
  readonly append: string;
  readonly memory: string;
  readonly bytes: number;
}

/** Folder of this program in the user's cache (XDG Base Directory Specification). */
export function cacheFolder(): string {
  const base = process.env['XDG_CACHE_HOME'];
  return join(base?.startsWith('/') === true ? base : join(homedir(), '.cache'), 'pvm', 'images');
}

const MANIFEST = 'image.json';

/** @throws UsageError */
function makeFolder(path: string): void {
  try {
    makeFolders(path);
  } catch (e) {
    throw new UsageError(`the folder ${path} cannot be made: ${fileProblem(e)}; XDG_CACHE_HOME may name another place`);
  }
}

/** @returns undefined: it is not there, or not complete */
export async function storedImage(name: string): Promise<StoredImage | undefined> {
  const folder = join(cacheFolder(), name);
  let text: string;
  try {
    text = await readFile(join(folder, MANIFEST), 'utf8');
  } catch (e) {
    if (e instanceof Error && 'code' in e && e.code === 'ENOENT') return undefined;
    throw e;
  }
  const manifest = JSON.parse(text) as Omit<StoredImage, 'name' | 'bytes'>;
  const files = { kernel: join(folder, manifest.kernel), initrd: join(folder, manifest.initrd) };
  const sizes = await Promise.all(Object.values(files).map(async (file) => (await stat(file)).size));
  return { ...manifest, ...files, name, bytes: sizes.reduce((a, b) => a + b, 0) };
}

/** Names of what is stored. */
export async function storedImages(): Promise<string[]> {
  const names = await readdir(cacheFolder()).catch(() => []);
  return names.filter((name) => !name.startsWith('.')).sort();
}

/** Calls `build` with a new folder and puts it in place when it is complete. `build` returns what its manifest says; paths are relative. */
export async function storeImage(name: string, build: (folder: string) => Promise<Omit<StoredImage, 'name' | 'bytes'>>): Promise<void> {
  const { writeFile } = await import('node:fs/promises');
  const folder = join(cacheFolder(), name);
  const work = join(cacheFolder(), `.${name}-${process.pid}`);
  makeFolder(work);
  try {
    await writeFile(join(work, MANIFEST), `${JSON.stringify(await build(work), null, 2)}\n`);
    await rm(folder, { recursive: true, force: true });
    await rename(work, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Downloads that are kept until the image is complete, so that an interrupted one goes on. */
export function downloadFolder(name: string): string {
  const folder = join(cacheFolder(), `.downloads-${name}`);
  makeFolder(folder);
  return folder;
}

/** @returns whether there was something */
export async function removeImage(name: string): Promise<boolean> {
  const there = (await storedImages()).includes(name);
  for (const folder of [name, `.downloads-${name}`]) await rm(join(cacheFolder(), folder), { recursive: true, force: true });
  return there;
}
