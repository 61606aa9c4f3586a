import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
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

/** Nothing comes any more after so long. */
const STALL_MS = 60_000;
/** Errors of the host's files, which no other place would help against. */
const isLocal = (e: unknown): boolean => e instanceof Error && 'syscall' in e && (e.syscall === 'open' || e.syscall === 'write');

/** Codes of OpenSSL and Node for a server whose certificate is not trusted. */
const UNTRUSTED = /^(CERT_|ERR_TLS_CERT|SELF_SIGNED_|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_(GET_ISSUER_CERT|VERIFY_LEAF_SIGNATURE))/;
const isUntrusted = (e: unknown): boolean => e instanceof Error && e.cause instanceof Error && 'code' in e.cause && UNTRUSTED.test(String(e.cause.code));

/** What came is not the file. */
class WrongFile extends Error {}

/**
 * Fetches a file to `target`, which appears when it is complete and has the right checksum. What is there of an interrupted fetch is not fetched again.
 *
 * @param bases places where the file may be, in order
 * @param onBytes hears how many bytes have come; fewer than none when some have to be fetched again
 * @throws UsageError when none has it; errors of the file system as they are
 */
export async function fetchPinned(file: PinnedFile, bases: readonly string[], target: string, onBytes: (bytes: number) => void): Promise<void> {
  if ((await sizeOf(target)) === file.bytes && (await sha256(target)) === file.sha256) {
    onBytes(file.bytes);
    return;
  }
  const partial = `${target}.partial`;
  const problems: string[] = [];
  let advice = 'is there a network? What has been fetched is kept';
  for (const base of bases) {
    try {
      await fetchChecked(`${base}/${file.path}`, partial, file, onBytes);
      await rename(partial, target);
      return;
    } catch (e) {
      if (isLocal(e)) throw e;
      if (isUntrusted(e)) advice = 'behind a proxy with a certificate of its own, name its authority: NODE_EXTRA_CA_CERTS=ca.pem, or NODE_USE_SYSTEM_CA=1';
      if (e instanceof WrongFile) advice = 'a mirror that is right has it unchanged (pvm image get NAME --mirror URL)';
      problems.push(`${base}/${file.path}: ${describe(e)}`);
    }
  }
  throw new UsageError(`cannot be fetched: ${problems.join('; ')}; ${advice}`);
}

/** @throws WrongFile, and nothing is kept */
async function fetchChecked(url: string, partial: string, file: PinnedFile, onBytes: (bytes: number) => void): Promise<void> {
  let sum = '';
  // A part that an earlier run left may be what is wrong: then all of it is fetched again.
  for (let isRest = true; isRest; ) {
    isRest = await fetchTo(url, partial, file.bytes, onBytes);
    sum = await sha256(partial);
    if (sum === file.sha256) return;
    await rm(partial);
    onBytes(-file.bytes);
  }
  throw new WrongFile(`its SHA-256 is ${sum}, and should be ${file.sha256}`);
}

function describe(e: unknown): string {
  const cause = e instanceof Error && e.cause instanceof Error ? e.cause.message : '';
  return `${e instanceof Error ? e.message : String(e)}${cause === '' ? '' : ` (${cause})`}`;
}

/** @returns whether there was a part already, and the rest was appended */
async function fetchTo(url: string, path: string, total: number, onBytes: (bytes: number) => void): Promise<boolean> {
  let have = await sizeOf(path);
  if (have > total) have = 0;
  if (have === total) {
    onBytes(have);
    return true;
  }
  const stall = new AbortController();
  const timer = setTimeout(() => stall.abort(new Error(`nothing came for ${STALL_MS / 1000} s`)), STALL_MS);
  let got = 0;
  try {
    const response = await fetch(url, { signal: stall.signal, ...(have > 0 ? { headers: { range: `bytes=${have}-` } } : {}) });
    if (!response.ok || response.body === null) throw new Error(`HTTP ${response.status}`);
    const isRest = response.status === 206;
    got = isRest ? have : 0;
    onBytes(got);
    const counted = async function* (body: AsyncIterable<Uint8Array>) {
      for await (const piece of body) {
        timer.refresh();
        got += piece.length;
        onBytes(piece.length);
        if (got > total) throw new WrongFile(`it is longer than the ${total} bytes it should have`);
        yield piece;
      }
    };
    const body = Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]);
    await pipeline(body, counted, createWriteStream(path, { flags: isRest ? 'a' : 'w' }));
    if (got < total) throw new Error(`it ends after ${got} of ${total} bytes`);
    return isRest;
  } catch (e) {
    onBytes(-got);
    if (e instanceof WrongFile) await rm(path, { force: true });
    throw e;
  } finally {
    clearTimeout(timer);
  }
}
