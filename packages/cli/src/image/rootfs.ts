import type { CpioEntry } from '@pvm/pvm';
import type { TarEntry } from './tar.ts';

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
/** Directories that are links into /usr (Debian's merged /usr); packages still use the old names. */
const MERGED = ['bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32'];

/** A root file system in memory, made from packages and a few files of our own; nothing is written to the host's. */
export class RootFs {
  private readonly nodes = new Map<string, CpioEntry>();

  constructor() {
    for (const name of MERGED) this.symlink(name, `usr/${name}`);
  }

  /** Adds what of a package `wants` takes. Links and names that lead out are only names: nothing is resolved on the host. */
  unpack(entries: Iterable<TarEntry>, wants: (name: string) => boolean): void {
    for (const entry of entries) {
      const name = merged(entry.name);
      if (name === '' || name.split('/').includes('..') || !wants(name)) continue;
      const { mode, uid, gid } = entry;
      if (entry.type === 'directory') this.directory(name, mode, uid, gid);
      else if (entry.type === 'symlink') this.put({ name, mode: S_IFLNK | 0o777, data: Buffer.from(entry.target), uid, gid });
      else if (entry.type === 'file') this.put({ name, mode: S_IFREG | mode, data: entry.data, uid, gid });
      else if (entry.type === 'hardlink') {
        const original = this.nodes.get(merged(entry.target));
        if (original !== undefined) this.put({ ...original, name });
      }
    }
  }

  file(name: string, contents: string | Uint8Array, mode = 0o644): void {
    this.put({ name, mode: S_IFREG | mode, data: typeof contents === 'string' ? Buffer.from(contents) : contents });
  }

  symlink(name: string, target: string): void {
    this.put({ name, mode: S_IFLNK | 0o777, data: Buffer.from(target) });
  }

  directory(name: string, mode = 0o755, uid = 0, gid = 0): void {
    // A merged directory stays the link that it is.
    if (MERGED.includes(name)) return;
    this.parents(name);
    this.nodes.set(name, { name, mode: S_IFDIR | mode, data: new Uint8Array(0), uid, gid });
  }

  has(name: string): boolean {
    return this.nodes.has(name);
  }

  read(name: string): Uint8Array | undefined {
    return this.nodes.get(name)?.data;
  }

  names(): Iterable<string> {
    return this.nodes.keys();
  }

  /** Directories before what is in them. */
  entries(): CpioEntry[] {
    return [...this.nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  private put(entry: CpioEntry): void {
    this.parents(entry.name);
    this.nodes.set(entry.name, entry);
  }

  private parents(name: string): void {
    for (let at = name.indexOf('/'); at > 0; at = name.indexOf('/', at + 1)) {
      const parent = name.slice(0, at);
      if (!this.nodes.has(parent)) this.nodes.set(parent, { name: parent, mode: S_IFDIR | 0o755, data: new Uint8Array(0) });
    }
  }
}

function merged(name: string): string {
  const top = name.split('/', 1)[0] ?? '';
  return MERGED.includes(top) && name !== top ? `usr/${name}` : name;
}
