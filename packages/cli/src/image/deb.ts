import { execFile, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { type TarEntry, tarEntries } from './tar.ts';

const AR_MAGIC = '!<arch>\n';
const MAX_ARCHIVE = 2 ** 31 - 1;

/** Members of an ar archive, as Debian packages have them (deb(5)). @throws Error */
export function arMembers(archive: Uint8Array): Map<string, Uint8Array> {
  const text = (at: number, length: number) => Buffer.from(archive.subarray(at, at + length)).toString('latin1');
  if (text(0, 8) !== AR_MAGIC) throw new Error('not a Debian package');
  const members = new Map<string, Uint8Array>();
  for (let at = 8; at + 60 <= archive.length; ) {
    const size = Number(text(at + 48, 10));
    const data = archive.subarray(at + 60, at + 60 + size);
    if (!(data.length === size)) throw new Error('the package is cut short');
    members.set(text(at, 16).trim().replace(/\/$/, ''), data);
    at += 60 + size + (size % 2);
  }
  return members;
}

/** Decompresses by the program for it; every distribution has both. @throws Error */
async function decompress(name: string, data: Uint8Array): Promise<Uint8Array> {
  const tool = name.endsWith('.xz') ? 'xz' : name.endsWith('.gz') ? 'gzip' : name.endsWith('.zst') ? 'zstd' : undefined;
  if (tool === undefined) return data;
  const child = spawn(tool, ['-dc'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const pieces: Uint8Array[] = [];
  child.stdout.on('data', (piece: Uint8Array) => pieces.push(piece));
  // A program that ends early says so by its exit code.
  child.stdin.on('error', () => undefined);
  child.stdin.end(data);
  await new Promise<void>((resolve, reject) => {
    child.once('error', () => reject(new Error(`${tool} is needed to unpack ${name}; install it`)));
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${tool} could not unpack ${name}`))));
  });
  return Buffer.concat(pieces);
}

/** An unpacked Debian package. */
export interface Deb {
  /** Its control file. */
  readonly control: string;
  readonly entries: readonly TarEntry[];
}

/** @throws Error when the file is no Debian package, or cannot be unpacked here */
export async function readDeb(path: string): Promise<Deb> {
  const members = arMembers(await readFile(path));
  const tar = async (kind: string): Promise<TarEntry[]> => {
    const member = [...members].find(([name]) => name.startsWith(`${kind}.tar`));
    if (member === undefined) throw new Error(`${path}: no ${kind} in the package`);
    return [...tarEntries(await decompress(member[0], member[1]))];
  };
  const control = (await tar('control')).find((entry) => entry.name === 'control');
  return { control: Buffer.from(control?.data ?? '').toString('utf8'), entries: await tar('data') };
}

/** Runs a program to its end and returns what it says. */
export async function output(program: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: MAX_ARCHIVE });
  return stdout;
}
