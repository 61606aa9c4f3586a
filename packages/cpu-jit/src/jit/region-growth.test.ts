import { expect, test } from 'vitest';
import { Cpu } from '../api/index.ts';

const CODE = 0x1000;
const NOP = 0x90;
const HLT = 0xf4;
const ROUNDS = 100_000;
/** MOV ECX, n */
const count = (n: number) => [0xb9, ...new Uint8Array(Int32Array.of(n).buffer)];
const COUNT = count(ROUNDS);

async function run(code: readonly number[], at: number): Promise<Cpu> {
  const cpu = await Cpu.create({ tier: 'sync' });
  cpu.load(at, code);
  cpu.map(0x8000, 0x1000);
  cpu.set('rsp', 0x9000);
  expect(cpu.run()).toEqual({ kind: 'hlt' });
  return cpu;
}
const rel32 = (from: number, to: number) => [...new Uint8Array(Int32Array.of(to - from).buffer)];

test('a loop with an instruction that lies in two pages runs compiled', async () => {
  // MOV ECX, ROUNDS; L: ADD RAX, 0x11223344, which has its last bytes in the next page; DEC ECX; JNE L; HLT
  const loop = [0x48, 0x05, 0x44, 0x33, 0x22, 0x11, 0xff, 0xc9, 0x75, 0xf6];
  await using cpu = await run([...COUNT, ...loop, HLT], CODE + 0xff8);
  expect(cpu.get('rax')).toBe(0x11223344n * BigInt(ROUNDS));
  expect(cpu.core.stats(0).interpreterBlocks).toBeLessThan(1000);
});

test('functions too long to be copied are merged with the loop that calls them often', async () => {
  const f = CODE + 0x100;
  // L: CALL f; CALL f; DEC ECX; JNE L; HLT
  const call = (n: number) => [0xe8, ...rel32(CODE + COUNT.length + 5 * n, f)];
  const loop = [...call(1), ...call(2), 0xff, 0xc9, 0x75, 0xf2, HLT];
  const code = new Array<number>(0x200).fill(NOP);
  code.splice(0, COUNT.length + loop.length, ...COUNT, ...loop);
  // f: 100 NOPs; INC RAX; RET. It has its own region first, for it is entered more often than the loop.
  code.splice(f - CODE + 100, 4, 0x48, 0xff, 0xc0, 0xc3);
  await using cpu = await run(code, CODE);
  expect(cpu.get('rax')).toBe(BigInt(2 * ROUNDS));
  const { jit, interpreterBlocks } = cpu.core.stats(0);
  expect(jit?.merges).toBeGreaterThan(0);
  expect(interpreterBlocks).toBeLessThan(10_000);
});

test('a function takes in its loop, which was compiled first', async () => {
  const f = CODE + 0x100;
  // Too few for a merge.
  const rounds = 5000;
  const calls = [0xe8, ...rel32(CODE + COUNT.length + 5, f), 0xff, 0xc9, 0x75, 0xf7, HLT];
  const code = new Array<number>(0x200).fill(NOP);
  code.splice(0, COUNT.length + calls.length, ...count(rounds), ...calls);
  // f: MOV EDX, 3; L: INC RAX; DEC EDX; JNE L; RET
  code.splice(f - CODE, 13, 0xba, 3, 0, 0, 0, 0x48, 0xff, 0xc0, 0xff, 0xca, 0x75, 0xf9, 0xc3);
  await using cpu = await run(code, CODE);
  expect(cpu.get('rax')).toBe(BigInt(3 * rounds));
  const heads = (await cpu.core.dumpCompiled(BigInt(f + 5))).map((text) => Number(/^region at (\w+)/.exec(text)?.[1]));
  expect(heads).toContain(f + 5);
  expect(heads.some((head) => head !== f + 5)).toBe(true);
});
