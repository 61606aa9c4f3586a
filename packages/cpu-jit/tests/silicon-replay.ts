/** Replays silicon vectors in the interpreter and in compiled code. */
import { formatInsn } from '../src/decoder/index.ts';
import {
  CS,
  ES,
  EXIT_EXCEPTION,
  EXIT_SOFT_INT,
  FS,
  GS,
  LDTR,
  MXCSR_TRACKED,
  MXCSR_VISIBLE,
  NEXT,
  NEXT_CHECK,
  NEXT_INTERPRET,
  S_CR4,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_GDTR,
  S_GPR,
  S_ICOUNT,
  S_MXCSR,
  S_PKRU,
  S_RFLAGS,
  S_RIP,
  S_SEG,
  S_SHADOW,
  S_X87,
  S_X87_CW,
  S_X87_FDP,
  S_X87_FIP,
  S_X87_FOP,
  S_X87_SW,
  S_X87_TAGS,
  S_X87_TOP,
  S_XCR0,
  S_XMM,
  S_YMM_HIGH,
  SEG_BASE,
  SEG_SELECTOR,
  SEG_STRIDE,
  SS,
  V_EXC_BITMAP,
  V_NATIVE,
} from '../src/layout.ts';
import { CPU, RAM_BASE, RuntimeMachine } from '../src/testing/runtime-machine.ts';
import { type CodeMode, GDT_DESCRIPTORS, LDT, ldtDescriptor, segmentBase } from './code-modes.ts';
import { SLOT } from './form-state.ts';
import { narrowToLegacy } from './inputs.ts';
import { type Instance, isInteger } from './instance.ts';
import { CODE, CODE_BYTES, DATA, DATA_BYTES, type Machine, READ_ONLY } from './program.ts';
import { regionFunctions } from './region-functions.ts';
import { type Outcome, PAGE_FAULT, type SiliconCase } from './silicon-vectors.ts';
import { Tier } from './tiers.ts';
import { AREAS, FLAGS, START } from './window.ts';

const GP = 13;
const OF = 4;
const HLT = 0xf4;
const RSP = 4;
const STATUS = 0x8d5;
/** FSGSBASE, OSFXSR, OSXMMEXCPT, PAE, UMIP, OSXSAVE, PKE: as Linux sets them, as far as user code can tell. */
const CR4 = 0x620n | (1n << 11n) | (1n << 16n) | (1n << 18n) | (1n << 22n);
/** Linux: access to key 0 only. */
const PKRU = 0x5555_5554;
/** x87 and SSE; AVX too where its instructions are recorded. */
const XCR0_SSE = 3n;
const XCR0_AVX = 7n;

/** GDT and LDT. */
const TABLES = 0x1c_0000;
const LDT_AT = TABLES + 0x200;
const GDT_LIMIT = 127;
const LDT_SELECTOR = 0x50;
const PRESENT_LDT = 0x82;
/** More than repeated instructions take; a case that needs them all goes round in circles. */
const MOST_STEPS = 100;
const SEGMENTS_BYTES = 8 * SEG_STRIDE;

/** A machine with one vCPU in user mode, whichever runs it. */
interface Target {
  readonly view: DataView;
  readonly words: BigUint64Array;
  readonly u8: Uint8Array;
  readonly cpu: number;
  readonly ram: number;
  getFlags(): number;
  setFlags(flags: number): void;
  setSegment(n: number, selector: number, base: bigint, limit: number, attr: number): void;
  /** CS was changed from outside. */
  enterCode(): void;
  flushTlb(): void;
}
export interface ReplayOutcome extends Outcome {
  /** Instructions retired; chunks of a REP instruction count one each. */
  readonly retired: number;
}
/** Undefined: compiled code has left the instruction to the interpreter. */
export type Executor = (instance: Instance, before: BigUint64Array) => ReplayOutcome | undefined;

/** System registers and tables as the recording process had them. Returns what puts the segments back. */
function setUp(t: Target, mode: CodeMode): () => void {
  const { view, cpu, ram } = t;
  for (const [i, d] of GDT_DESCRIPTORS.entries()) view.setBigUint64(ram + TABLES + i * 8, d, true);
  for (const [i, e] of LDT.entries()) view.setBigUint64(ram + LDT_AT + i * 8, ldtDescriptor(e), true);
  view.setBigUint64(cpu + S_GDTR, BigInt(TABLES), true);
  view.setUint32(cpu + S_GDTR + 8, GDT_LIMIT, true);
  view.setBigUint64(cpu + S_CR4, CR4, true);
  view.setBigUint64(cpu + S_XCR0, mode.codeSize === 64 ? XCR0_SSE : XCR0_AVX, true);
  view.setUint32(cpu + V_NATIVE, 1, true);
  // Every exception comes out.
  view.setUint32(cpu + V_EXC_BITMAP, 0xffff_ffff, true);
  for (const [n, s] of mode.segments.entries()) t.setSegment(n, s.selector, BigInt(s.base), s.limit, s.attr);
  t.setSegment(LDTR, LDT_SELECTOR, BigInt(LDT_AT), LDT.length * 8 - 1, PRESENT_LDT);
  t.enterCode();
  const segments = t.u8.slice(cpu + S_SEG, cpu + S_SEG + SEGMENTS_BYTES);
  return () => {
    t.u8.set(segments, cpu + S_SEG);
    for (const [n, s] of mode.segments.entries()) if (mode.codeSize !== 64) t.setSegment(n, s.selector, BigInt(s.base), s.limit, s.attr);
    t.enterCode();
    view.setBigUint64(cpu + S_SHADOW, 0xffff_ffff_ffff_ffffn, true);
    if (view.getUint32(cpu + S_PKRU, true) === PKRU) return;
    view.setUint32(cpu + S_PKRU, PKRU, true);
    t.flushTlb();
  };
}

/** Physical register that ST(i) or MMi is. */
const register = (cpu: number, n: number) => cpu + S_X87 + (n & 7) * 16;
const startOf = (mode: CodeMode) => START - segmentBase(mode, CS);

function load(t: Target, s: BigUint64Array, { mode, area }: Instance): void {
  const { view, words, cpu } = t;
  const slot = (n: number) => s[n] ?? 0n;
  words.set(s.subarray(0, 16), (cpu + S_GPR) / 8);
  t.setFlags(Number(slot(SLOT.flags)));
  view.setUint32(cpu + S_MXCSR, Number(slot(SLOT.mxcsr)) | MXCSR_TRACKED, true);
  words.set(s.subarray(SLOT.xmm, SLOT.xmm + 32), (cpu + S_XMM) / 8);
  words.set(s.subarray(SLOT.high, SLOT.high + 32), (cpu + S_YMM_HIGH) / 8);
  const x87 = slot(SLOT.x87);
  const status = Number((x87 >> 16n) & 0xffffn);
  const top = (status >> 11) & 7;
  // A status word with a pending unmasked exception says so in ES and B, whatever they were.
  const pending = status & ~Number(x87) & 0x3f ? 0x8080 : 0;
  view.setUint32(cpu + S_X87_CW, Number(x87 & 0xffffn), true);
  view.setUint32(cpu + S_X87_SW, (status & 0x477f) | pending, true);
  view.setUint32(cpu + S_X87_TOP, top, true);
  view.setUint32(cpu + S_X87_TAGS, Number((x87 >> 32n) & 0xffn), true);
  view.setUint32(cpu + S_X87_FOP, Number(x87 >> 48n), true);
  view.setBigUint64(cpu + S_X87_FIP, slot(SLOT.fip), true);
  view.setBigUint64(cpu + S_X87_FDP, slot(SLOT.fdp), true);
  for (let i = 0; i < 8; i++) {
    view.setBigUint64(register(cpu, top + i), slot(SLOT.st + i * 2), true);
    view.setBigUint64(register(cpu, top + i) + 8, slot(SLOT.st + i * 2 + 1) & 0xffffn, true);
  }
  t.u8.fill(0, t.ram + DATA, t.ram + DATA + DATA_BYTES);
  words.set(s.subarray(SLOT.memory), (t.ram + (AREAS[area]?.at ?? 0)) / 8);
  view.setBigUint64(cpu + S_RIP, BigInt(startOf(mode)), true);
  view.setBigUint64(cpu + S_ICOUNT, 0n, true);
}

function save(t: Target, { mode, area }: Instance): BigUint64Array {
  const { view, words, cpu } = t;
  const memory = AREAS[area]?.words ?? 0;
  const s = new BigUint64Array(SLOT.memory + memory);
  const u32 = (at: number) => view.getUint32(cpu + at, true);
  const part = (at: number, n: number) => words.subarray(at / 8, at / 8 + n);
  s.set(part(cpu + S_GPR, 16));
  s[SLOT.flags] = BigInt(t.getFlags() & FLAGS);
  s[SLOT.mxcsr] = BigInt(u32(S_MXCSR) & MXCSR_VISIBLE);
  s.set(part(cpu + S_XMM, 32), SLOT.xmm);
  s.set(part(cpu + S_YMM_HIGH, 32), SLOT.high);
  const top = u32(S_X87_TOP) & 7;
  s[SLOT.x87] =
    BigInt(u32(S_X87_CW)) | (BigInt((u32(S_X87_SW) & 0xc7ff) | (top << 11)) << 16n) | (BigInt(u32(S_X87_TAGS)) << 32n) | (BigInt(u32(S_X87_FOP)) << 48n);
  s[SLOT.fip] = view.getBigUint64(cpu + S_X87_FIP, true);
  s[SLOT.fdp] = view.getBigUint64(cpu + S_X87_FDP, true);
  for (let i = 0; i < 8; i++) {
    s[SLOT.st + i * 2] = view.getBigUint64(register(cpu, top + i), true);
    s[SLOT.st + i * 2 + 1] = view.getBigUint64(register(cpu, top + i) + 8, true) & 0xffffn;
  }
  const segment = (n: number, field: number) => cpu + S_SEG + n * SEG_STRIDE + field;
  const selectors = (...list: number[]) => list.reduce((sum, n, i) => sum | (BigInt(view.getUint32(segment(n, SEG_SELECTOR), true)) << BigInt(16 * i)), 0n);
  s[SLOT.selectors] = selectors(ES, 3, FS, GS);
  s[SLOT.codeStack] = selectors(CS, SS);
  s[SLOT.fsBase] = view.getBigUint64(segment(FS, SEG_BASE), true);
  s[SLOT.gsBase] = view.getBigUint64(segment(GS, SEG_BASE), true);
  s.set(part(t.ram + (AREAS[area]?.at ?? 0), memory), SLOT.memory);
  if (mode.codeSize !== 64) narrowToLegacy(s);
  return s;
}

/** INTO, which is intercepted like every exception, leaves before it is done: the trap comes after it. */
function completeInterrupt({ view, cpu }: Target, { insn }: Instance): void {
  view.setBigUint64(cpu + S_RIP, view.getBigUint64(cpu + S_RIP, true) + BigInt(insn.length), true);
  view.setBigUint64(cpu + S_ICOUNT, view.getBigUint64(cpu + S_ICOUNT, true) + 1n, true);
}

/** Runs `step` until the instruction is done. */
function execute(t: Target, instance: Instance, step: () => number): ReplayOutcome | undefined {
  const { view, cpu } = t;
  const start = startOf(instance.mode);
  const rip = () => Number(view.getBigUint64(cpu + S_RIP, true)) - start;
  let reason = NEXT;
  let steps = 0;
  do reason = step();
  while (reason <= NEXT_CHECK && rip() === 0 && ++steps < MOST_STEPS);
  if (reason === NEXT_INTERPRET) return undefined;
  const exc = view.getUint32(cpu + S_EXC, true);
  view.setUint32(cpu + S_EXC, 0, true);
  // The HLT after the instruction may be a part of a region and raises #GP in user mode.
  const trap = reason === EXIT_EXCEPTION ? (exc - 1 === GP && rip() !== 0 ? -1 : exc - 1) : reason <= NEXT_CHECK ? -1 : 1000 + reason;
  if (reason === EXIT_SOFT_INT) completeInterrupt(t, instance);
  return {
    state: save(t, instance),
    trap: reason === EXIT_SOFT_INT ? OF : trap,
    error: trap >= 0 && trap < 32 ? view.getUint32(cpu + S_EXC_ERROR, true) : 0,
    address: trap === PAGE_FAULT ? view.getBigUint64(cpu + S_EXC_ADDR, true) : 0n,
    rip: rip(),
    retired: Number(view.getBigUint64(cpu + S_ICOUNT, true)),
  };
}

/** One step at a time in the interpreter. */
export async function interpreted(mode: CodeMode): Promise<Executor> {
  const tier = await Tier.create(false, false, mode.codeSize === 64 ? 'v2' : 'v3');
  const { core } = tier;
  const machine: Machine = { gprs: new Array<bigint>(16).fill(0n), flags: 0, xmm: new Uint8Array(256), data: new Uint8Array(DATA_BYTES) };
  tier.load(new Uint8Array(CODE_BYTES).fill(HLT), machine);
  tier.mapSystemPage(TABLES);
  const t: Target = {
    view: core.view,
    words: new BigUint64Array(core.memory.buffer),
    u8: core.u8,
    cpu: core.cpuAddress(0),
    ram: core.ramBase,
    getFlags: () => Number(core.getRflags(0)),
    setFlags: (flags) => core.setRflags(0, BigInt(flags | 0x202)),
    setSegment: (n, selector, base, limit, attr) => core.setSegment(0, n, { selector, base, limit, attr }),
    enterCode: () => core.modeChanged(0),
    flushTlb: () => core.tlbFlushAll(0),
  };
  const restore = setUp(t, mode);
  return (instance, before) => {
    core.u8.set(instance.code, core.ramBase + START);
    restore();
    load(t, before, instance);
    return execute(t, instance, () => core.step(0));
  };
}

/** Encodings compiled as one region each, many to a module; what compiled code hands back to the interpreter is undefined. */
export async function compiled(mode: CodeMode, instances: readonly Instance[]): Promise<Executor> {
  const machine = await RuntimeMachine.create();
  for (const [at, bytes] of [
    [CODE, CODE_BYTES],
    [DATA, DATA_BYTES],
  ] as const) {
    for (let page = at; page < at + bytes; page += 4096) machine.map(BigInt(page), BigInt(page), 7n);
  }
  machine.map(BigInt(READ_ONLY), BigInt(READ_ONLY), 5n);
  machine.map(BigInt(TABLES), BigInt(TABLES), 3n);
  machine.setCpl(3);
  const { rt } = machine;
  const t: Target = {
    view: machine.view,
    words: new BigUint64Array(machine.memory.buffer),
    u8: machine.u8,
    cpu: CPU,
    ram: RAM_BASE,
    getFlags: () => rt.getFlags(CPU) | machine.get(S_RFLAGS),
    setFlags: (flags) => {
      rt.setFlags(CPU, flags);
      machine.set(S_RFLAGS, (flags & ~STATUS) | 0x202);
    },
    setSegment: (n, selector, base, limit, attr) => rt.setSegment(CPU, n, selector, base, limit, attr),
    enterCode: () => rt.enterCode(CPU),
    flushTlb: () => rt.tlbFlushAll(CPU),
  };
  const restore = setUp(t, mode);
  const functions = regionFunctions(
    machine,
    instances.map((i) => i.code),
    { codeSize: mode.codeSize, tracked: true },
  );
  const byInstance = new Map(instances.map((e, i) => [e, functions[i]]));
  return (instance, before) => {
    const f = byInstance.get(instance);
    if (f === undefined) throw new RangeError('this encoding was not compiled');
    restore();
    machine.u8.set(instance.code, RAM_BASE + START);
    load(t, before, instance);
    return execute(t, instance, () => f(CPU) >>> 0);
  };
}

const NAMES = [
  ...'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 flags mxcsr'.split(' '),
  ...Array.from({ length: 32 }, (_, i) => `xmm${i >> 1}.${i & 1}`),
  ...Array.from({ length: 16 }, (_, i) => `st${i >> 1}.${i & 1 ? 'e' : 'm'}`),
  ...'x87 fip fdp selectors fsbase gsbase codestack'.split(' '),
  ...Array.from({ length: 32 }, (_, i) => `ymm${i >> 1}.${2 + (i & 1)}`),
];
const nameOf = (slot: number) => NAMES[slot] ?? `memory+${(slot - SLOT.memory) * 8}`;

const FLAG_BITS: Readonly<Record<string, number>> = { c: 1, p: 4, a: 0x10, z: 0x40, s: 0x80, o: 0x800 };

/** Bits of a slot that are compared. */
function maskOf(slot: number, undef: string): bigint {
  const all = 0xffff_ffff_ffff_ffffn;
  if (slot === SLOT.flags) return [...undef].reduce((mask, f) => mask & ~BigInt(FLAG_BITS[f] ?? 0), all);
  return all;
}

/** Differences between what was recorded and what happens, as text. Flags that the manual leaves undefined count, but not those of vector instructions. */
export function differences({ insn, code, mode }: Instance, c: SiliconCase, got: ReplayOutcome): string[] {
  const found: string[] = [];
  const check = (what: string, want: bigint | number, have: bigint | number) => {
    if (want !== have) found.push(`${what} ${have.toString(16)}, recorded ${want.toString(16)}`);
  };
  check('trap', c.trap, got.trap);
  check('error', c.error, got.error);
  check('address', c.address, got.address);
  check('rip', c.rip, got.rip);
  const undef = isInteger(insn) ? '' : (insn.row.undef ?? '');
  // A far transfer to 32- or 16-bit code: what is above ESP is undefined from then on.
  const toLegacy = mode.codeSize === 64 && Number((c.state[SLOT.codeStack] ?? 0n) & 0xffffn) !== mode.segments[CS].selector;
  for (const [slot, want] of c.state.entries()) {
    const have = got.state[slot] ?? 0n;
    if (toLegacy && slot === RSP && BigInt.asUintN(32, want ^ have) === 0n) continue;
    if (want === have) continue;
    const mask = maskOf(slot, undef);
    check(nameOf(slot), want & mask, have & mask);
  }
  if (insn.rep === 0) check('retired', c.trap < 0 || c.trap === OF ? 1 : 0, got.retired);
  if (found.length === 0) return [];
  const inputs = Array.from({ length: mode.codeSize === 64 ? 16 : 8 }, (_, n) => `${NAMES[n]}=${(c.before[n] ?? 0n).toString(16)}`).join(' ');
  return [
    `${mode.name}: ${formatInsn(insn, BigInt(START))} [${Buffer.from(code).toString('hex')}] seed ${c.seed}: ${found.join('; ')} (flags=${(c.before[SLOT.flags] ?? 0n).toString(16)} ${inputs})`,
  ];
}
