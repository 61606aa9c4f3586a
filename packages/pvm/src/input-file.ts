import { constants, openSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { addAbortSignal } from 'node:stream';
import { fileProblem } from '@pvm/machine';
import { PvmError } from './errors.ts';

/** As much as Node reads of a file at once. */
const MAX_BYTES = 2 ** 31;

/**
 * All bytes of a file, or of a pipe, which may have no writer yet.
 *
 * @param name how messages call it
 * @param signal ends waiting for the writer of a pipe
 * @throws PvmError `unreadable-file`; the reason of `signal`
 */
export async function readInputFile(path: string | URL, name: string, signal?: AbortSignal): Promise<Uint8Array> {
  try {
    const target = await stat(path);
    // Some never end.
    if (target.isCharacterDevice()) throw new PvmError('unreadable-file', `${name}: is a device; expected a file`);
    return target.isFIFO() ? await readPipe(path, name, signal) : await readFile(path);
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof PvmError) throw cause;
    throw new PvmError('unreadable-file', `${name}: ${fileProblem(cause)}`, { cause });
  }
}

/** Node's threads for files would wait for the writer where nothing can end them, not even the end of the process. */
async function readPipe(path: string | URL, name: string, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const socket = new Socket({ fd: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK), writable: false });
  if (signal !== undefined) addAbortSignal(signal, socket);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of socket as AsyncIterable<Uint8Array>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > MAX_BYTES) throw new PvmError('unreadable-file', `${name}: has more than 2 GiB`);
  }
  return Buffer.concat(chunks);
}
