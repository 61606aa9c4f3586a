/** What the decoder's tables have, and what of it vectors show: the statistics of README.md. */
import { type CodeSize, decode, formKey, type Insn } from '../src/decoder/index.ts';
import type { Form, Row } from '../src/decoder/types.ts';
import { compileRegions } from '../src/jit/compile.ts';
import type { Region } from '../src/jit/region.ts';
import { DS, SS } from '../src/layout.ts';
import { semantics } from '../src/semantics/index.ts';
import { isEstimate } from './silicon-parts.ts';
import { VECTOR_SOURCES } from './vector-sources.ts';
import { WITHOUT_VECTORS } from './without-vectors.ts';

const RSP = 4;
const RIP = 16;

/** Cases by form of one code size. */
export type CasesByForm = ReadonlyMap<number, number>;

export interface Recording {
  readonly cases: ReadonlyMap<CodeSize, CasesByForm>;
  /** Cases by how their memory operand is addressed. */
  readonly addressing: ReadonlyMap<string, number>;
  readonly total: number;
  /** Cases by file. */
  readonly files: ReadonlyMap<string, number>;
}

/** How the memory operand, explicit or not, of an instruction is addressed; a case may count as several. */
function addressingOf(insn: Insn): string[] {
  const { mem } = insn;
  const found: string[] = [];
  if (insn.seg !== DS && (insn.seg !== SS || mem?.base !== RSP)) found.push('other segment');
  if (mem !== null && insn.addrSize < 8) found.push(insn.addrSize === 4 ? '32-bit address' : '16-bit address');
  if (mem === null) return found;
  if (mem.base === RIP) found.push('RIP-relative');
  else if (mem.index >= 0) found.push('base and index, scaled');
  else if (mem.base < 0) found.push('absolute');
  else found.push('base and displacement');
  if (insn.lock) found.push('LOCK');
  return found;
}

let known: Recording | undefined;
/** What all vector files hold; they are read once. */
export function recording(): Recording {
  known ??= readAll();
  return known;
}

function readAll(): Recording {
  const cases = new Map<CodeSize, Map<number, number>>([16, 32, 64].map((size) => [size as CodeSize, new Map()]));
  const addressing = new Map<string, number>();
  const files = new Map<string, number>();
  let total = 0;
  for (const { file, codeSize, read } of VECTOR_SOURCES) {
    const counts = cases.get(codeSize) ?? new Map<number, number>();
    for (const { code, cases: n } of read()) {
      total += n;
      files.set(file, (files.get(file) ?? 0) + n);
      const bytes = new Uint8Array(code.length + 16);
      bytes.set(code);
      for (let at = 0; at < code.length; ) {
        const insn = decode(bytes, at, 16, codeSize);
        if (typeof insn === 'string') break;
        counts.set(formKey(insn), (counts.get(formKey(insn)) ?? 0) + n);
        for (const kind of addressingOf(insn)) addressing.set(kind, (addressing.get(kind) ?? 0) + n);
        at += insn.length;
      }
    }
  }
  return { cases, addressing, files, total };
}

/** Groups of rows as the README lists them. */
export function groupOf(row: Row): string {
  if (row.mode === 'i64') return '16- and 32-bit code only';
  if (row.vex === true) return row.name.startsWith('v') ? 'AVX (VEX)' : 'BMI (VEX)';
  if (row.map === 'x87') return 'x87 (D8..DF)';
  return { '1': 'one-byte map', '0f': 'map 0F', '0f38': 'map 0F 38', '0f3a': 'map 0F 3A' }[row.map];
}

/** Whether there is a reason why the form has no vectors in code of this size. Estimates are compared in 64-bit code, with their tolerance. */
export const isExempt = (form: Form, codeSize: CodeSize): boolean => form.row.name in WITHOUT_VECTORS || (codeSize !== 64 && isEstimate(form.row.name));
export const describeForm = (f: Form): string =>
  `${f.row.name} ${f.row.operands.join()} (${f.opSize * 8}-bit, ${f.isMem ? 'memory' : 'register'}${f.rep === 0 ? '' : f.rep === 2 ? ', REPNE' : ', REP'}, ${f.addrSize * 8}-bit address)`;

/** Keys of those of `list` that the region compiler makes code for. */
export function compiledForms(list: readonly Form[], codeSize: 32 | 64): Set<number> {
  const known = list.filter((f) => semantics[f.row.name] !== undefined);
  const compiles = (some: readonly Form[]): boolean => {
    try {
      compileRegions(some.map((f) => regionOf(instance(f), codeSize)));
      return true;
    } catch {
      return false;
    }
  };
  const keys = (some: readonly Form[]): number[] => {
    if (some.length === 0) return [];
    if (compiles(some)) return some.map(formKey);
    const half = some.length >> 1;
    return half === 0 ? [] : [...keys(some.slice(0, half)), ...keys(some.slice(half))];
  };
  return new Set(keys(known));
}

/** An instruction of the form, without bytes. */
function instance(form: Form): Insn {
  // A vector of indexes is not optional.
  const index = form.operands.some((o) => o.field === 'vsib') ? 4 : -1;
  const mem = form.isMem ? { base: 3, index, scale: 0, disp: 16, seg: 3 } : null;
  const fields = { length: 4, lock: false, rex: false, reg: 0, rm: 1, vvvv: 2, seg: 3, immLow: 1, immHigh: 0, imm2: 1 };
  return { ...form, ...fields, mem };
}

function regionOf(insn: Insn, codeSize: 32 | 64): Region {
  const block = { start: 0, end: insn.length, insns: [insn] };
  return {
    hpa: 0x100_0000,
    codeSize,
    tracked: false,
    blocks: new Map([[0, block]]),
    returnSites: [],
    entries: [],
    targets: new Map(),
    cold: [],
    stops: [],
    pages: [],
    ranges: [{ start: 0x100_0000, end: 0x100_0000 + insn.length }],
    insnCount: 1,
    maxInsns: 1,
    heads: [0x100_0000],
    reach: 0,
  };
}
