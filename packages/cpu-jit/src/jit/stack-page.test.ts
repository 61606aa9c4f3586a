import { expect, test } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HLT, S_EXC, S_GPR, STACK_ADDEND, STACK_TAG, V_EXC_BITMAP } from '../layout.ts';
import { KernelMachine } from '../testing/kernel-machine.ts';

const PAGE_FAULT = 14;
const TABLE = 0x4000;
/** The stack's page, the last of which is used, and two frames for it. */
const STACK = 0x20_0000;
const FRAMES = [0x30_0000, 0x30_1000] as const;
const [RCX, RDX, RSI, RDI] = [1, 2, 6, 7];
const PRESENT_WRITABLE = 3;

const INVLPG = [0x0f, 0x01, 0x7c, 0x24, 0xf8]; // invlpg [rsp-8]
const NOP = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/** Pushes RCX and pops it again, from an RSP of which nothing is known each time: the first finds the page in no TLB, the second in that, the third by what the second noted. */
const push = [0x49, 0x6b, 0xe0, 0x01, 0x51, 0x58]; // imul rsp, r8, 1; push rcx; pop rax

/** Pushes three times; then the entry of the stack's page becomes RSI, which is exchanged with RDX; RCX times. */
const code = (flush: readonly number[]) => [
  ...[0x49, 0xc7, 0xc0, 0x00, 0x10, 0x20, 0x00], // mov r8, STACK + 0x1000
  ...[...push, ...push, ...push], // 1:
  ...[0x48, 0x89, 0x37, ...flush], // mov [rdi], rsi
  ...[0x48, 0x87, 0xf2, 0x48, 0xff, 0xc9, 0x75, 0xde], // xchg rdx, rsi; dec rcx; jnz 1b
];

async function machineWith(flush: readonly number[], entries: readonly [number, number]): Promise<KernelMachine> {
  const machine = await KernelMachine.create(code(flush), 'sync');
  machine.put(0x3000 + 8, BigInt(TABLE | PRESENT_WRITABLE));
  machine.put(TABLE, BigInt(entries[0]));
  const set = (n: number, value: number) => machine.field(S_GPR + n * 8, value);
  set(RCX, 9);
  set(RSI, entries[1]);
  set(RDX, entries[0]);
  set(RDI, TABLE);
  return machine;
}

test('compiled code notes the page of the stack', async () => {
  const entry = FRAMES[0] | PRESENT_WRITABLE;
  const { core } = await machineWith(NOP, [entry, entry]);
  expect(core.run(0)).toBe(EXIT_HLT);
  expect(core.view.getBigUint64(STACK_TAG, true)).toBe(BigInt(STACK));
  expect(core.view.getUint32(STACK_ADDEND, true)).toBe(core.ramBase + FRAMES[0] - STACK);
  await core.dispose();
});

test('compiled code pushes to the page that INVLPG has made that of the stack', async () => {
  const machine = await machineWith(INVLPG, [FRAMES[0] | PRESENT_WRITABLE, FRAMES[1] | PRESENT_WRITABLE]);
  expect(machine.core.run(0)).toBe(EXIT_HLT);
  const pushed = (frame: number) => machine.core.view.getBigUint64(machine.core.ramBase + frame + 0xff8, true);
  expect([pushed(FRAMES[0]), pushed(FRAMES[1])]).toEqual([1n, 2n]);
  expect(machine.core.stats().compiledInstructions).toBeGreaterThan(50);
  await machine.core.dispose();
});

test('a push faults when the page of the stack is gone', async () => {
  const machine = await machineWith(INVLPG, [FRAMES[0] | PRESENT_WRITABLE, 0]);
  machine.field(V_EXC_BITMAP, 1 << PAGE_FAULT);
  expect(machine.core.run(0)).toBe(EXIT_EXCEPTION);
  expect(machine.field(S_EXC)).toBe(PAGE_FAULT + 1);
  expect(machine.field(S_GPR + RCX * 8)).toBe(8);
  await machine.core.dispose();
});
