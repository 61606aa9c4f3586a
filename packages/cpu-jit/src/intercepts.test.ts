import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import type { CpuCore } from './cpu.ts';
import {
  EXIT_EXCEPTION,
  EXIT_HLT,
  EXIT_PRIVILEGED,
  EXIT_SOFT_INT,
  INTERCEPT_CR,
  INTERCEPT_CR3_LOAD,
  INTERCEPT_ENTRY,
  INTERCEPT_PRIVILEGED,
  INTERCEPT_RETURN,
  INTERCEPT_SENSITIVE,
  S_CR3,
  S_CR4,
  S_EXIT_VA,
  S_IDTR,
  S_RFLAGS,
  V_CR0_MASK,
  V_CR4_MASK,
  V_EXC_BITMAP,
  V_INTERCEPTS,
} from './layout.ts';
import { CODE, HLT, KernelMachine, PML4, STACK } from './testing/kernel-machine.ts';

let core: CpuCore;
let base = 0;
let field: KernelMachine['field'];

async function machine(code: readonly number[], jit: 'off' | 'sync' = 'off'): Promise<void> {
  await core?.dispose();
  const made = await KernelMachine.create(code, jit);
  core = made.core;
  base = core.cpuAddress(0);
  field = made.field.bind(made);
}
beforeEach(() => machine([HLT]));
afterAll(() => core.dispose());

describe.each(['off', 'sync'] as const)('an intercepted instruction leaves before it does anything, and one that is not runs (JIT %s)', (jit) => {
  test.each([
    ['LGDT', [0x0f, 0x01, 0x10], INTERCEPT_PRIVILEGED],
    ['LIDT', [0x0f, 0x01, 0x18], INTERCEPT_PRIVILEGED],
    ['LLDT', [0x0f, 0x00, 0xd1], INTERCEPT_PRIVILEGED],
    ['MOV DR7', [0x0f, 0x23, 0xf8], INTERCEPT_PRIVILEGED],
    ['MOV from DR7', [0x0f, 0x21, 0xf8], INTERCEPT_PRIVILEGED],
    ['CLTS', [0x0f, 0x06], INTERCEPT_PRIVILEGED],
    ['CLTS by CR', [0x0f, 0x06], INTERCEPT_CR],
    ['WBINVD', [0x0f, 0x09], INTERCEPT_PRIVILEGED],
    ['MOV to CR2', [0x0f, 0x22, 0xd0], INTERCEPT_CR],
    ['MOV to CR3', [0x0f, 0x22, 0xd8], INTERCEPT_CR3_LOAD],
    ['MOV from CR0', [0x0f, 0x20, 0xc0], INTERCEPT_SENSITIVE],
    ['CLI', [0xfa], INTERCEPT_SENSITIVE],
    ['STI', [0xfb], INTERCEPT_SENSITIVE],
    ['POPF that sets IF', [0x68, 0x02, 0x02, 0, 0, 0x9d], INTERCEPT_SENSITIVE],
    ['SWAPGS', [0x0f, 0x01, 0xf8], INTERCEPT_SENSITIVE],
    ['STAC', [0x0f, 0x01, 0xcb], INTERCEPT_SENSITIVE],
    ['MOV to DS', [0x66, 0xb8, 0x10, 0, 0x8e, 0xd8], INTERCEPT_SENSITIVE],
    ['MOV to SS', [0x66, 0xb8, 0x10, 0, 0x8e, 0xd0], INTERCEPT_SENSITIVE],
    ['IRETQ', [0x48, 0xcf], INTERCEPT_SENSITIVE],
    ['RETFQ', [0x48, 0xcb], INTERCEPT_SENSITIVE],
  ])('%s', async (_, code, bit) => {
    const before = code.length > 2 && (code[0] === 0x66 || code[0] === 0x68) ? (code[0] === 0x66 ? 4 : 5) : 0;
    await machine(code, jit);
    core.setReg(0, 0, BigInt(PML4));
    field(V_INTERCEPTS, bit);
    expect(core.run(0)).toBe(EXIT_PRIVILEGED);
    expect(core.getRip(0)).toBe(BigInt(CODE + before));
    // Once it is let through, it does its work and the HLT behind it is reached.
    field(V_INTERCEPTS, 0);
    expect(core.run(0)).toBe(EXIT_HLT);
    expect(core.getRip(0)).toBe(BigInt(CODE + code.length + 1));
    expect((core.stats(0).jit?.regions ?? 0) > 0).toBe(jit === 'sync');
  });
});

test('a POPF that leaves IF and IOPL as they are is none of those', async () => {
  await machine([0x68, 0xd7, 0x08, 0, 0, 0x9d]);
  field(V_INTERCEPTS, INTERCEPT_SENSITIVE);
  expect(core.run(0)).toBe(EXIT_HLT);
  expect(core.getRflags(0)).toBe(0x8d7n);
});

describe('bits of CR0 and CR4 that the hypervisor owns', () => {
  test.each([
    ['a change of one leaves', [0x0f, 0x22, 0xe0], 0x20 | 0x80, V_CR4_MASK, 0x80, true],
    ['a change of another one does not', [0x0f, 0x22, 0xe0], 0x20 | 0x80, V_CR4_MASK, 0x40, false],
    ['LMSW that sets an owned MP leaves', [0x0f, 0x01, 0xf0], 0x3, V_CR0_MASK, 0x2, true],
    ['LMSW that changes nothing does not', [0x0f, 0x01, 0xf0], 0x1, V_CR0_MASK, 0xf, false],
    ['CLTS of a clear TS does not', [0x0f, 0x06], 0, V_CR0_MASK, 0x8, false],
  ])('%s', async (_, code, value, mask, bits, leaves) => {
    await machine(code);
    core.setReg(0, 0, BigInt(value));
    field(mask, bits);
    expect(core.run(0)).toBe(leaves ? EXIT_PRIVILEGED : EXIT_HLT);
    if (!leaves) return;
    expect(field(S_CR4)).toBe(0x20);
    expect(core.getRip(0)).toBe(BigInt(CODE));
  });
});

test('only a return to CPL 3 leaves for INTERCEPT_RETURN', async () => {
  await machine([0x48, 0xcf]);
  field(V_INTERCEPTS, INTERCEPT_RETURN);
  expect(core.run(0)).toBe(EXIT_HLT);
  await machine([0x48, 0xcf]);
  core.view.setBigUint64(core.ramBase + STACK + 8, 0x23n, true);
  core.view.setBigUint64(core.ramBase + STACK + 32, 0x1bn, true);
  field(V_INTERCEPTS, INTERCEPT_RETURN);
  expect(core.run(0)).toBe(EXIT_PRIVILEGED);
  expect(core.getReg(0, 4)).toBe(BigInt(STACK));
});

test('an injected event is delivered although its vector is intercepted, and a fault on the way makes it a double fault', async () => {
  await machine([0x0f, 0x0b]);
  const idt = 0xb000;
  const gate = (vector: number, present: bigint) =>
    core.view.setBigUint64(core.ramBase + idt + 16 * vector, BigInt(CODE + 2) | 0x8_0000n | (0x0e00n << 32n) | (present << 47n), true);
  gate(6, 1n);
  gate(8, 1n);
  core.view.setBigUint64(base + S_IDTR, BigInt(idt), true);
  field(S_IDTR + 8, 0xfff);
  field(V_EXC_BITMAP, -1);
  expect(core.run(0)).toBe(EXIT_EXCEPTION);
  expect(core.inject(0, 6, 'fault')).toBe(true);
  expect(core.getRip(0)).toBe(BigInt(CODE + 2));
  expect(core.view.getBigUint64(core.ramBase + STACK - 40, true)).toBe(BigInt(CODE));
  // #GP has no gate: #NP on the way to it, both contributory.
  expect(core.inject(0, 13, 'fault', 0)).toBe(true);
  expect(core.view.getBigUint64(core.ramBase + STACK - 96, true)).toBe(0n);
  gate(8, 0n);
  expect(core.inject(0, 13, 'fault', 0)).toBe(false);
});

test('INT n leaves for INTERCEPT_ENTRY, with its vector', async () => {
  await machine([0xcd, 0x80]);
  field(V_INTERCEPTS, INTERCEPT_ENTRY);
  expect(core.run(0)).toBe(EXIT_SOFT_INT);
  expect(field(S_EXIT_VA)).toBe(0x80);
  expect(field(S_RFLAGS) & 0x200).toBe(0);
  expect(field(S_CR3)).toBe(PML4);
});
