/** Replays AVX vectors in the interpreter and in compiled code. */
import { formatInsn } from '../src/decoder/index.ts';
import {
  CR4_OSXSAVE,
  EXIT_EXCEPTION,
  MXCSR_DEFAULT,
  MXCSR_TRACKED,
  MXCSR_VISIBLE,
  NEXT,
  NEXT_CHECK,
  S_CR4,
  S_EXC,
  S_GPR,
  S_MXCSR,
  S_RFLAGS,
  S_RIP,
  S_XCR0,
  S_XMM,
  S_YMM_HIGH,
} from '../src/layout.ts';
import { CPU, RAM_BASE, RuntimeMachine } from '../src/testing/runtime-machine.ts';
import type { AvxState } from './avx-case.ts';
import type { AvxCase, AvxEncoding } from './avx-vectors.ts';
import { CODE_BYTES, DATA, DATA_BYTES } from './program.ts';
import { regionFunctions } from './region-functions.ts';
import { Tier } from './tiers.ts';
import { START, WINDOW, WINDOW_BYTES } from './window.ts';

const STATUS = 0x8d5;
const GP = 13;
const HLT = 0xf4;
const CR4_OSXMMEXCPT = 1 << 10;
/** x87, SSE and AVX state enabled. */
const XCR0 = 7n;

export interface AvxGot {
  readonly state: AvxState;
  /** Exception vector, -1: none. */
  readonly trap: number;
  /** Exceptions were noted in MXCSR. */
  readonly tracked: boolean;
}
export type AvxExecutor = (encoding: AvxEncoding, before: AvxState) => AvxGot;

/** The state block at `cpu` of a memory, with the test's window of guest memory. */
class Machine {
  readonly view: DataView;
  readonly u8: Uint8Array;
  readonly cpu: number;
  readonly window: number;
  private readonly tracked: boolean;
  constructor(buffer: ArrayBufferLike, cpu: number, window: number, tracked: boolean) {
    this.view = new DataView(buffer);
    this.u8 = new Uint8Array(buffer);
    this.cpu = cpu;
    this.window = window;
    this.tracked = tracked;
  }
  enableAvx(): void {
    const { view, cpu } = this;
    view.setUint32(cpu + S_CR4, view.getUint32(cpu + S_CR4, true) | CR4_OSXSAVE | CR4_OSXMMEXCPT, true);
    view.setBigUint64(cpu + S_XCR0, XCR0, true);
  }
  load(s: AvxState): void {
    const { view, u8, cpu } = this;
    for (const [n, v] of s.gprs.entries()) view.setBigUint64(cpu + S_GPR + n * 8, v, true);
    u8.set(s.ymm.subarray(0, 256), cpu + S_XMM);
    u8.set(s.ymm.subarray(256), cpu + S_YMM_HIGH);
    u8.set(s.memory, this.window);
    view.setUint32(cpu + S_MXCSR, this.tracked || s.mxcsr !== MXCSR_DEFAULT ? s.mxcsr | MXCSR_TRACKED : s.mxcsr, true);
    view.setUint32(cpu + S_RFLAGS, 0x202, true);
    view.setBigUint64(cpu + S_RIP, BigInt(START), true);
  }
  save(flags: number): AvxState {
    const { view, u8, cpu } = this;
    const ymm = new Uint8Array(512);
    ymm.set(u8.subarray(cpu + S_XMM, cpu + S_XMM + 256));
    ymm.set(u8.subarray(cpu + S_YMM_HIGH, cpu + S_YMM_HIGH + 256), 256);
    return {
      gprs: Array.from({ length: 16 }, (_, n) => view.getBigUint64(cpu + S_GPR + n * 8, true)),
      ymm,
      flags,
      mxcsr: view.getUint32(cpu + S_MXCSR, true) & MXCSR_VISIBLE,
      memory: u8.slice(this.window, this.window + WINDOW_BYTES),
    };
  }
  takeTrap(reason: number): number {
    const { view, cpu } = this;
    const vector = view.getUint32(cpu + S_EXC, true) - 1;
    view.setUint32(cpu + S_EXC, 0, true);
    return reason === EXIT_EXCEPTION ? vector : reason <= NEXT_CHECK ? -1 : 1000 + reason;
  }
}

/** One step at a time in the interpreter. `tracked`: noting exceptions under MXCSR's default controls too. */
export async function interpretedAvx(tracked: boolean): Promise<AvxExecutor> {
  const { core } = await loadedTier();
  const m = new Machine(core.memory.buffer, core.cpuAddress(0), core.ramBase + WINDOW, tracked);
  m.enableAvx();
  return ({ code }, before) => {
    core.u8.set(code, core.ramBase + START);
    m.load(before);
    core.setRflags(0, BigInt(before.flags | 0x202));
    const trap = m.takeTrap(core.step(0));
    return { state: m.save(Number(core.getRflags(0)) & STATUS), trap, tracked };
  };
}
async function loadedTier(): Promise<Tier> {
  const tier = await Tier.create(false, false, 'v3');
  tier.load(new Uint8Array(CODE_BYTES).fill(HLT), {
    gprs: new Array<bigint>(16).fill(0n),
    flags: 0,
    xmm: new Uint8Array(256),
    data: new Uint8Array(DATA_BYTES),
  });
  return tier;
}

/** Compiled, one region each. */
export async function compiledAvx(encodings: readonly AvxEncoding[], tracked: boolean): Promise<AvxExecutor> {
  const machine = await RuntimeMachine.create();
  for (let page = DATA; page < DATA + DATA_BYTES; page += 4096) machine.map(BigInt(page), BigInt(page), 7n);
  machine.setCpl(3);
  const functions = regionFunctions(
    machine,
    encodings.map((e) => e.code),
    { tracked },
  );
  const list = new Map(encodings.map((e, i) => [e, functions[i]]));
  const m = new Machine(machine.memory.buffer, CPU, RAM_BASE + WINDOW, tracked);
  m.enableAvx();
  return (encoding, before) => {
    const f = list.get(encoding);
    if (f === undefined) throw new RangeError('this encoding was not compiled');
    m.load(before);
    machine.rt.setFlags(CPU, before.flags);
    let reason = NEXT;
    do reason = f(CPU) >>> 0;
    while (reason <= NEXT_CHECK && m.view.getBigUint64(CPU + S_RIP, true) === BigInt(START));
    const rip = Number(m.view.getBigUint64(CPU + S_RIP, true)) - START;
    const trap = m.takeTrap(reason);
    // The HLT after the instruction is a part of the region and raises #GP in user mode.
    return { state: m.save(machine.rt.getFlags(CPU) & STATUS), trap: trap === GP && rip !== 0 ? -1 : trap, tracked };
  };
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).reverse().toString('hex');
const register = (s: AvxState, n: number) => `${hex(s.ymm.subarray(256 + n * 16, 272 + n * 16))}_${hex(s.ymm.subarray(n * 16, n * 16 + 16))}`;

const isEqual = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
function agrees(c: AvxCase, { state, trap }: AvxGot, withMxcsr: boolean): boolean {
  const { after } = c;
  if (trap !== c.trap || state.flags !== after.flags || (withMxcsr && state.mxcsr !== after.mxcsr)) return false;
  return isEqual(state.ymm, after.ymm) && isEqual(state.memory, after.memory) && after.gprs.every((v, n) => v === state.gprs[n]);
}

/** Differences between what was recorded and what happens, as text. */
export function avxDifferences(encoding: AvxEncoding, c: AvxCase, got: AvxGot): string[] {
  const withMxcsr = encoding.mxcsr !== MXCSR_DEFAULT || got.tracked;
  if (agrees(c, got, withMxcsr)) return [];
  const found: string[] = [];
  const check = (what: string, want: string, have: string) => {
    if (want !== have) found.push(`${what} ${have}, recorded ${want}`);
  };
  check('trap', String(c.trap), String(got.trap));
  for (let n = 0; n < 16; n++) {
    check(`ymm${n}`, register(c.after, n), register(got.state, n));
    check(`gpr${n}`, String(c.after.gprs[n]), String(got.state.gprs[n]));
  }
  check('flags', c.after.flags.toString(16), got.state.flags.toString(16));
  check('memory', hex(c.after.memory), hex(got.state.memory));
  if (withMxcsr) check('mxcsr', c.after.mxcsr.toString(16), got.state.mxcsr.toString(16));
  const { insn } = encoding;
  const inputs = [insn.reg, insn.vvvv, insn.rm].map((n) => `ymm${n}=${register(c.before, n)}`).join(' ');
  return [`${formatInsn(insn)} [mxcsr ${encoding.mxcsr.toString(16)}]: ${found.join('; ')} (${inputs} memory=${hex(c.before.memory)})`];
}
