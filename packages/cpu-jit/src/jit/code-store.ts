import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { threadId } from 'node:worker_threads';
import { CODE_CACHE_EXTENSION } from '../cpu-options.ts';
import { makeFolders } from '../make-folders.ts';
import type { StoredRegion } from './stored-region.ts';

/** Bytes of Wasm that one file holds at most. */
export const MAX_STORE_BYTES = 32 << 20;
/** Bytes of all files of a folder; the ones that were not used for longest go. */
const MAX_FOLDER_BYTES = 256 << 20;
/** A module that more runs in a row had no use for is dropped: kernels that are relocated at random leave many behind. */
const MAX_IDLE_RUNS = 2;
const MAGIC = Buffer.from('PVMCODE1');
const HASH_BYTES = 32;
const BODY = MAGIC.length + HASH_BYTES;

/** Compiled regions of a file. */
export interface StoreModule {
  readonly wasm: Uint8Array<ArrayBuffer>;
  readonly regions: readonly StoredRegion[];
  /** How many runs in a row had no use for it. */
  readonly idle: number;
}

/** A file that is none of ours, or damaged. */
export class DamagedStore extends Error {}

interface Header {
  readonly version: string;
  readonly modules: readonly {
    readonly wasm: number;
    readonly idle: number;
    readonly regions: readonly (Omit<StoredRegion, 'code'> & { readonly code: number })[];
  }[];
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();

/** What compiled code depends on beside the guest's: all modules of this package. */
export function compilerVersion(): string {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const hash = createHash('sha256');
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => /(?<!\.test|\.d)\.[jt]s$/.test(name));
  for (const name of files.sort()) hash.update(name).update(readFileSync(join(root, name)));
  return hash.digest('hex');
}

/**
 * The modules of `file`; none when there is no such file, or one of another version.
 *
 * @throws DamagedStore; errors of the file system
 */
export function readStore(file: string, version: string): StoreModule[] {
  let bytes: Buffer<ArrayBuffer>;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  const body = bytes.subarray(BODY);
  if (bytes.length < BODY + 4 || !bytes.subarray(0, MAGIC.length).equals(MAGIC) || !bytes.subarray(MAGIC.length, BODY).equals(sha256(body)))
    throw new DamagedStore('its checksum is wrong');
  let at = 4 + body.readUInt32LE(0);
  const header = JSON.parse(body.toString('utf8', 4, at)) as Header;
  if (header.version !== version) return [];
  const now = new Date();
  utimesSync(file, now, now);
  const take = (length: number) => {
    at += length;
    return new Uint8Array(body.subarray(at - length, at));
  };
  return header.modules.map(({ wasm, idle, regions }) => ({ wasm: take(wasm), idle, regions: regions.map((r) => ({ ...r, code: take(r.code) })) }));
}

/** Writes `modules`, as many as there may be, those that were used first; a reader sees the old file or the new one. */
export function writeStore(file: string, version: string, modules: readonly StoreModule[]): void {
  const kept: StoreModule[] = [];
  let total = 0;
  for (const m of modules.filter(({ idle, regions }) => idle <= MAX_IDLE_RUNS && regions.length > 0).sort((a, b) => a.idle - b.idle)) {
    if (total + m.wasm.length > MAX_STORE_BYTES) break;
    total += m.wasm.length;
    kept.push(m);
  }
  const header: Header = {
    version,
    modules: kept.map(({ wasm, idle, regions }) => ({ wasm: wasm.length, idle, regions: regions.map((r) => ({ ...r, code: r.code.length })) })),
  };
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  const body = Buffer.concat([length, json, ...kept.flatMap(({ wasm, regions }) => [wasm, ...regions.map((r) => r.code)])]);
  const folder = dirname(file);
  makeFolders(folder);
  const temporary = `${file}.${process.pid}-${threadId}`;
  try {
    writeFileSync(temporary, Buffer.concat([MAGIC, sha256(body), body]));
    renameSync(temporary, file);
  } finally {
    rmSync(temporary, { force: true });
  }
  prune(folder, file);
}

/** Removes the files that were used least lately, until the rest is small enough; never `kept`. */
function prune(folder: string, kept: string): void {
  const files = readdirSync(folder)
    .filter((name) => name.endsWith(CODE_CACHE_EXTENSION))
    .map((name) => join(folder, name))
    .flatMap((path) => {
      const stat = statSync(path, { throwIfNoEntry: false });
      return stat === undefined ? [] : [{ path, size: stat.size, used: stat.mtimeMs }];
    })
    .sort((a, b) => a.used - b.used);
  let total = files.reduce((sum, { size }) => sum + size, 0);
  for (const { path, size } of files) {
    if (total <= MAX_FOLDER_BYTES) return;
    if (path === kept) continue;
    rmSync(path, { force: true });
    total -= size;
  }
}
