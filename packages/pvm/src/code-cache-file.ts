import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { CODE_CACHE_EXTENSION } from '@pvm/cpu-jit';
import type { CheckedOptions } from './options.ts';

/** The file of the folder `codeCache` for a guest: its program, or else its kernel, by content, and its processor level. */
export function codeCacheFile(codeCache: string, { program, kernel, cpu }: Pick<CheckedOptions, 'program' | 'kernel' | 'cpu'>): string {
  const hash = createHash('sha256');
  const guest = program.length > 0 ? program : kernel;
  hash.update(typeof guest === 'string' ? contents(guest) : (guest ?? ''));
  return join(codeCache, `${hash.digest('hex').slice(0, 32)}-${cpu}${CODE_CACHE_EXTENSION}`);
}

/** Of a file; what else it may be is for those to say who load it, and a pipe is for them alone. */
function contents(path: string): Uint8Array | string {
  try {
    return statSync(path).isFile() ? readFileSync(path) : path;
  } catch {
    return path;
  }
}
