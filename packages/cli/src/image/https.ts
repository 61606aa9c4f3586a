import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { rename, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { UsageError } from '../errors.ts';

/** A file of the net, known by its checksum. */
export interface PinnedFile {
  /** Path below each of the places where it may be. */
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

/**
 * Fetches a file to `target`, which appears when it is complete and has the right checksum. What is there of an interrupted fetch is not fetched again.
 *
 * @param bases places where the file may be, in order
 * @throws UsageError when none has it
 */
export async function fetchPinned(file: PinnedFile, bases: readonly string[], target: string, onBytes: (bytes: number) => void): Promise<void> {
  if ((await sizeOf(target)) === file.bytes && (await sha256(target)) === file.sha256) {
    onBytes(file.bytes);
    return;
  }
  const partial = `${target}.partial`;
  let problem = 'nobody has it';
  for (const base of bases) {
    try {
      await fetchTo(`${base}/${file.path}`, partial, file.bytes, onBytes);
      const sum = await sha256(partial);
      if (sum !== file.sha256) {
        await rename(partial, `${partial}.bad`);
        throw new Error(`its SHA-256 is ${sum}, not ${file.sha256}`);
      }
      await rename(partial, target);
      return;
    } catch (e) {
      const cause = e instanceof Error && e.cause instanceof Error ? e.cause.message : '';
      problem = `${base}/${file.path}: ${e instanceof Error ? e.message : String(e)}${cause === '' ? '' : ` (${cause})`}`;
    }
  }
  throw new UsageError(`cannot be fetched: ${problem}; is there a network?`);
}

async function fetchTo(url: string, path: string, total: number, onBytes: (bytes: number) => void): Promise<void> {
  let have = await sizeOf(path);
  if (have >= total) have = 0;
  const response = await fetch(url, have > 0 ? { headers: { range: `bytes=${have}-` } } : {});
  if (!response.ok || response.body === null) throw new Error(`HTTP ${response.status}`);
  const isRest = response.status === 206;
  onBytes(isRest ? have : 0);
  const body = Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]);
  body.on('data', (piece: Uint8Array) => onBytes(piece.length));
  await pipeline(body, createWriteStream(path, { flags: isRest ? 'a' : 'w' }));
}
