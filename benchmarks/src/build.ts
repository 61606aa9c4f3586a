import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { debianPackage } from '../../tests/debian.ts';
import type { Program } from './programs.ts';

const SOURCES = join(import.meta.dirname, '../programs');
const LINUX_SOURCES = join(import.meta.dirname, '../linux');
const FLAGS = ['-O2', '-static', '-std=gnu17'];

/** First line of `gcc --version`; undefined when there is no gcc. */
export function compilerVersion(): string | undefined {
  const r = spawnSync('gcc', ['--version'], { encoding: 'utf8' });
  return r.status === 0 ? r.stdout.split('\n', 1)[0] : undefined;
}

/** Path of the executable of `programs/<name>.c`, built unless the same source was built before. Throws when gcc fails. */
export function buildProgram(name: string): string {
  return build(name, join(SOURCES, `${name}.c`), [join(SOURCES, 'bench.h')], []);
}

/** The same for a program that needs a library; undefined when its package cannot be had here. */
export async function buildWithLibrary({ name, library }: Pick<Program, 'name' | 'library'>): Promise<string | undefined> {
  if (library === undefined) return buildProgram(name);
  const files = await debianPackage(library.package);
  if (files === undefined) return undefined;
  const include = join(files, 'usr/include', library.include ?? '');
  const options = [`-I${include}`, `-I${join(files, 'usr/include/x86_64-linux-gnu')}`, `-L${join(files, 'usr/lib/x86_64-linux-gnu')}`, `-l${library.name}`];
  return build(name, join(SOURCES, `${name}.c`), [join(SOURCES, 'bench.h')], options);
}

/** The same for `linux/<name>.c`, which runs as the first process of a stock kernel. */
export function buildLinuxProgram(name: string): string {
  return build(`linux-${name}`, join(LINUX_SOURCES, `${name}.c`), [], []);
}

function build(name: string, source: string, headers: readonly string[], options: readonly string[]): string {
  const hash = createHash('sha256').update([...FLAGS, ...options].join(' '));
  for (const file of [...headers, source]) hash.update(readFileSync(file));
  const directory = join(tmpdir(), 'pvm-benchmarks');
  mkdirSync(directory, { recursive: true });
  const out = join(directory, `${name}-${hash.digest('hex').slice(0, 12)}`);
  if (!existsSync(out)) {
    const partial = `${out}.${process.pid}`;
    execFileSync('gcc', [...FLAGS, '-o', partial, source, ...options, '-lm'], { stdio: 'inherit' });
    renameSync(partial, out);
  }
  return out;
}
