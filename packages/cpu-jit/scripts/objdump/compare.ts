/** Does objdump read an instruction as the decoder does, and if not, is there a reason? */
import { type CodeSize, decode, formatInsn } from '../../src/decoder/index.ts';
import type { Listed } from './listing.ts';

/** Why the two may differ. */
export const REASONS = {
  'other instruction sets':
    'objdump knows instructions the tables do not have: AVX-512, VAES, AMX, XOP, 3DNow!, CET, RTM, Key Locker, VIA PadLock, ... Ours: #UD',
  'modes of instructions': 'RDFSBASE, SWAPGS and their like exist in 64-bit code only; objdump shows them everywhere. Ours: #UD',
  prefixes:
    'LOCK where it is not allowed, or F2, F3, 66 before an instruction that must not have them: objdump prints the prefix as a word before it. Ours: #UD, as processors',
  hints: 'hint NOPs (0F 18..1F) that later instruction sets use (MPX, CLDEMOTE, CET, PREFETCHI), and WBNOINVD, which is WBINVD without that set',
  'unused VEX.vvvv': 'objdump does not look at it for VZEROUPPER and VZEROALL. Ours: #UD, as processors',
  registers: 'control, debug and segment registers that do not exist; objdump prints a number or "?". Ours: #UD',
  FWAIT: 'objdump shows FWAIT as a part of the x87 instruction after it',
  undocumented: 'encodings the SDM leaves out and processors execute; objdump: (bad)',
  'operand spelling': 'lengths and mnemonics agree; objdump prints another width of the same register or operand',
} as const;
export type Reason = keyof typeof REASONS;

export type Verdict = 'agree' | { readonly reason: Reason } | { readonly kind: string; readonly detail: string };

/** Instruction sets the tables do not have (AVX-512, VAES and other VEX extensions, XOP, 3DNow!, CET, RTM, AMD extras...). */
const ABSENT = new RegExp(
  `^(?:${[
    'vp(?:madd52|com|cmov|rot|sh[al][bwdq]|h(?:add|sub)(?:[bw][wdq]|u[bw][wdq]|dq|udq)|mac|madcs|perm$|ermil2|dp[bw])|vfrcz|vfn?m(?:add|sub)(?:add|sub)?[ps][sd]$|vgf2p8|k(?:mov|add|and|n|or|shift|test|unpck|x)',
    't(?:dp|ile|1mskc|zmsk|pause)|ldtilecfg|sttilecfg|pf[a-z]|pi2f|pf2i|pavgusb|pswapd|pmulhrw|femms|bnd|bl(?:ci|cf|cm|cs|sf|sic|cic)',
    'xbegin|xabort|xend|xtest|xsusldtrk|xresldtrk|enc|ptwrite|rdss?p|wrss|wruss|saveprev|rstorssp|setssbsy|clrssbsy|incssp',
    'clui|stui|testui|uiret|senduipi|movdir|enqcmd|cldemote|gf2p8|rdpru|mwaitx|monitorx|clzero|mcommit|pconfig|serialize|hreset|getsec',
    'wbnoinvd|umonitor|umwait|extrq|insertq|movnts[sd]|lwp|llwpcb|slwpcb|aes\\w*(?:wide|kl)|loadiwkey|psmash|pvalidate|rmp|tdcall|seam',
    'xstore|xcrypt|montmul|xsha|invlpgb|tlbsync|aadd|aand|aor|axor|cmp\\w+xadd|frstpm|prefetchit|r?sm?vt|svdc|rsdc|svldt|rsldt|svts|rsts|rdm|smint|dmint',
  ].join('|')})`,
);

/** VAES and VPCLMULQDQ on 256 bits, and everything AVX-512 (registers, masks, rounding). */
const WIDER = /^v(?:aes(?:enc|dec)\w*|pclmul\w*) ymm|zmm|[xy]mm(?:1[6-9]|2\d|3[01])|\{[a-z1]/;

/** Encodings the SDM leaves out and processors execute. */
const UNDOCUMENTED: ReadonlySet<string> = new Set(
  'fstp1 fneni fstp_sti fcomp_sti fcom_sti fxch ffreep nop lfence mfence sfence wbinvd rdrand rdseed bsf bsr popcnt movbe vmmcall salc'.split(' '),
);
/** Rows where objdump prints another width of the same register or operand, or an immediate as a part of the name. */
const WIDTH_DIFFERS =
  /^v?(?:mov_seg_r|bswap|lar|lsl|movmskp[sd]|pmovmskb|pmovmskb_mmx|crc32|callf|jmpf|l[defgs]s|lddqu|invpcid|movq2dq|cmp[ps][sd]|pextrw.*|pinsr.*|lldt|ltr|verr|verw|lmsw|(?:rd|wr)[fg]sbase|movsxd|movdq2q|pclmulqdq)$/;

/** Our text, without the prefixes that objdump may print in other places. */
export const textOf = (code: Uint8Array, offset: number, codeSize: CodeSize): string => {
  const insn = decode(code, offset, code.length - offset, codeSize);
  return typeof insn === 'string' ? insn : formatInsn(insn, BigInt(offset)).replace(/^(?:lock |repn?z |rep )/, '');
};

const firstWord = (text: string): string => text.split(' ', 1)[0] ?? '';

/** Mnemonics that objdump tells apart by operand size where 64-bit syntax does not. */
const SUFFIXED =
  /^(push|pop|pusha|popa|pushf|popf|call|jmp|ret|retf|iret|enter|leave|lgdt|lidt|sgdt|sidt|sysret|sysexit|fnsave|frstor|fnstenv|fldenv|j[a-z]*cxz|loop\w*)[wdlq]?$/;

/** Mnemonic without what tells operand sizes or predicates. */
const spelled = (word: string, codeSize: CodeSize): string => {
  const plain = word.replace(/^(v?)cmp(?:(?:eq|lt|le|unord|neq|nlt|nle|ord|nge|ngt|ge|gt|false|true)(?:_(?:[ou]q|[ou]?s|uq))?)([ps][sd])$/, '$1cmp$2');
  return codeSize === 64 ? plain : plain.replace(SUFFIXED, '$1');
};

export function compare({ offset, length, whole, prefixes, text }: Listed, code: Uint8Array, codeSize: CodeSize): Verdict {
  const insn = decode(code, offset, code.length - offset, codeSize);
  const theirs = firstWord(text);
  if (typeof insn === 'string') {
    if (text.includes('(bad)')) return 'agree';
    if (ABSENT.test(theirs) || WIDER.test(text)) return { reason: 'other instruction sets' };
    if (codeSize !== 64 && /^(?:(?:rd|wr)[fg]sbase|swapgs)/.test(text)) return { reason: 'modes of instructions' };
    if (insn === 'ud' && /lock|rep|data|rex/.test(prefixes)) return { reason: 'prefixes' };
    if (insn === 'ud' && (text.includes('?') || /\b(?:[cdt]r\d+|db\d+)$|^mov (?:cs|[cdt]r\d|db\d)/.test(text))) return { reason: 'registers' };
    if (/^vzero/.test(text)) return { reason: 'unused VEX.vvvv' };
    return { kind: `ours ${insn}, objdump ${theirs}`, detail: whole };
  }
  const { name } = insn.row;
  if (name === 'wait') return { reason: 'FWAIT' };
  const ours = formatInsn(insn, BigInt(offset)).replace(/^(?:lock |repn?z |rep )/, '');
  if (text.includes('(bad)')) return UNDOCUMENTED.has(name) ? { reason: 'undocumented' } : { kind: `objdump bad, ours ${name}`, detail: `${whole} | ${ours}` };
  if (insn.length !== length) return { kind: `length of ${name}`, detail: `${length}: ${whole} | ${insn.length}: ${ours}` };
  const moffs = insn.row.operands.some((o) => o.startsWith('O')) ? ours.replace(/\w+ PTR /, '') : ours;
  if (moffs === text) return 'agree';
  const [mine, other] = [spelled(firstWord(ours), codeSize), spelled(theirs, codeSize)];
  if ((name === 'nop' && ABSENT.test(theirs)) || (name === 'wbinvd' && theirs === 'wbnoinvd')) return { reason: 'hints' };
  const isNop = (text === 'nop' && name === 'xchg') || (name === 'nop' && other === 'xchg');
  const sameName = mine === other || isNop;
  if (sameName && (codeSize !== 64 || WIDTH_DIFFERS.test(name) || isNop)) return { reason: 'operand spelling' };
  return { kind: `text of ${name}`, detail: `${whole} | ${ours}` };
}
