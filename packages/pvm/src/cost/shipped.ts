import { readFile } from 'node:fs/promises';
import { PvmError } from '../errors.ts';
import { nearest } from '../option-checks.ts';
import { type CostProfile, parseCostProfile } from './cost-profile.ts';
import type { PublishedFigures } from './published.ts';

/** Profiles that come with the package. */
export const PROFILE_NAMES = ['sosp23'] as const;
const FOLDER = new URL('../../profiles/', import.meta.url);

/**
 * A profile by its name, or from a file (a word with a dot or a slash in it is a file).
 *
 * @throws PvmError `bad-profile`: no such name, unreadable, or not a profile
 */
export async function loadCostProfile(nameOrFile: string): Promise<CostProfile> {
  const isShipped = (PROFILE_NAMES as readonly string[]).includes(nameOrFile);
  if (!isShipped && !/[./\\]/.test(nameOrFile)) {
    const known = `did you mean ${nearest(nameOrFile, PROFILE_NAMES)}? A file is given as a path: ./${nameOrFile}.json`;
    throw new PvmError('bad-profile', `no cost profile "${nameOrFile}"; ${known}`);
  }
  const path = isShipped ? new URL(`${nameOrFile}.json`, FOLDER) : nameOrFile;
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    const reason = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT' ? 'no such file' : String(cause);
    throw new PvmError('bad-profile', `cost profile ${nameOrFile}: ${reason}`, { cause });
  }
  return parseCostProfile(text, nameOrFile);
}

/** The figures of the paper that sosp23 comes from and that benchmarks are held against. */
export async function publishedFigures(): Promise<PublishedFigures> {
  return JSON.parse(await readFile(new URL('sosp23-figures.json', FOLDER), 'utf8')) as PublishedFigures;
}
