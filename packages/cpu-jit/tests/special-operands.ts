/** Values of operands that are not just numbers: selectors, stack frames, bounds, state images. */
import { baseState, SLOT, statesOf } from './form-state.ts';
import type { Draft } from './inputs.ts';
import { baseOf } from './instance.ts';
import { WINDOW, WINDOW_BYTES } from './window.ts';

const [RAX, RCX, RDX, RSP, RDI] = [0, 1, 2, 4, 7];
const HALF = 32n;

/** Instructions whose operand is a selector. */
const SELECTOR_USERS: ReadonlySet<string> = new Set('mov_seg_r lar lsl verr verw lldt ltr lss lfs lgs les lds'.split(' '));
/** Selectors that user code may or may not load: of Linux' GDT and of the LDT (code-modes.ts), and beyond their ends. */
const GDT_SELECTORS = [0, 1, 2, 3, 0x2b, 0x2b, 0x2b, 0x28, 0x29, 0x33, 0x33, 0x30, 0x23, 0x10, 0x13, 0x18, 0x1b, 0x3b, 0x83, 0xfff8];
const LDT_SELECTORS = [0x07, 0x0f, 0x17, 0x1e, 0x1f, 0x27, 0x2c, 0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x57, 0x5f, 0x67, 0x6f, 0xfffc];
const SELECTORS = [...GDT_SELECTORS, ...LDT_SELECTORS];
/** Null selectors lose their RPL on the way through the recording machine's kernel. */
const LOADABLE = SELECTORS.filter((s) => s === 0 || s > 3);

/** Gives implicit and special operands values with which there is something to see. */
export function setOperands(d: Draft): void {
  const { rng, insn } = d;
  const { name } = insn.row;
  if (d.instance.area === 1) fillImage(d);
  if (SELECTOR_USERS.has(name)) setSelector(d);
  switch (name) {
    case 'pop_seg':
      d.setMemory(d.stackAt, BigInt(rng.pick(LOADABLE)), 2);
      return;
    case 'callf':
    case 'jmpf': {
      if (!insn.isMem) return;
      const selector = d.codeSelector();
      d.setMemory(d.instance.at, d.codeOffset(selector), insn.opSize);
      d.setMemory(d.instance.at + insn.opSize, BigInt(selector), 2);
      return;
    }
    case 'retf':
    case 'iret':
      return setFarReturn(d);
    case 'bound':
      return setBounds(d);
    case 'maskmovdqu':
    case 'maskmovq_mmx':
    case 'vmaskmovdqu':
      d.set(RDI, d.narrow(BigInt(WINDOW + rng.below(WINDOW_BYTES - 16)) - baseOf(d.instance), insn.addrSize * 8));
      return;
    case 'ldmxcsr':
    case 'vldmxcsr':
      d.setMemory(d.instance.at, BigInt(rng.oneIn(3) ? rng.below(0x20000) : rng.below(0x10000)), 4);
      return;
    case 'rdpkru':
    case 'wrpkru':
      d.set(RCX, rng.oneIn(3) ? 1n : rng.u64() << HALF);
      d.set(RDX, rng.oneIn(3) ? 1n : rng.u64() << HALF);
      // Key 0 is what the harness itself runs on.
      d.set(RAX, rng.u64() & ~3n);
      return;
    case 'wrfsbase':
    case 'wrgsbase':
      if (rng.oneIn(2)) d.set(insn.rm, BigInt.asUintN(64, BigInt.asIntN(47, rng.u64())));
      return;
  }
}

function setSelector(d: Draft): void {
  const { rng, insn } = d;
  const { name } = insn.row;
  const selector = BigInt(rng.pick(/^(lar|lsl|ver[rw]|lldt|ltr)$/.test(name) ? SELECTORS : LOADABLE));
  const isFar = name.startsWith('l') && insn.isMem && insn.operands[1]?.size === insn.opSize + 2;
  if (insn.isMem) d.setMemory(d.instance.at + (isFar ? insn.opSize : 0), selector, 2);
  else d.set(insn.rm, (d.reg(insn.rm) & ~0xffffn) | selector);
}

/** A return address, and for IRET flags; in 64-bit code IRET takes a stack too. */
function setFarReturn(d: Draft): void {
  const { rng, insn } = d;
  const selector = d.codeSelector();
  const words = [d.codeOffset(selector), BigInt(selector)];
  if (insn.row.name === 'iret') {
    words.push(BigInt(rng.below(0x1000) & 0x8d5) | 0x202n);
    words.push(BigInt(WINDOW + 8 * rng.below(8)), BigInt(rng.oneIn(4) ? rng.pick([0, 0x33, 0x28, 0x83]) : 0x2b));
  }
  d.pointTo(RSP, 8 * rng.below(2));
  for (const [i, word] of words.entries()) d.setMemory(d.stackAt + i * insn.opSize, word, insn.opSize);
}

/** Signed bounds about the index, or such that it is outside. */
function setBounds(d: Draft): void {
  const { rng, insn } = d;
  if (rng.oneIn(4)) return;
  const index = d.reg(insn.reg);
  const near = () => index + BigInt(rng.below(5) - 2);
  d.setMemory(d.instance.at, near(), insn.opSize);
  d.setMemory(d.instance.at + insn.opSize, near(), insn.opSize);
}

/** A state image of another base state in the image area, and what to save or restore of it. */
function fillImage(d: Draft): void {
  const { rng, state } = d;
  const { name } = d.insn.row;
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
  if (!/^x/.test(name)) return;
  d.set(RAX, (rng.u64() << HALF) | BigInt(rng.below(4)));
  d.set(RDX, rng.u64() << HALF);
}
