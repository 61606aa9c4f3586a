import { afterEach, describe, expect, test } from 'vitest';
import {
  EXIT_CR8,
  EXIT_HLT,
  EXIT_IO,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  EXIT_PAUSE,
  EXIT_PRIVILEGED,
  INTERCEPT_CACHE,
  INTERCEPT_CR8,
  INTERCEPT_MONITOR,
  INTERCEPT_MSR,
  INTERCEPT_RDPMC,
  INTERCEPT_XSETBV,
  S_CPL,
  S_CR0,
  S_CR4,
  S_CR8,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_ICOUNT,
  V_CR0_FLIP,
  V_CR0_MASK,
  V_CR4_FLIP,
  V_CR4_MASK,
  V_INTERCEPTS,
  V_IO_BITMAP,
  V_MSR_BITMAP,
  V_PLE_GAP,
  V_PLE_WINDOW,
  V_TPR_THRESHOLD,
} from './layout.ts';
import { CODE, KernelMachine } from './testing/kernel-machine.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const CR0_TS = 8;
const CR0_NE = 0x20;
const CR4_PAE = 0x20;
const CR4_MCE = 0x40;
const CR4_OSXSAVE = 1 << 18;

let m: KernelMachine;
async function machine(code: readonly number[], jit: 'off' | 'sync' = 'off'): Promise<KernelMachine> {
  m = await KernelMachine.create(code, jit);
  return m;
}
afterEach(() => m.core.dispose());
/** A page or two of set bits in the frame pool. */
function bitmap(pages: number): Uint8Array {
  return m.core.u8.subarray(m.core.framePoolBase, m.core.framePoolBase + pages * 4096).fill(0xff);
}

describe.each(['off', 'sync'] as const)('the I/O bitmap (JIT %s)', (jit) => {
  const run = async (code: readonly number[], port: number) => {
    await machine(code, jit);
    const bits = bitmap(2);
    bits[0x80 >> 3] = 0xfe;
    bits[0x3f8 >> 3] = 0xfe;
    m.field(V_IO_BITMAP, m.core.framePoolBase);
    m.core.setReg(0, RAX, 0x1234_5678n);
    m.core.setReg(0, RDX, BigInt(port));
    return m.core.run(0);
  };
  test.each([
    ['IN of an open port gives all ones', [0xec], 0x80, 0x1234_56ffn],
    ['OUT to an open port goes nowhere', [0xe6, 0x80], 0, 0x1234_5678n],
  ])('%s, without an exit', async (_, code, port, rax) => {
    expect(await run(code, port)).toBe(EXIT_HLT);
    expect(m.core.getReg(0, RAX)).toBe(rax);
  });
  test.each([
    ['a closed port', [0xec], 0x81],
    ['two ports of which one is closed', [0x66, 0xed], 0x3f8],
    ['an access that wraps around', [0x66, 0xef], 0xffff],
  ])('%s leaves', async (_, code, port) => {
    expect(await run(code, port)).toBe(EXIT_IO);
    expect(m.field(S_EXIT_VA)).toBe(port);
    expect(m.core.getRip(0)).toBe(BigInt(CODE));
  });
});

describe.each(['off', 'sync'] as const)('the MSR bitmap (JIT %s)', (jit) => {
  const FS_BASE = 0xc000_0100;
  test.each([
    ['RDMSR', [0x0f, 0x32], 1024, EXIT_MSR_READ],
    ['WRMSR', [0x0f, 0x30], 3072, EXIT_MSR_WRITE],
  ])('lets %s through for an MSR whose bit is clear', async (_, code, half, reason) => {
    await machine([...code, 0xff, 0xc1, ...code], jit);
    const bits = bitmap(1);
    // MSR_FS_BASE, and not the one after it, which INC ECX names.
    bits[half + (0x100 >> 3)] = 0xfe;
    m.field(V_MSR_BITMAP, m.core.framePoolBase);
    m.field(V_INTERCEPTS, INTERCEPT_MSR);
    m.core.setReg(0, RCX, BigInt(FS_BASE));
    expect(m.core.run(0)).toBe(reason);
    expect(m.core.getRip(0)).toBe(BigInt(CODE + 4));
    // The hypervisor has the CPU do it.
    expect(m.core.doMsr(0, reason)).toBe(true);
    expect(m.core.run(0)).toBe(EXIT_HLT);
  });
});

describe('the task-priority shadow', () => {
  test('a MOV to CR8 leaves only when it goes below the threshold, and is done then', async () => {
    // mov cr8, rax; mov cr8, rbx; mov rcx, cr8
    await machine([0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x22, 0xc3, 0x44, 0x0f, 0x20, 0xc1]);
    m.field(V_INTERCEPTS, INTERCEPT_CR8);
    m.field(V_TPR_THRESHOLD, 5);
    m.core.setReg(0, RAX, 5n);
    m.core.setReg(0, RBX, 4n);
    expect(m.core.run(0)).toBe(EXIT_CR8);
    expect(m.core.getRip(0)).toBe(BigInt(CODE + 8));
    expect(m.field(S_CR8)).toBe(4);
    expect(m.core.run(0)).toBe(EXIT_HLT);
    expect(m.core.getReg(0, RCX)).toBe(4n);
  });
});

describe.each(['off', 'sync'] as const)('pause-loop exiting (JIT %s)', (jit) => {
  // l: pause; dec ecx; jnz l
  const LOOP = [0xf3, 0x90, 0xff, 0xc9, 0x75, 0xfa];
  const start = async (gap: number, count: number) => {
    await machine(LOOP, jit);
    m.field(V_PLE_GAP, gap);
    m.field(V_PLE_WINDOW, 300);
    m.core.setReg(0, RCX, BigInt(count));
  };
  test('a loop of PAUSE longer than the window leaves, again and again', async () => {
    await start(10, 250);
    const exits: bigint[] = [];
    while (m.core.run(0) === EXIT_PAUSE) exits.push(m.core.view.getBigUint64(m.core.cpuAddress(0) + S_ICOUNT, true));
    // 750 instructions; the first PAUSE begins a loop, and 100 rounds later 300 have passed.
    expect(exits.length).toBe(2);
    expect(Number((exits[1] ?? 0n) - (exits[0] ?? 0n))).toBeGreaterThan(300);
    expect(m.core.getReg(0, RCX)).toBe(0n);
  });
  test('PAUSEs far apart are no loop', async () => {
    await start(2, 250);
    expect(m.core.run(0)).toBe(EXIT_HLT);
  });
  test('user code may wait as long as it likes', async () => {
    await start(10, 250);
    m.field(S_CPL, 3);
    m.put(0x3000, 0x87n);
    m.core.modeChanged(0);
    // HLT at CPL 3 is a #GP that nobody can take.
    expect(m.core.run(0)).not.toBe(EXIT_PAUSE);
  });
});

describe('read shadows of CR0 and CR4', () => {
  test('an owned bit that is set reads as clear, in every way to read it', async () => {
    // mov rax, cr0; smsw ebx; mov rcx, cr4
    await machine([0x0f, 0x20, 0xc0, 0x0f, 0x01, 0xe3, 0x0f, 0x20, 0xe1]);
    m.field(S_CR0, m.field(S_CR0) | CR0_NE);
    m.field(S_CR4, m.field(S_CR4) | CR4_MCE);
    m.field(V_CR0_FLIP, CR0_NE);
    m.field(V_CR4_FLIP, CR4_MCE);
    expect(m.core.run(0)).toBe(EXIT_HLT);
    expect([RAX, RBX].map((n) => Number(m.core.getReg(0, n)) & CR0_NE)).toEqual([0, 0]);
    expect(Number(m.core.getReg(0, RCX)) & CR4_MCE).toBe(0);
  });
  test('writing back what was read changes neither the register nor leaves; changing the bit leaves with the value', async () => {
    // mov rax, cr0; or al, 8; mov cr0, rax; or al, 0x20; mov cr0, rax
    await machine([0x0f, 0x20, 0xc0, 0x0c, CR0_TS, 0x0f, 0x22, 0xc0, 0x0c, CR0_NE, 0x0f, 0x22, 0xc0]);
    const real = (m.field(S_CR0) | CR0_NE) >>> 0;
    m.field(S_CR0, real);
    m.field(V_CR0_FLIP, CR0_NE);
    m.field(V_CR0_MASK, ~CR0_TS);
    expect(m.core.run(0)).toBe(EXIT_PRIVILEGED);
    expect(m.core.getRip(0)).toBe(BigInt(CODE + 10));
    expect(m.field(S_CR0)).toBe((real | CR0_TS) >>> 0);
    expect(m.field(S_EXIT_VALUE)).toBe((real | CR0_TS | CR0_NE) >>> 0);
    m.core.writeControl(0, S_CR0, BigInt((real | CR0_NE) >>> 0));
    expect(m.core.run(0)).toBe(EXIT_HLT);
  });
  test('what the CPU refuses is refused to the hypervisor too', async () => {
    await machine([0x0f, 0x22, 0xe0]);
    m.field(V_CR4_MASK, -1);
    m.core.setReg(0, RAX, BigInt(CR4_PAE | 0x8000_0000));
    expect(m.core.run(0)).toBe(EXIT_PRIVILEGED);
    m.core.writeControl(0, S_CR4, BigInt(CR4_PAE | 0x8000_0000) & 0xffff_ffffn);
    expect(m.field(S_CR4)).toBe(CR4_PAE);
    expect(m.core.getRip(0)).toBe(BigInt(CODE));
  });
});

test.each([
  ['XSETBV', [0x0f, 0x01, 0xd1], INTERCEPT_XSETBV],
  ['WBINVD', [0x0f, 0x09], INTERCEPT_CACHE],
  ['INVD', [0x0f, 0x08], INTERCEPT_CACHE],
  ['MONITOR', [0x0f, 0x01, 0xc8], INTERCEPT_MONITOR],
  ['MWAIT', [0x0f, 0x01, 0xc9], INTERCEPT_MONITOR],
  ['RDPMC', [0x0f, 0x33], INTERCEPT_RDPMC],
])('%s leaves for its own bit', async (_, code, bit) => {
  await machine(code);
  m.field(S_CR4, m.field(S_CR4) | CR4_OSXSAVE);
  m.core.setReg(0, RAX, 1n);
  m.field(V_INTERCEPTS, bit);
  expect(m.core.run(0)).toBe(EXIT_PRIVILEGED);
  expect(m.core.getRip(0)).toBe(BigInt(CODE));
});
