import { expect, test } from 'vitest';
import { CpuCore } from '../cpu.ts';

const CODE = 0x1000;
const NOP = 0x90;
const HLT = 0xf4;

async function run(code: readonly number[], at: number): Promise<CpuCore> {
  const core = await CpuCore.create({ ramBytes: 8 << 20, jit: 'sync', mergeAfter: 256 });
  core.u8.set(code, core.ramBase + at);
  core.enterFlat(0, 'long', { rip: BigInt(at) });
  core.setReg(0, 4, 0x10_0000n);
  core.run(0);
  return core;
}
const rel32 = (from: number, to: number) => [...new Uint8Array(Int32Array.of(to - from).buffer)];

test('a loop with an instruction that lies in two pages runs compiled', async () => {
  // MOV ECX, 10000; L: ADD RAX, 0x11223344, which has its last bytes in the next page; DEC ECX; JNE L; HLT
  const loop = [0x48, 0x05, 0x44, 0x33, 0x22, 0x11, 0xff, 0xc9, 0x75, 0xf6];
  const core = await run([0xb9, 0x10, 0x27, 0, 0, ...loop, HLT], CODE + 0xff8);
  try {
    expect(core.getReg(0, 0)).toBe(0x11223344n * 10_000n);
    expect(core.stats(0).interpreterBlocks).toBeLessThan(1000);
  } finally {
    await core.dispose();
  }
});

test('functions too long to be copied are merged with the loop that calls them often', async () => {
  const f = CODE + 0x100;
  const head = [0xb9, 0x10, 0x27, 0, 0];
  // L: CALL f; MOV EDX, 3; M: DEC EDX; JNE M; DEC ECX; JNE L; HLT
  const loop = [0xe8, ...rel32(CODE + head.length + 5, f), 0xba, 3, 0, 0, 0, 0xff, 0xca, 0x75, 0xfc, 0xff, 0xc9, 0x75, 0xee, HLT];
  const code = new Array<number>(0x200).fill(NOP);
  code.splice(0, head.length + loop.length, ...head, ...loop);
  // f: 100 NOPs; INC RAX; RET. It has its own region first, for it is entered more often than what comes before the loop.
  code.splice(f - CODE + 100, 4, 0x48, 0xff, 0xc0, 0xc3);
  const core = await run(code, CODE);
  try {
    expect(core.getReg(0, 0)).toBe(10_000n);
    const { jit, jumpCacheMisses } = core.stats(0);
    expect(jit?.merges).toBeGreaterThan(0);
    expect(jumpCacheMisses).toBeLessThan(1000);
  } finally {
    await core.dispose();
  }
});
