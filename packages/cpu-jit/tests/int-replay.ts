/** Replays integer vectors in the interpreter and in compiled code. */
import { decode, formatInsn } from '../src/decoder/index.ts';
import type { Insn } from '../src/decoder/types.ts';
import { EXIT_EXCEPTION, GS, NEXT, NEXT_CHECK, S_EXC, S_EXC_ADDR, S_EXC_ERROR, S_ICOUNT, S_RFLAGS, S_RIP, S_SEG, SEG_BASE, SEG_STRIDE } from '../src/layout.ts';
import { CPU, RuntimeMachine } from '../src/testing/runtime-machine.ts';
import { FLAGS, type IntCase, type IntEncoding, type IntState, PAGE_FAULT, START, WINDOW, WINDOW_BYTES } from './int-vectors.ts';
import { CODE, CODE_BYTES, DATA, DATA_BYTES, GS_BASE, type Machine, READ_ONLY } from './program.ts';
import { regionFunctions } from './region-functions.ts';
import { Tier } from './tiers.ts';

const GP = 13;
const HLT = 0xf4;
const FLAG_BITS: Readonly<Record<string, number>> = { c: 1, p: 4, a: 0x10, z: 0x40, s: 0x80, o: 0x800 };

/** What executing one instruction led to. */
export interface Got {
  readonly state: IntState;
  readonly trap: number;
  readonly error: number;
  readonly address: bigint;
  readonly rip: number;
  /** Instructions retired; chunks of a REP instruction count one each. */
  readonly retired: number;
}
/** Executes the instruction of `encoding` from a state. */
export type Executor = (encoding: IntEncoding, before: IntState) => Got;

/** One step at a time in the interpreter. */
export async function interpreted(): Promise<Executor> {
  const tier = await Tier.create(false);
  const { core } = tier;
  const machine: Machine = { gprs: new Array<bigint>(16).fill(0n), flags: 0, xmm: new Uint8Array(256), data: new Uint8Array(DATA_BYTES) };
  tier.load(new Uint8Array(CODE_BYTES).fill(HLT), machine);
  const cpu = core.cpuAddress(0);
  const window = core.ramBase + WINDOW;
  return ({ code }, before) => {
    core.u8.set(code, core.ramBase + START);
    before.gprs.forEach((v, n) => {
      core.setReg(0, n, v);
    });
    core.setRflags(0, BigInt(before.flags | 0x202));
    before.memory.forEach((v, k) => {
      core.view.setBigUint64(window + k * 8, v, true);
    });
    core.setRip(0, BigInt(START));
    core.view.setBigUint64(cpu + S_ICOUNT, 0n, true);
    let reason = NEXT;
    do reason = core.step(0);
    while (reason <= NEXT_CHECK && core.getRip(0) === BigInt(START));
    const trap = reason === EXIT_EXCEPTION ? core.view.getUint32(cpu + S_EXC, true) - 1 : reason <= NEXT_CHECK ? -1 : 1000 + reason;
    core.view.setUint32(cpu + S_EXC, 0, true);
    return {
      state: {
        gprs: Array.from({ length: 16 }, (_, n) => core.getReg(0, n)),
        flags: Number(core.getRflags(0)) & FLAGS,
        memory: Array.from({ length: WINDOW_BYTES / 8 }, (_, k) => core.view.getBigUint64(window + k * 8, true)),
      },
      trap,
      error: trap === PAGE_FAULT ? core.view.getUint32(cpu + S_EXC_ERROR, true) : 0,
      address: trap === PAGE_FAULT ? core.view.getBigUint64(cpu + S_EXC_ADDR, true) : 0n,
      rip: Number(core.getRip(0)) - START,
      retired: Number(core.view.getBigUint64(cpu + S_ICOUNT, true)),
    };
  };
}

/** Encodings compiled as one region each, many to a module. */
export async function compiled(encodings: readonly IntEncoding[]): Promise<Executor> {
  const machine = await RuntimeMachine.create();
  for (const [at, bytes] of [
    [CODE, CODE_BYTES],
    [DATA, DATA_BYTES],
  ] as const) {
    for (let page = at; page < at + bytes; page += 4096) machine.map(BigInt(page), BigInt(page), 7n);
  }
  machine.map(BigInt(READ_ONLY), BigInt(READ_ONLY), 5n);
  machine.setCpl(3);
  machine.set64(S_SEG + GS * SEG_STRIDE + SEG_BASE, BigInt(GS_BASE));
  const made = regionFunctions(
    machine,
    encodings.map((e) => e.code),
  );
  const functions = new Map(encodings.map((e, i) => [e, made[i]]));
  const { rt, view } = machine;
  return (encoding, before) => {
    const f = functions.get(encoding);
    if (f === undefined) throw new RangeError('this encoding was not compiled');
    before.gprs.forEach((v, n) => {
      machine.setReg(n, v);
    });
    rt.setFlags(CPU, before.flags);
    view.setUint32(CPU + S_RFLAGS, (before.flags & ~STATUS) | 0x202, true);
    before.memory.forEach((v, k) => {
      machine.setPhys64(WINDOW + k * 8, v);
    });
    machine.set64(S_RIP, BigInt(START));
    machine.set64(S_ICOUNT, 0n);
    let reason = NEXT;
    do reason = f(CPU) >>> 0;
    while (reason <= NEXT_CHECK && machine.get64(S_RIP) === BigInt(START));
    const rip = Number(machine.get64(S_RIP)) - START;
    const exc = machine.get(S_EXC);
    machine.set(S_EXC, 0);
    // The HLT after the instruction is a part of the region and raises #GP in user mode.
    const trap = reason === EXIT_EXCEPTION ? (exc - 1 === GP && rip !== 0 ? -1 : exc - 1) : reason <= NEXT_CHECK ? -1 : 1000 + reason;
    return {
      state: {
        gprs: Array.from({ length: 16 }, (_, n) => machine.reg(n)),
        flags: (rt.getFlags(CPU) | machine.get(S_RFLAGS)) & FLAGS,
        memory: Array.from({ length: WINDOW_BYTES / 8 }, (_, k) => machine.phys64(WINDOW + k * 8)),
      },
      trap,
      error: trap === PAGE_FAULT ? machine.get(S_EXC_ERROR) : 0,
      address: trap === PAGE_FAULT ? machine.get64(S_EXC_ADDR) : 0n,
      rip,
      retired: Number(machine.get64(S_ICOUNT)),
    };
  };
}

const STATUS = 0x8d5;

/** Flags the SDM leaves undefined for this instruction and state. */
function undefinedFlags(insn: Insn): number {
  let mask = 0;
  for (const f of insn.row.undef ?? '') mask |= FLAG_BITS[f] ?? 0;
  return mask;
}

const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');

/** Differences between what was recorded and what happens, as text. `strict`: undefined flags count too. */
export function differences(encoding: IntEncoding, c: IntCase, got: Got, strict = false): string[] {
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
  c.after.gprs.forEach((v, n) => {
    check(NAMES[n] ?? '', v, got.state.gprs[n] ?? 0n);
  });
  const mask = strict ? 0 : undefinedFlags(insn);
  check('flags', c.after.flags & ~mask, got.state.flags & ~mask);
  c.after.memory.forEach((v, k) => {
    check(`memory+${k * 8}`, v, got.state.memory[k] ?? 0n);
  });
  if (insn.rep === 0) check('retired', c.trap < 0 ? 1 : 0, got.retired);
  if (found.length === 0) return [];
  const inputs = c.before.gprs.map((v, n) => `${NAMES[n]}=${v.toString(16)}`).join(' ');
  return [
    `${formatInsn(insn, BigInt(START))} [${Buffer.from(encoding.code).toString('hex')}]: ${found.join('; ')} (flags=${c.before.flags.toString(16)} ${inputs})`,
  ];
}
