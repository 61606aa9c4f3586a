/** What an entry is, by the letters of the format. */
export type TarType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'other';

export interface TarEntry {
  /** Path without leading `./` and `/`, and without an ending slash; empty: the root. */
  readonly name: string;
  readonly type: TarType;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Target of a link; a hard link's is a path like `name`. */
  readonly target: string;
  readonly data: Uint8Array;
}

const BLOCK = 512;
const TYPES: Readonly<Record<string, TarType>> = { '0': 'file', '\0': 'file', '5': 'directory', '2': 'symlink', '1': 'hardlink' };

/** The entries of a tar archive (POSIX.1-2001 ustar and pax, GNU long names). @throws Error when it is cut short or none */
export function* tarEntries(archive: Uint8Array): Generator<TarEntry, void> {
  const text = (at: number, length: number): string => {
    const bytes = archive.subarray(at, at + length);
    const end = bytes.indexOf(0);
    return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8');
  };
  let longName: string | undefined;
  let longTarget: string | undefined;
  for (let at = 0; at + BLOCK <= archive.length; ) {
    if (archive[at] === 0) return;
    if (text(at + 257, 5) !== 'ustar') throw new Error('not a tar archive');
    const number = (offset: number, length: number) => Number.parseInt(text(at + offset, length).trim() || '0', 8);
    const size = number(124, 12);
    const data = archive.subarray(at + BLOCK, at + BLOCK + size);
    if (!(data.length === size)) throw new Error('the tar archive is cut short');
    const flag = String.fromCharCode(archive[at + 156] ?? 0);
    const whole = () => Buffer.from(data).toString('utf8').replace(/\0.*$/s, '');
    if (flag === 'L') longName = whole();
    else if (flag === 'K') longTarget = whole();
    else if (flag === 'x') {
      const pax = Object.fromEntries([...whole().matchAll(/\d+ ([^=]+)=([^\n]*)\n/g)].map((m) => [m[1] ?? '', m[2] ?? '']));
      longName = pax['path'] ?? longName;
      longTarget = pax['linkpath'] ?? longTarget;
    } else if (flag !== 'g') {
      const prefix = text(at + 345, 155);
      const name = longName ?? (prefix === '' || archive[at + 263] === 0x20 ? text(at, 100) : `${prefix}/${text(at, 100)}`);
      const target = longTarget ?? text(at + 157, 100);
      const type = TYPES[flag] ?? 'other';
      yield {
        name: plain(name),
        type,
        mode: number(100, 8) & 0o7777,
        uid: number(108, 8),
        gid: number(116, 8),
        target: type === 'hardlink' ? plain(target) : target,
        data,
      };
      longName = undefined;
      longTarget = undefined;
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
}

function plain(path: string): string {
  return path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');
}
