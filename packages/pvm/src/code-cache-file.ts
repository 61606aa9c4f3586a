import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
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

/** Of a file; that there is none is for those to say who load it. */
function contents(path: string): Uint8Array | string {
  try {
    return readFileSync(path);
  } catch {
    return path;
  }
}
