/**
 * Compare the decoder with GNU objdump on random instructions: lengths, validity and text.
 *
 *   node -C source scripts/decoder-vs-objdump.ts [instructions=100000] [seed=1] [codeSize=64]
 *
 * Prints the disagreements grouped by kind and mnemonic, a few examples each; exit status 1 when there are any that are not
 * listed below as differences of opinion.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CodeSize, decode, formatInsn, type Row, rows } from '../src/decoder/index.ts';

const [count = 100_000, seed = 1, size = 64] = process.argv.slice(2).map(Number);
const codeSize = size as CodeSize;

/** Marsaglia's xorshift32: the same instructions for the same seed. */
let state = (seed * 0x9e37_79b9) | 1;
function random(below: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}

const LEGACY_PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3];
const MANDATORY = { np: [], '66': [0x66], f3: [0xf3], f2: [0xf2] } as const;
const ESCAPES = { '1': [], x87: [], '0f': [0x0f], '0f38': [0x0f, 0x38], '0f3a': [0x0f, 0x3a] } as const;

/** Bytes that start like an instruction of this row, followed by random ones. */
function instance(row: Row): number[] {
  const bytes: number[] = [];
  if (random(8) === 0) bytes.push(LEGACY_PREFIXES[random(LEGACY_PREFIXES.length)] ?? 0x66);
  if (row.lock && random(4) === 0) bytes.push(0xf0);
  if (row.vex) {
    const map = row.map === '0f38' ? 2 : row.map === '0f3a' ? 3 : 1;
    const pp = { np: 0, '66': 1, f3: 2, f2: 3 }[row.pfx ?? 'np'];
    bytes.push(0xc4, (random(8) << 5) | map, (random(2) << 7) | (random(16) << 3) | ((row.l ?? random(2)) << 2) | pp);
  } else {
    bytes.push(...MANDATORY[row.pfx ?? 'np']);
    if (codeSize === 64 && (row.w !== undefined || random(3) === 0)) bytes.push(0x40 | ((row.w ?? random(2)) << 3) | random(8));
    bytes.push(...ESCAPES[row.map]);
  }
  bytes.push(row.operands.some((o) => o.startsWith('Z')) ? row.op + random(8) : row.op);
  const mod = row.mod === 'reg' ? 3 : row.mod === 'mem' ? random(3) : random(4);
  bytes.push((mod << 6) | ((row.ext ?? random(8)) << 3) | (row.rm ?? random(8)));
  for (let i = random(12); i > 0; i--) bytes.push(random(256));
  return bytes;
}

const stream: number[] = [];
for (let i = 0; i < count; i++) {
  const row = rows[random(rows.length)];
  if (row !== undefined && random(10) !== 0) stream.push(...instance(row));
  else for (let n = 1 + random(15); n > 0; n--) stream.push(random(256));
}
const code = Uint8Array.from(stream);

const directory = mkdtempSync(join(tmpdir(), 'decoder-'));
const file = join(directory, 'code.bin');
writeFileSync(file, code);
const machine = codeSize === 64 ? 'i386:x86-64' : codeSize === 32 ? 'i386' : 'i8086';
const syntax = codeSize === 64 ? 'intel,intel64' : 'intel';
const listing = execFileSync('objdump', ['-D', '-w', '-b', 'binary', '-m', machine, '-M', syntax, file], { maxBuffer: 2 ** 31, encoding: 'latin1' });
rmSync(directory, { recursive: true });

/** Words objdump prints before the mnemonic. */
const PREFIX_WORD = /^(?:rex(?:\.\w+)?|data16|data32|addr16|addr32|lock|repn?z?|rep|[cdefgs]s|bnd|notrack|xacquire|xrelease|\{vex3?\})(?: |$)/;

/** Instruction sets the tables do not have (AVX and later, XOP, 3DNow!, CET, MPX, RTM, AMD extras...). */
const ABSENT =
  /^(?:v(?!m|err|erw)|k(?:mov|add|and|n|or|shift|test|unpck|x)|t(?:dp|ile|1mskc|zmsk|pause)|ldtilecfg|sttilecfg|pf[a-z]|pi2f|pf2i|pswapd|pmulhrw|femms|bnd|bl(?:ci|cf|cm|cs|s[fi]c|cic)|xbegin|xabort|xend|xtest|xsusldtrk|xresldtrk|enc|ptwrite|rds?sp|wrss|wruss|saveprev|rstorssp|setssbsy|clrssbsy|incssp|clui|stui|testui|uiret|senduipi|movdir|enqcmd|cldemote|gf2p8|rdpru|mwaitx|monitorx|clzero|mcommit|pconfig|serialize|hreset|getsec|wbnoinvd|umonitor|umwait|extrq|insertq|movnts[sd]|lwpval|lwpins|llwpcb|slwpcb|aes\w*wide|aes\w*kl|loadiwkey|sgx|enclu|encls|enclv|nop_|psmash|pvalidate|rmpadjust|rmpupdate|rmpquery|tdcall|seam|loadall|cl1invmb|xstore|xcrypt|montmul|xsha|montmul|ccs_|rdmsrlist|wrmsrlist|wrmsrns|invlpgb|tlbsync|prefetchrst2|prefetchit|cmp\w+xadd|aadd|aand|aor|axor|sysret_|smint|rdm|svts|svldt|rsldt|rsts|svdc|rsdc|dmint|bb0_|bb1_|altinst|invept_|cmpbexadd|vmgexit)/;

interface Disagreement {
  count: number;
  examples: string[];
}
const disagreements = new Map<string, Disagreement>();
function report(kind: string, detail: string): void {
  const entry = disagreements.get(kind) ?? { count: 0, examples: [] };
  entry.count++;
  if (entry.examples.length < 3) entry.examples.push(detail);
  disagreements.set(kind, entry);
}

/** Undo objdump's habits that say nothing about decoding. */
function normalise(text: string): string {
  return text
    .replace(/\s*[#<].*$/, '')
    .replace(/\{vex3?\} /, '')
    .replace(/\s+/g, ' ')
    .trim();
}

let compared = 0;
let agreed = 0;
for (const line of listing.split('\n')) {
  const match = /^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(.*)$/.exec(line);
  if (match === null) continue;
  const [, address = '', hex = '', rest = ''] = match;
  const offset = Number.parseInt(address, 16);
  let text = normalise(rest);
  const whole = text;
  let prefixes = '';
  for (let m = PREFIX_WORD.exec(text); m !== null; m = PREFIX_WORD.exec(text)) {
    prefixes += m[0];
    text = text.slice(m[0].length);
  }
  if (text === '' || offset + 16 > code.length) continue;
  compared++;
  const length = hex.split(' ').length;
  const insn = decode(code, offset, code.length - offset, codeSize);
  const shown = [...code.subarray(offset, offset + 15)].map((b) => b.toString(16).padStart(2, '0')).join(' ');
  const theirName = text.split(' ')[0] ?? '';
  if (text.includes('(bad)')) {
    if (typeof insn !== 'string') report(`objdump bad, ours ${insn.row.name}`, `${shown} | ${whole} | ${formatInsn(insn)}`);
    else agreed++;
  } else if (typeof insn === 'string') {
    if (ABSENT.test(theirName) || (insn === 'ud' && prefixes.includes('lock'))) agreed++;
    else report(`ours ${insn}, objdump ${theirName}`, `${shown} | ${whole}`);
  } else if (insn.length !== length) {
    report(`length of ${insn.row.name}`, `${shown} | ${length}: ${whole} | ${insn.length}: ${formatInsn(insn)}`);
  } else {
    const ours = formatInsn(insn, BigInt(offset)).replace(/^(?:lock |repn?z |rep )/, '');
    if (ours === text) agreed++;
    else report(`text of ${insn.row.name}`, `${shown} | ${whole} | ${ours}`);
  }
}

const sorted = [...disagreements].sort((a, b) => b[1].count - a[1].count);
for (const [kind, { count: n, examples }] of sorted) {
  process.stdout.write(`${n} x ${kind}\n`);
  for (const example of examples) process.stdout.write(`      ${example}\n`);
}
process.stdout.write(`${compared} instructions compared, ${agreed} agree\n`);
process.exitCode = sorted.length === 0 ? 0 : 1;
