/** GNU objdump: running it over raw code, reading what it prints. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CodeSize } from '../../src/decoder/index.ts';

const MACHINE = { 16: 'i8086', 32: 'i386', 64: 'i386:x86-64' } as const;

/** Lines objdump prints for `code` from address 0 on. Throws when it is not installed. */
export function disassemble(code: Uint8Array, codeSize: CodeSize): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'decoder-'));
  try {
    const file = join(directory, 'code.bin');
    writeFileSync(file, code);
    const syntax = codeSize === 64 ? 'intel,intel64' : 'intel';
    return execFileSync('objdump', ['-D', '-w', '-z', '-b', 'binary', '-m', MACHINE[codeSize], '-M', syntax, file], {
      maxBuffer: 2 ** 30,
      encoding: 'latin1',
    }).split('\n');
  } finally {
    rmSync(directory, { recursive: true });
  }
}
export const objdumpVersion = (): string => execFileSync('objdump', ['--version'], { encoding: 'latin1' }).split('\n')[0] ?? '';

/** Words objdump prints before the mnemonic. */
const PREFIX_WORD = /^(?:rex(?:\.\w+)?|data16|data32|addr16|addr32|lock|repn?z?|rep|[cdefgs]s|bnd|notrack|xacquire|xrelease)(?: |$)/;

/** Undo objdump's habits that say nothing about decoding. */
function normalise(text: string): string {
  return (
    text
      .replace(/^movabs /, 'mov ')
      .replace(/^vmgexit/, 'vmmcall')
      .replace(/^(vmovs[sd]) ymm/, '$1 xmm')
      .replace(/^(pushw|popw|v?pcmpestr[im]q|frstorw|fldenvw|fnstenvw|fnsavew) /, (name) => `${name.slice(0, -2)} `)
      .replace(/^prefetch(?:wt1)? /, 'prefetchw ')
      .replace(/^fn(?:eni|disi)\(8087 only\)|^fnsetpm\(287 only\)/, 'fnop')
      .replace(/^(movs|cmps|stos|lods|scas|ins|outs) .*?([BWDQ])\w+ PTR.*$/, (_, name: string, size: string) => name + size.toLowerCase())
      .replace(/^xlat .*$/, 'xlat')
      .replace(/^xchg (?:ax,ax|rax,rax)$/, 'nop')
      .replace(/^(v?)pclmul[lh]q[lh]qdq( .*)?$/, '$1pclmulqdq$2')
      // An index of none that SIB spells out.
      .replace(/\+[er]iz\*\d/, '')
      .replace(/([c-gs]s:)?\[([er])iz\*\d\+?(-?)0x([0-9a-f]+)\]/, (_, segment: string | undefined, width: string, sign: string, disp: string) => {
        const offset = BigInt.asUintN(width === 'r' ? 64 : 32, BigInt(`0x${disp}`) * (sign === '-' ? -1n : 1n));
        return `${segment ?? 'ds:'}0x${offset.toString(16)}`;
      })
      // Displacements that could be shorter.
      .replace(/([er]ip)\+0xf{8}([89a-f][0-9a-f]{7})/, (_, base: string, low: string) => `${base}-0x${(2 ** 32 - Number.parseInt(low, 16)).toString(16)}`)
      .replace(/\+0x0\]/, ']')
      .replace('OWORD', 'XMMWORD')
      .trim()
  );
}

/** What objdump says of one address. */
export interface Listed {
  readonly offset: number;
  readonly length: number;
  /** As printed, without comments; then its prefix words, and the rest normalised. */
  readonly whole: string;
  readonly prefixes: string;
  readonly text: string;
}

/** null: no instruction. */
export function parseLine(line: string): Listed | null {
  const match = /^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(.*)$/.exec(line);
  if (match === null) return null;
  const [, address = '', hex = '', rest = ''] = match;
  const whole = rest
    .replace(/\s*[#<].*$/, '')
    .replace(/\{vex3?\} /, '')
    .replace(/\s+/g, ' ')
    .trim();
  let text = whole;
  for (let m = PREFIX_WORD.exec(text); m !== null; m = PREFIX_WORD.exec(text)) text = text.slice(m[0].length);
  const prefixes = whole.slice(0, whole.length - text.length);
  return { offset: Number.parseInt(address, 16), length: hex.split(' ').length, whole, prefixes, text: normalise(text) };
}
