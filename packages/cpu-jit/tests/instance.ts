/** Random instances of forms: encodings whose operands lie where the harness has memory and code. */
import { decode } from '../src/decoder/index.ts';
import type { AddrSize, Form, Insn } from '../src/decoder/types.ts';
import { SS } from '../src/layout.ts';
import { type CodeMode, codeBase, segmentBase } from './code-modes.ts';
import { ADDRESSES_16, type MemoryChoice, type SegmentOverride } from './encoder.ts';
import type { Prng } from './prng.ts';
import { kindOf, randomInsn } from './random-instruction.ts';
import { AREAS, START, WINDOW, WINDOW_BYTES } from './window.ts';

const RSP = 4;
const RIP = 16;
const SEGMENT_NAMES = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;
/** Instructions that use the stack. */
export const STACK_USERS: ReadonlySet<string> = new Set(
  'push pop pushf popf call call_ind ret enter leave push_seg pop_seg callf retf iret pusha popa'.split(' '),
);
export const BIT_TESTS: ReadonlySet<string> = new Set('bt bts btr btc'.split(' '));
const INDIRECT: ReadonlySet<string> = new Set(['jmp_ind', 'call_ind']);
/** Instructions that read or write more memory than the window has. */
const IMAGES: ReadonlySet<string> = new Set('fxsave fxrstor xsave xrstor xsaveopt xsavec xsaves xrstors fldenv fnstenv frstor fnsave'.split(' '));

/** An encoding, and where its memory operand lies. */
export interface Instance {
  readonly mode: CodeMode;
  readonly code: Uint8Array;
  readonly insn: Insn;
  /** Offset of the memory operand in the window. */
  readonly at: number;
  /** Of AREAS. */
  readonly area: number;
}

/** The instance of recorded code. Throws `TypeError` for bytes that are no instruction. */
export function instanceOf(mode: CodeMode, code: Uint8Array, at: number, area: number): Instance {
  const insn = decodeCode(mode, code);
  if (insn === undefined) throw new TypeError(`${Buffer.from(code).toString('hex')} is no instruction`);
  return { mode, code, insn, at, area };
}
function decodeCode(mode: CodeMode, code: Uint8Array): Insn | undefined {
  const bytes = new Uint8Array(16);
  bytes.set(code);
  const insn = decode(bytes, 0, 16, mode.codeSize);
  return typeof insn === 'string' ? undefined : insn;
}

/** Base of the segment of the memory operand, explicit or implicit. */
export const baseOf = ({ mode, insn }: Pick<Instance, 'mode' | 'insn'>): bigint => BigInt(segmentBase(mode, insn.mem?.seg ?? insn.seg));

/** A segment override, or none: mostly for instructions where there is something to see. */
function overrideFor(rng: Prng, mode: CodeMode, form: Form, addrSize: AddrSize): SegmentOverride | undefined {
  if (mode.codeSize === 64) return rng.oneIn(4) ? rng.pick(['fs', 'gs']) : undefined;
  // From base 0 a 16-bit address does not reach the data.
  if (mode.name === 'flat32' && addrSize === 2 && !rng.oneIn(8)) return rng.pick(['fs', 'gs']);
  const isUsed = form.isMem || form.row.asz === true;
  return isUsed && rng.oneIn(3) ? rng.pick(SEGMENT_NAMES) : undefined;
}

function addressSize(rng: Prng, mode: CodeMode, form: Form): AddrSize {
  const normal = (mode.codeSize / 8) as AddrSize;
  if (form.row.asz === true) return form.addrSize;
  if (!form.isMem) return normal;
  return mode.codeSize === 64 ? (rng.oneIn(8) ? 4 : 8) : rng.oneIn(3) ? ((6 - normal) as AddrSize) : normal;
}

/** Registers and displacement of a memory operand that can reach linear address `at`. */
function addressFor(rng: Prng, mode: CodeMode, addrSize: AddrSize, absolute: number, isWhole: boolean): MemoryChoice {
  const none = { base: -1, index: -1, scale: 0 };
  if (isWhole) return { ...none, disp: absolute };
  const disp = rng.pick([0, rng.below(256) - 128, rng.below(0x10000) - 0x8000, 8]);
  if (addrSize === 2) {
    if (rng.oneIn(6)) return { ...none, disp: absolute };
    const [base, index] = rng.pick(ADDRESSES_16);
    return { base, index, scale: 0, disp };
  }
  const registers = mode.codeSize === 64 ? 16 : 8;
  const base = rng.below(registers);
  const indexes = Array.from({ length: registers }, (_, n) => n).filter((n) => n !== RSP && n !== base);
  const index = rng.pick(indexes);
  switch (rng.below(8)) {
    case 0:
      return mode.codeSize === 64 ? { ...none, base: RIP, disp: 0 } : { ...none, disp: absolute };
    case 1:
      return { ...none, disp: absolute };
    case 2:
      return { base: -1, index, scale: rng.below(4), disp: absolute - 0x1000 };
    case 3:
    case 4:
      return { base, index, scale: rng.below(4), disp };
    default:
      return { base, index: -1, scale: 0, disp };
  }
}

/** Offset of the memory operand from the window. */
function placeFor(rng: Prng, name: string, size: number): number {
  if (IMAGES.has(name)) return AREAS[1].at - WINDOW + (rng.oneIn(12) ? 8 : 0);
  if (BIT_TESTS.has(name)) return 24;
  const at = rng.below(WINDOW_BYTES - Math.max(size, 1) + 1);
  if (name === 'cmpxchg16b' || (size === 16 && !rng.oneIn(12))) return at & ~15;
  if (size === 32) return rng.oneIn(2) ? at & ~31 : at;
  return INDIRECT.has(name) || STACK_USERS.has(name) ? at & ~7 : at;
}

/** A random encoding of the form; undefined when it cannot be tried this way. */
export function randomInstance(rng: Prng, mode: CodeMode, form: Form): Instance | undefined {
  const { name } = form.row;
  const gprs = Array.from({ length: mode.codeSize === 64 ? 16 : 8 }, (_, n) => n);
  const isVector = form.operands.some((o) => o.field === 'vsib');
  for (let attempt = 0; attempt < 30; attempt++) {
    let at = 0;
    const addrSize = addressSize(rng, mode, form);
    const override = overrideFor(rng, mode, form, addrSize);
    const mem = (size: number): MemoryChoice => {
      at = placeFor(rng, name, size);
      const segment = override === undefined ? {} : { segment: override };
      const base = override === undefined ? segmentBase(mode, 3) : segmentBase(mode, SEGMENT_NAMES.indexOf(override));
      if (isVector) return { base: rng.pick(gprs), index: rng.below(gprs.length), scale: rng.below(4), disp: rng.below(256) - 128, ...segment };
      const isWhole = form.row.operands.some((o) => o.startsWith('O'));
      return { ...addressFor(rng, mode, addrSize, WINDOW + at - base, isWhole), ...segment };
    };
    const segment = override === undefined ? {} : { segment: override };
    const random = randomInsn(rng, form, { gprs, mem, addrSize, codeSize: mode.codeSize, ...segment });
    if (random === undefined) continue;
    const code = random.bytes.slice();
    if (random.ripField >= 0) new DataView(code.buffer).setInt32(random.ripField, WINDOW + at - (START + code.length), true);
    setImmediates(rng, mode, form, code);
    const insn = decodeCode(mode, code);
    if (insn === undefined || insn.length !== code.length || !isUsable(insn, name) || splitsLock(insn, at)) continue;
    return { mode, insn, code, at, area: IMAGES.has(name) ? 1 : 0 };
  }
  return undefined;
}

/** Selectors of code that user code may or may not transfer control to. */
export function codeSelector(rng: Prng, mode: CodeMode): number {
  const own = mode.segments[1].selector;
  return rng.pick([own, own, 0x33, 0x23, 0x07, 0x0f, 0x0f, 0, 0x2b, 0x10, 0x13, 0x30, 0x83, 0x17, 0x5f, 0x67]);
}

/** Immediates that are not just a number. */
function setImmediates(rng: Prng, mode: CodeMode, form: Form, code: Uint8Array): void {
  const { name } = form.row;
  if (name === 'enter') code.set([rng.below(256), rng.below(16), rng.below(4)], code.length - 3);
  if (name === 'aam' && rng.oneIn(6)) code.set([0], code.length - 1);
  if (form.row.operands[0] !== 'Ap') return;
  const selector = codeSelector(rng, mode);
  const view = new DataView(code.buffer);
  const offset = START + rng.pick([0x100, 0x7f, -0x200, 0x400, 0x3000]) - codeBase(selector);
  if (form.opSize === 2) view.setUint16(code.length - 4, offset & 0xffff, true);
  else view.setUint32(code.length - 6, offset, true);
  view.setUint16(code.length - 2, selector, true);
}

/** A locked access over the end of a cache line, in the window's middle: the recording machine traps it again and again. */
function splitsLock(insn: Insn, at: number): boolean {
  const size = insn.operands.find((o) => o.kind === 'mem')?.size ?? 0;
  return (insn.lock || (insn.row.name === 'xchg' && insn.isMem)) && at < WINDOW_BYTES / 2 && at + size > WINDOW_BYTES / 2;
}

function isUsable(insn: Insn, name: string): boolean {
  // Direct branches end in the HLTs around, neither in themselves nor far away.
  if (insn.operands.some((o) => o.kind === 'rel')) {
    const target = insn.length + insn.immLow;
    if (Math.abs(target) > 0x1800 || (target > -16 && target < insn.length)) return false;
  }
  const registers = [insn.mem?.base ?? -1, insn.mem?.index ?? -1];
  // The bit offset must stay small, and the address of a conditional target must not be the target.
  const bit = BIT_TESTS.has(name) && insn.isMem ? insn.operands.find((o) => o.kind === 'gpr') : undefined;
  if (bit !== undefined && (registers.includes(insn.reg) || insn.reg === RSP)) return false;
  if (INDIRECT.has(name) && !insn.isMem && (insn.opSize === 8 ? insn.rm === RSP && name === 'call_ind' : false)) return false;
  // A misaligned image in the stack segment raises #SS on the recording machine, where the manual says #GP.
  return !(IMAGES.has(name) && insn.seg === SS);
}

/** Instructions whose vectors are the general registers', from states that suit integers. */
export const isInteger = (insn: Insn): boolean => kindOf(insn) === 'integer';
