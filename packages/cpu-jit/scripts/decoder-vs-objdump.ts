/**
 * Compare the decoder with GNU objdump on random instructions: lengths, validity, and for 64-bit code the text.
 *
 *   node -C source scripts/decoder-vs-objdump.ts [instructions=100000] [seed=1] [codeSize=64] [samples.txt]
 *
 * With a file name, writes objdump's text of one instruction for each row and register/memory form: the tests' reference.
 * Prints the disagreements grouped by kind and mnemonic, a few examples each; exit status 1 when there are any that are not
 * listed below as differences of opinion.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CodeSize, decode, formatInsn, type Row, rows } from '../src/decoder/index.ts';

const [count = 100_000, seed = 1, size = 64] = process.argv.slice(2, 5).map(Number);
const samplesFile = process.argv[5];
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
    // Now and then W, L and VEX.vvvv as the row does not have them; in 16- and 32-bit code R and X set, or it would be LES or LDS.
    const right = random(8) !== 0;
    const w = right && row.w !== undefined ? row.w : random(2);
    const l = right && row.l !== undefined ? row.l : random(2);
    const vvvv = right && !row.operands.some((o) => /^[BH]/.test(o)) ? 15 : random(16);
    const rxb = codeSize === 64 ? random(8) : 6 | random(2);
    const last = (vvvv << 3) | (l << 2) | pp;
    if (map === 1 && random(2) === 0) bytes.push(0xc5, (codeSize === 64 ? random(2) << 7 : 0x80) | (codeSize === 64 ? last : last | 0x40));
    else bytes.push(0xc4, (rxb << 5) | map, (w << 7) | last);
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
const PREFIX_WORD = /^(?:rex(?:\.\w+)?|data16|data32|addr16|addr32|lock|repn?z?|rep|[cdefgs]s|bnd|notrack|xacquire|xrelease)(?: |$)/;

/** Instruction sets the tables do not have (AVX-512, VAES and other VEX extensions, XOP, 3DNow!, CET, RTM, AMD extras...). */
const ABSENT = new RegExp(
  `^(?:${[
    'vp(?:com|cmov|rot|sh[al][bwdq]|h(?:add|sub)(?:[bw][wdq]|u[bw][wdq]|dq|udq)|mac|madcs|perm$|ermil2|dp[bw])|vfrcz|vfn?m(?:add|sub)(?:add|sub)?[ps][sd]$|vgf2p8|k(?:mov|add|and|n|or|shift|test|unpck|x)',
    't(?:dp|ile|1mskc|zmsk|pause)|ldtilecfg|sttilecfg|pf[a-z]|pi2f|pf2i|pswapd|pmulhrw|femms|bnd|bl(?:ci|cf|cm|cs|sf|sic|cic)',
    'pavgusb|xbegin|xabort|xend|xtest|xsusldtrk|xresldtrk|enc|ptwrite|rdss?p|wrss|wruss|saveprev|rstorssp|setssbsy|clrssbsy|incssp',
    'clui|stui|testui|uiret|senduipi|movdir|enqcmd|cldemote|gf2p8|rdpru|mwaitx|monitorx|clzero|mcommit|pconfig|serialize|hreset|getsec',
    'wbnoinvd|umonitor|umwait|extrq|insertq|movnts[sd]|lwp|llwpcb|slwpcb|aes\\w*(?:wide|kl)|loadiwkey|psmash|pvalidate|rmp|tdcall|seam',
    'xstore|xcrypt|montmul|xsha|invlpgb|tlbsync|aadd|aand|aor|axor|cmp\\w+xadd|frstpm|prefetchit|r?sm?vt|svdc|rsdc|svldt|rsldt|svts|rsts|rdm|smint|dmint',
  ].join('|')})`,
);

/** VAES and VPCLMULQDQ on 256 bits, and everything AVX-512 (registers, masks, rounding). */
const WIDER = /^v(?:aes(?:enc|dec)\w*|pclmul\w*) ymm|zmm|[xy]mm(?:1[6-9]|2\d|3[01])|\{[a-z1]/;

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
      .replace(/^v?pclmul[lh]q[lh]qdq .*$/, 'pclmulqdq')
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

/** Encodings the SDM leaves out and processors execute. */
const UNDOCUMENTED: ReadonlySet<string> = new Set(
  'fstp1 fneni fstp_sti fcomp_sti fcom_sti fxch ffreep nop lfence mfence sfence wbinvd rdrand rdseed bsf bsr popcnt movbe vmmcall salc'.split(' '),
);
/** Rows where objdump prints another width of the same register or operand, or an immediate as a part of the name. */
const WIDTH_DIFFERS =
  /^v?(?:mov_seg_r|bswap|lar|lsl|movmskp[sd]|pmovmskb|pmovmskb_mmx|crc32|callf|jmpf|l[defgs]s|lddqu|invpcid|movq2dq|cmp[ps][sd]|pextrw.*|pinsr.*|lldt|ltr|verr|verw|lmsw|(?:rd|wr)[fg]sbase|movsxd|movdq2q|pclmulqdq)$/;

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

/** What objdump says of one address. */
interface Listed {
  readonly offset: number;
  readonly length: number;
  /** As printed, without comments; then its prefix words, and the rest normalised. */
  readonly whole: string;
  readonly prefixes: string;
  readonly text: string;
}

function parseLine(line: string): Listed | null {
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

/** What is wrong with our idea of an instruction, or null. */
function compare({ offset, length, whole, prefixes, text }: Listed): { kind: string; detail: string } | null {
  const insn = decode(code, offset, code.length - offset, codeSize);
  const theirName = text.split(' ')[0] ?? '';
  if (typeof insn === 'string') {
    if (text.includes('(bad)') || ABSENT.test(theirName) || WIDER.test(text)) return null;
    // Prefixes a row does not take, or before VEX; control and segment registers that do not exist.
    if (codeSize !== 64 && /^(?:(?:rd|wr)[fg]sbase|swapgs)/.test(text)) return null;
    if (insn === 'ud' && (/lock|rep|data|rex/.test(prefixes) || text.includes('?') || /\b(?:[cdt]r\d+|db\d+)$|^mov (?:cs|[cdt]r\d|db\d)/.test(text)))
      return null;
    // It does not look at VEX.vvvv of these two.
    if (/^vzero/.test(text)) return null;
    return { kind: `ours ${insn}, objdump ${theirName}`, detail: whole };
  }
  const { name } = insn.row;
  // FWAIT is shown as a part of the instruction after it.
  if (name === 'wait') return null;
  const ours = formatInsn(insn, BigInt(offset)).replace(/^(?:lock |repn?z |rep )/, '');
  // Outside 64-bit mode a three-byte VEX prefix has one bit of VEX.vvvv too many, which is ignored (SDM vol. 2, 2.3.5.6).
  if (text.includes('(bad)') && codeSize !== 64 && insn.row.vex === true) return null;
  if (text.includes('(bad)')) return UNDOCUMENTED.has(name) ? null : { kind: `objdump bad, ours ${name}`, detail: `${whole} | ${ours}` };
  if (insn.length !== length) return { kind: `length of ${name}`, detail: `${length}: ${whole} | ${insn.length}: ${ours}` };
  const moffs = insn.row.operands.some((o) => o.startsWith('O')) ? ours.replace(/\w+ PTR /, '') : ours;
  if (moffs === text || codeSize !== 64 || WIDTH_DIFFERS.test(name) || ABSENT.test(theirName)) return null;
  return { kind: `text of ${name}`, detail: `${whole} | ${ours}` };
}

/** Lines "address bytes text" by form, for the samples file. */
const samples = new Map<number, string>();
function sample({ offset, length, text }: Listed): void {
  const insn = decode(code, offset, code.length - offset, codeSize);
  if (typeof insn === 'string' || insn.length !== length || formatInsn(insn, BigInt(offset)).replace(/^(?:lock |repn?z |rep )/, '') !== text) return;
  const key = insn.rowIndex * 2 + (insn.isMem ? 1 : 0);
  const bytes = [...code.subarray(offset, offset + length)].map((b) => b.toString(16).padStart(2, '0')).join('');
  if (!samples.has(key)) samples.set(key, `${offset.toString(16)} ${bytes} ${text}`);
}

let compared = 0;
for (const line of listing.split('\n')) {
  const listed = parseLine(line);
  if (listed === null || listed.text === '' || listed.offset + 16 > code.length) continue;
  compared++;
  if (samplesFile !== undefined) sample(listed);
  const wrong = compare(listed);
  if (wrong === null) continue;
  const bytes = [...code.subarray(listed.offset, listed.offset + 15)].map((b) => b.toString(16).padStart(2, '0')).join(' ');
  report(wrong.kind, `${bytes} | ${wrong.detail}`);
}

if (samplesFile !== undefined) {
  const lines = [...samples].sort(([a], [b]) => a - b).map(([, line]) => `${line}\n`);
  writeFileSync(samplesFile, lines.join(''));
}
const sorted = [...disagreements].sort((a, b) => b[1].count - a[1].count);
for (const [kind, { count: n, examples }] of sorted) {
  process.stdout.write(`${n} x ${kind}\n`);
  for (const example of examples) process.stdout.write(`      ${example}\n`);
}
process.stdout.write(`${compared} instructions compared, ${sorted.reduce((sum, [, d]) => sum + d.count, 0)} disagreements\n`);
process.exitCode = sorted.length === 0 ? 0 : 1;
