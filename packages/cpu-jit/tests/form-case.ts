/** Random cases of forms beyond the integer ones: where their operands lie, and what they hold. */
import type { Form, Insn } from '../src/decoder/types.ts';
import { FS, GS, SS } from '../src/layout.ts';
import { baseState, MEMORY_WORDS, SLOT, statesOf, type ValueKind } from './form-state.ts';
import { AREAS, startState } from './form-vectors.ts';
import { arrange, type Instance, isReplayable, type Placement, randomInstance, segmentBase } from './int-case.ts';
import { START, WINDOW, WINDOW_BYTES } from './int-vectors.ts';
import type { Prng } from './prng.ts';
import { kindOf } from './random-instruction.ts';

const [RAX, RCX, RDX, RSP, RDI] = [0, 1, 2, 4, 7];
const HALF = 32n;

/** Instructions that read or write more memory than the window has. */
const IMAGES: ReadonlySet<string> = new Set('fxsave fxrstor xsave xrstor xsaveopt xsavec xsaves xrstors fldenv fnstenv frstor fnsave'.split(' '));
/** Instructions whose operand is a selector. */
const SELECTOR_USERS: ReadonlySet<string> = new Set('mov_seg_r lar lsl verr verw lldt ltr lss lfs lgs'.split(' '));
/** Selectors that user code may or may not load: Linux' GDT (see form-replay.ts), beyond its end, in an LDT that is not there. */
const SELECTORS = [0, 1, 2, 3, 0x2b, 0x2b, 0x2b, 0x28, 0x29, 0x33, 0x33, 0x30, 0x23, 0x10, 0x13, 0x18, 0x1b, 0x3b, 0x83, 0xfff8, 0x2f, 0x0c];

/** Null selectors lose their RPL on the way through the recording machine's kernel. */
const LOADABLE = SELECTORS.filter((s) => s === 0 || s > 3);

/** What the operands of an instruction are, by its name. */
function valueKind(name: string): ValueKind {
  if (/^pcmp[ei]str/.test(name)) return 'string';
  if (/^cvtt?(ps|ss)2|^(u?comiss)|[^c](ps|ss)$|_m32$/.test(name) && !/^fi/.test(name)) return 'single';
  if (/^cvtt?(pd|sd)2|[^n](pd|sd)$|_m64$/.test(name) && !/^fi/.test(name)) return 'double';
  if (/_m80$/.test(name)) return 'extended';
  if (/^fb/.test(name)) return 'bcd';
  return 'int';
}

/** An encoding with where its operands may be. */
export interface FormInstance {
  readonly instance: Instance;
  readonly area: number;
}

/** A random encoding of the form; undefined when there is none that can be tried. */
export function formInstance(rng: Prng, form: Form): FormInstance | undefined {
  const { name } = form.row;
  const image = IMAGES.has(name);
  const area = image ? 1 : 0;
  const size = form.operands.find((o) => o.kind === 'mem')?.size ?? 0;
  const segment = rng.oneIn(5) ? 'fs' : rng.oneIn(6) ? 'gs' : undefined;
  const needsSegment = kindOf(form) === 'integer' && (form.isMem || form.row.asz === true);
  const placement: Placement = {
    ...(needsSegment ? { segment: rng.oneIn(3) ? 'gs' : 'fs' } : segment === undefined ? {} : { segment }),
    ...(image ? { at: AREAS[1].at - WINDOW + (rng.oneIn(12) ? 8 : 0) } : size === 16 && !rng.oneIn(12) ? { align: 16 } : {}),
  };
  const instance = randomInstance(rng, form, placement);
  // A misaligned image in the stack segment raises #SS on the recording machine, where the manual says #GP.
  if (image && instance?.random.insn.seg === SS) return undefined;
  return instance === undefined ? undefined : { instance, area };
}

/** A base state and what is made of it for the instance; undefined when its operands would lie elsewhere. */
export function formState(rng: Prng, { instance, area }: FormInstance): { base: number; before: BigUint64Array } | undefined {
  const { insn } = instance.random;
  const { name } = instance.form.row;
  const base = rng.pick(statesOf(rng.oneIn(4) ? rng.pick(['int', 'single', 'double', 'extended']) : valueKind(name)));
  const state = startState(base, area);
  const memory = [...state.subarray(SLOT.memory, SLOT.memory + MEMORY_WORDS)];
  const arranged = arrange(rng, instance, [...state.subarray(0, 16)], memory);
  state.set(arranged.gprs, SLOT.gpr);
  state[SLOT.flags] = BigInt(arranged.flags);
  if (area === 0) state.set(memory, SLOT.memory);
  else fillImage(rng, name, state);
  setOperands(rng, insn, instance.at, state);
  const gprs = [...state.subarray(0, 16)];
  return area === 1 || isReplayable(instance, { ...arranged, gprs }) ? { base, before: state } : undefined;
}

/** Writes `size` bytes at a byte offset of the window; nothing outside of it. */
function setMemory(state: BigUint64Array, at: number, value: bigint, size: number): void {
  const view = new DataView(state.buffer, state.byteOffset + SLOT.memory * 8);
  for (let i = 0; i < size; i++) if (at + i >= 0 && at + i < WINDOW_BYTES) view.setUint8(at + i, Number((value >> BigInt(i * 8)) & 0xffn));
}

/** Gives implicit and special operands values with which there is something to see. */
function setOperands(rng: Prng, insn: Insn, at: number, state: BigUint64Array): void {
  const { name } = insn.row;
  const set = (n: number, v: bigint) => {
    state[SLOT.gpr + n] = v;
  };
  const low = (n: number, v: number) => set(n, ((state[SLOT.gpr + n] ?? 0n) & ~0xffffn) | BigInt(v));
  const code = () => BigInt(START + rng.pick([0x100, 0x7f, -0x200, 0x400]));
  const codeSelector = () => BigInt(rng.oneIn(3) ? rng.pick([0, 0x2b, 0x10, 0x13, 0x30, 0x83]) : 0x33);
  const stack = (...words: readonly bigint[]) => {
    const start = WINDOW + 8 * rng.below(2);
    set(RSP, BigInt(start));
    for (const [i, word] of words.entries()) setMemory(state, start - WINDOW + i * insn.opSize, word, insn.opSize);
  };
  if (SELECTOR_USERS.has(name)) {
    const selector = rng.pick(/^(lar|lsl|ver[rw]|lldt|ltr)$/.test(name) ? SELECTORS : LOADABLE);
    const far = name.startsWith('l') && insn.isMem && insn.operands[1]?.size === insn.opSize + 2;
    if (insn.isMem) setMemory(state, at + (far ? insn.opSize : 0), BigInt(selector), 2);
    else low(insn.rm, selector);
  }
  switch (name) {
    case 'pop_seg':
      setMemory(state, Number(state[SLOT.gpr + RSP] ?? 0n) - WINDOW, BigInt(rng.pick(LOADABLE)), 2);
      return;
    case 'callf':
    case 'jmpf':
      setMemory(state, at, code(), insn.opSize);
      setMemory(state, at + insn.opSize, codeSelector(), 2);
      return;
    case 'retf':
      stack(code(), codeSelector());
      return;
    case 'iret':
      stack(
        code(),
        codeSelector(),
        BigInt(rng.below(0x1000) & 0x8d5) | 0x202n,
        BigInt(WINDOW + 8 * rng.below(8)),
        BigInt(rng.oneIn(4) ? rng.pick([0, 0x33, 0x28, 0x83]) : 0x2b),
      );
      return;
    case 'maskmovdqu':
    case 'maskmovq_mmx': {
      const upper = insn.addrSize === 4 ? rng.u64() & 0xffff_ffff_0000_0000n : 0n;
      set(RDI, upper | (BigInt(WINDOW + rng.below(WINDOW_BYTES - 16)) - segmentBase(insn)));
      return;
    }
    case 'ldmxcsr':
      setMemory(state, at, BigInt(rng.oneIn(3) ? rng.below(0x20000) : rng.below(0x10000)), 4);
      return;
    case 'rdpkru':
    case 'wrpkru':
      set(RCX, rng.oneIn(3) ? 1n : rng.u64() << HALF);
      set(RDX, rng.oneIn(3) ? 1n : rng.u64() << HALF);
      // Key 0 is what the harness itself runs on.
      set(RAX, rng.u64() & ~3n);
      return;
    case 'wrfsbase':
    case 'wrgsbase':
      if (rng.oneIn(2)) set(insn.rm, BigInt.asUintN(64, BigInt.asIntN(47, rng.u64())));
      return;
  }
}

/** A state image of another base state in the image area, and what to save or restore of it. */
function fillImage(rng: Prng, name: string, state: BigUint64Array): void {
  const other = baseState(rng.pick(statesOf('extended')));
  const words = new BigUint64Array(80);
  const x87 = other[SLOT.x87] ?? 0n;
  words[0] = (x87 & 0xff_ffff_ffffn) | (BigInt(rng.below(0x800)) << 48n);
  words[1] = rng.u64() >> 17n;
  words[2] = rng.u64() >> 17n;
  words[3] = BigInt(rng.oneIn(8) ? rng.below(0x20000) : rng.below(0x10000)) | (rng.u64() << HALF);
  for (let i = 0; i < 16; i++) words[4 + i] = other[SLOT.st + i] ?? 0n;
  for (let i = 0; i < 32; i++) words[20 + i] = other[SLOT.xmm + i] ?? 0n;
  // XSTATE_BV, XCOMP_BV and the reserved rest of the header.
  const isRestore = name === 'xrstor';
  words[64] = BigInt(rng.oneIn(8) ? 1n << 60n : rng.below(4));
  words[65] = rng.oneIn(3) ? (1n << 63n) | BigInt(rng.below(4)) : rng.oneIn(8) ? 8n : 0n;
  if (rng.oneIn(8) || !isRestore) words[66] = rng.u64();
  state.set(words, SLOT.memory);
  state[SLOT.gpr + RAX] = (rng.u64() << HALF) | BigInt(rng.below(4));
  state[SLOT.gpr + RDX] = rng.u64() << HALF;
}

/** Whether the instance's memory operand, explicit or not, is in FS or GS. */
export const isOverridden = (insn: Insn): boolean => insn.seg === FS || insn.seg === GS;
