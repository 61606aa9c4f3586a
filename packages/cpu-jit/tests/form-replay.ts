/** Replays form vectors in the interpreter and in compiled code. */
import { decode, formatInsn } from '../src/decoder/index.ts';
import {
  CS,
  DS,
  ES,
  EXIT_EXCEPTION,
  FS,
  GS,
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
  SEG_BASE,
  SEG_SELECTOR,
  SEG_STRIDE,
  SS,
  V_EXC_BITMAP,
  V_NATIVE,
} from '../src/layout.ts';
import { CPU, RAM_BASE, RuntimeMachine } from '../src/testing/runtime-machine.ts';
import { SLOT } from './form-state.ts';
import { AREAS, type FormCase, type FormEncoding, type FormOutcome } from './form-vectors.ts';
import { FLAGS, PAGE_FAULT, START } from './int-vectors.ts';
import { CODE, CODE_BYTES, DATA, DATA_BYTES, FS_BASE, GS_BASE, type Machine, READ_ONLY } from './program.ts';
import { regionFunctions } from './region-functions.ts';
import { Tier } from './tiers.ts';

const GP = 13;
const HLT = 0xf4;
const STATUS = 0x8d5;
/** FSGSBASE, OSFXSR, OSXMMEXCPT, PAE, UMIP, OSXSAVE, PKE: as Linux sets them, as far as user code can tell. */
const CR4 = 0x620n | (1n << 11n) | (1n << 16n) | (1n << 18n) | (1n << 22n);
/** Linux: access to key 0 only. */
const PKRU = 0x5555_5554;
const XCR0_X87_SSE = 3n;

/** The descriptors of Linux' GDT that user code can name, by index. */
const DESCRIPTORS: readonly bigint[] = [
  0n,
  0x00cf_9b00_0000_ffffn,
  0x00af_9b00_0000_ffffn,
  0x00cf_9300_0000_ffffn,
  0x00cf_fb00_0000_ffffn,
  0x00cf_f300_0000_ffffn,
  0x00af_fb00_0000_ffffn,
];
const GDT = 0x8000;
const GDT_LIMIT = 127;
const USER_CODE = 0x33;
const USER_DATA = 0x2b;
const SEGMENTS_BYTES = 8 * SEG_STRIDE;

/** A machine with one vCPU in user mode, whichever runs it. */
interface Target {
  readonly view: DataView;
  readonly u8: Uint8Array;
  readonly cpu: number;
  readonly ram: number;
  getFlags(): number;
  setFlags(flags: number): void;
  setSegment(n: number, selector: number, base: bigint, attr: number): void;
  flushTlb(): void;
}
type Executor = (encoding: FormEncoding, before: BigUint64Array) => FormOutcome | undefined;

/** System registers and tables as the recording process had them. Returns what puts the segments back. */
function setUp(t: Target): () => void {
  const { view, cpu, ram } = t;
  for (const [i, d] of DESCRIPTORS.entries()) view.setBigUint64(ram + GDT + i * 8, d, true);
  view.setBigUint64(cpu + S_GDTR, BigInt(GDT), true);
  view.setUint32(cpu + S_GDTR + 8, GDT_LIMIT, true);
  view.setBigUint64(cpu + S_CR4, CR4, true);
  view.setBigUint64(cpu + S_XCR0, XCR0_X87_SSE, true);
  view.setUint32(cpu + V_NATIVE, 1, true);
  // Every exception comes out.
  view.setUint32(cpu + V_EXC_BITMAP, 0xffff_ffff, true);
  const set = (n: number, selector: number, base: number, attr: number) => t.setSegment(n, selector, BigInt(base), attr);
  set(CS, USER_CODE, 0, 0xa0fb);
  set(SS, USER_DATA, 0, 0xc0f3);
  set(ES, 0, 0, 0x1_0000);
  set(DS, 0, 0, 0x1_0000);
  set(FS, 0, FS_BASE, 0x1_0000);
  set(GS, 0, GS_BASE, 0x1_0000);
  const segments = t.u8.slice(cpu + S_SEG, cpu + S_SEG + SEGMENTS_BYTES);
  return () => {
    t.u8.set(segments, cpu + S_SEG);
    view.setBigUint64(cpu + S_SHADOW, 0xffff_ffff_ffff_ffffn, true);
    if (view.getUint32(cpu + S_PKRU, true) === PKRU) return;
    view.setUint32(cpu + S_PKRU, PKRU, true);
    t.flushTlb();
  };
}

/** Physical register that ST(i) or MMi is. */
const register = (cpu: number, n: number) => cpu + S_X87 + (n & 7) * 16;

function load(t: Target, s: BigUint64Array, area: number): void {
  const { view, cpu } = t;
  const slot = (n: number) => s[n] ?? 0n;
  for (let n = 0; n < 16; n++) view.setBigUint64(cpu + S_GPR + n * 8, slot(n), true);
  const flags = Number(slot(SLOT.flags));
  t.setFlags(flags);
  view.setUint32(cpu + S_MXCSR, Number(slot(SLOT.mxcsr)) | MXCSR_TRACKED, true);
  for (let i = 0; i < 32; i++) view.setBigUint64(cpu + S_XMM + i * 8, slot(SLOT.xmm + i), true);
  const words = slot(SLOT.x87);
  const status = Number((words >> 16n) & 0xffffn);
  const top = (status >> 11) & 7;
  // A status word with a pending unmasked exception says so in ES and B, whatever they were.
  const pending = status & ~Number(words) & 0x3f ? 0x8080 : 0;
  view.setUint32(cpu + S_X87_CW, Number(words & 0xffffn), true);
  view.setUint32(cpu + S_X87_SW, (status & 0x477f) | pending, true);
  view.setUint32(cpu + S_X87_TOP, top, true);
  view.setUint32(cpu + S_X87_TAGS, Number((words >> 32n) & 0xffn), true);
  view.setUint32(cpu + S_X87_FOP, Number(words >> 48n), true);
  view.setBigUint64(cpu + S_X87_FIP, slot(SLOT.fip), true);
  view.setBigUint64(cpu + S_X87_FDP, slot(SLOT.fdp), true);
  for (let i = 0; i < 8; i++) {
    view.setBigUint64(register(cpu, top + i), slot(SLOT.st + i * 2), true);
    view.setBigUint64(register(cpu, top + i) + 8, slot(SLOT.st + i * 2 + 1) & 0xffffn, true);
  }
  const at = t.ram + (AREAS[area]?.at ?? 0);
  for (let k = SLOT.memory; k < s.length; k++) view.setBigUint64(at + (k - SLOT.memory) * 8, slot(k), true);
  view.setBigUint64(cpu + S_RIP, BigInt(START), true);
  view.setBigUint64(cpu + S_ICOUNT, 0n, true);
}

function save(t: Target, area: number): BigUint64Array {
  const { view, cpu } = t;
  const words = AREAS[area]?.words ?? 0;
  const s = new BigUint64Array(SLOT.memory + words);
  const u32 = (at: number) => view.getUint32(cpu + at, true);
  for (let n = 0; n < 16; n++) s[n] = view.getBigUint64(cpu + S_GPR + n * 8, true);
  s[SLOT.flags] = BigInt(t.getFlags() & FLAGS);
  s[SLOT.mxcsr] = BigInt(u32(S_MXCSR) & MXCSR_VISIBLE);
  for (let i = 0; i < 32; i++) s[SLOT.xmm + i] = view.getBigUint64(cpu + S_XMM + i * 8, true);
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
  s[SLOT.selectors] = [ES, DS, FS, GS].reduce((sum, n, i) => sum | (BigInt(view.getUint32(segment(n, SEG_SELECTOR), true)) << BigInt(16 * i)), 0n);
  s[SLOT.fsBase] = view.getBigUint64(segment(FS, SEG_BASE), true);
  s[SLOT.gsBase] = view.getBigUint64(segment(GS, SEG_BASE), true);
  const at = t.ram + (AREAS[area]?.at ?? 0);
  for (let k = 0; k < words; k++) s[SLOT.memory + k] = view.getBigUint64(at + k * 8, true);
  return s;
}

/** Runs `step` until the instruction is done. */
function execute(t: Target, area: number, step: () => number): FormOutcome | undefined {
  const { view, cpu } = t;
  const rip = () => Number(view.getBigUint64(cpu + S_RIP, true)) - START;
  let reason = NEXT;
  do reason = step();
  while (reason <= NEXT_CHECK && rip() === 0);
  if (reason === NEXT_INTERPRET) return undefined;
  const exc = view.getUint32(cpu + S_EXC, true);
  view.setUint32(cpu + S_EXC, 0, true);
  // The HLT after the instruction may be a part of a region and raises #GP in user mode.
  const trap = reason === EXIT_EXCEPTION ? (exc - 1 === GP && rip() !== 0 ? -1 : exc - 1) : reason <= NEXT_CHECK ? -1 : 1000 + reason;
  return {
    state: save(t, area),
    trap,
    error: trap >= 0 && trap < 32 ? view.getUint32(cpu + S_EXC_ERROR, true) : 0,
    address: trap === PAGE_FAULT ? view.getBigUint64(cpu + S_EXC_ADDR, true) : 0n,
    rip: rip(),
  };
}

/** One step at a time in the interpreter. */
export async function interpretedForms(): Promise<Executor> {
  const tier = await Tier.create(false);
  const { core } = tier;
  const machine: Machine = { gprs: new Array<bigint>(16).fill(0n), flags: 0, xmm: new Uint8Array(256), data: new Uint8Array(DATA_BYTES) };
  tier.load(new Uint8Array(CODE_BYTES).fill(HLT), machine);
  tier.mapSystemPage(GDT);
  const t: Target = {
    view: core.view,
    u8: core.u8,
    cpu: core.cpuAddress(0),
    ram: core.ramBase,
    getFlags: () => Number(core.getRflags(0)),
    setFlags: (flags) => core.setRflags(0, BigInt(flags | 0x202)),
    setSegment: (n, selector, base, attr) => core.setSegment(0, n, { selector, base, limit: 0xffff_ffff, attr }),
    flushTlb: () => core.tlbFlushAll(0),
  };
  const restore = setUp(t);
  return ({ code, area }, before) => {
    core.u8.set(code, core.ramBase + START);
    restore();
    load(t, before, area);
    return execute(t, area, () => core.step(0));
  };
}

/** Encodings compiled as one region each, many to a module; what compiled code hands back to the interpreter is undefined. */
export async function compiledForms(encodings: readonly FormEncoding[]): Promise<Executor> {
  const machine = await RuntimeMachine.create();
  for (const [at, bytes] of [
    [CODE, CODE_BYTES],
    [DATA, DATA_BYTES],
  ] as const) {
    for (let page = at; page < at + bytes; page += 4096) machine.map(BigInt(page), BigInt(page), 7n);
  }
  machine.map(BigInt(READ_ONLY), BigInt(READ_ONLY), 5n);
  machine.map(BigInt(GDT), BigInt(GDT), 3n);
  machine.setCpl(3);
  const { rt } = machine;
  const t: Target = {
    view: machine.view,
    u8: machine.u8,
    cpu: CPU,
    ram: RAM_BASE,
    getFlags: () => rt.getFlags(CPU) | machine.get(S_RFLAGS),
    setFlags: (flags) => {
      rt.setFlags(CPU, flags);
      machine.set(S_RFLAGS, (flags & ~STATUS) | 0x202);
    },
    setSegment: (n, selector, base, attr) => rt.setSegment(CPU, n, selector, base, 0xffff_ffff, attr),
    flushTlb: () => rt.tlbFlushAll(CPU),
  };
  const restore = setUp(t);
  const functions = regionFunctions(
    machine,
    encodings.map((e) => e.code),
    true,
  );
  const byEncoding = new Map(encodings.map((e, i) => [e, functions[i]]));
  return (encoding, before) => {
    const f = byEncoding.get(encoding);
    if (f === undefined) throw new RangeError('this encoding was not compiled');
    restore();
    machine.u8.set(encoding.code, RAM_BASE + START);
    load(t, before, encoding.area);
    return execute(t, encoding.area, () => f(CPU) >>> 0);
  };
}

const NAMES = [
  ...'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 flags mxcsr'.split(' '),
  ...Array.from({ length: 32 }, (_, i) => `xmm${i >> 1}.${i & 1}`),
  ...Array.from({ length: 16 }, (_, i) => `st${i >> 1}.${i & 1 ? 'e' : 'm'}`),
  ...'x87 fip fdp selectors fsbase gsbase'.split(' '),
];
const nameOf = (slot: number) => NAMES[slot] ?? `memory+${(slot - SLOT.memory) * 8}`;

const FLAG_BITS: Readonly<Record<string, number>> = { c: 1, p: 4, a: 0x10, z: 0x40, s: 0x80, o: 0x800 };

/** Bits of a slot that are compared. */
function maskOf(slot: number, undef: string): bigint {
  const all = 0xffff_ffff_ffff_ffffn;
  if (slot === SLOT.flags) return [...undef].reduce((mask, f) => mask & ~BigInt(FLAG_BITS[f] ?? 0), all);
  return all;
}

/** Differences between what was recorded and what happens, as text. */
export function formDifferences(encoding: FormEncoding, c: FormCase, got: FormOutcome): string[] {
  const bytes = new Uint8Array(16);
  bytes.set(encoding.code);
  const insn = decode(bytes, 0, 16, 64);
  if (typeof insn === 'string') return [`${Buffer.from(encoding.code).toString('hex')} does not decode`];
  const found: string[] = [];
  const check = (what: string, want: bigint | number, have: bigint | number) => {
    if (want !== have) found.push(`${what} ${have.toString(16)}, recorded ${want.toString(16)}`);
  };
  check('trap', c.trap, got.trap);
  check('error', c.error, got.error);
  check('address', c.address, got.address);
  check('rip', c.rip, got.rip);
  for (const [slot, want] of c.state.entries()) {
    const mask = maskOf(slot, insn.row.undef ?? '');
    check(nameOf(slot), want & mask, (got.state[slot] ?? 0n) & mask);
  }
  if (found.length === 0) return [];
  return [`${formatInsn(insn, BigInt(START))} [${Buffer.from(encoding.code).toString('hex')}] from state ${c.base}: ${found.join('; ')}`];
}
