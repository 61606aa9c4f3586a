import { expect, test } from 'vitest';
import { Cpu } from '../api/index.ts';
import { BD_COUNT, BD_HPA, BD_NEXT, BD_RATE, BLOCK_HEAD_COUNT, BLOCK_HEADS } from '../layout.ts';

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

/** Address of the descriptor of the block that begins `at` bytes into its page. */
function descriptorOf({ core: { u32 } }: Cpu, at: number): number {
  for (let i = 0; i < BLOCK_HEAD_COUNT; i++) {
    for (let d = u32[(BLOCK_HEADS >>> 2) + i] ?? 0; d !== 0; d = u32[(d + BD_NEXT) >>> 2] ?? 0) {
      if (((u32[(d + BD_HPA) >>> 2] ?? 0) & 0xfff) === at) return d;
    }
  }
  throw new Error(`no block begins at ${at}`);
}
/** How often the block that begins `at` bytes into its page was interpreted or entered as a region. */
function entriesOf(cpu: Cpu, at: number): number {
  return cpu.core.u32[(descriptorOf(cpu, at) + BD_COUNT) >>> 2] ?? 0;
}
/** BD_RATE of that block. */
function rateOf(cpu: Cpu, at: number): number {
  return cpu.core.view.getFloat32(descriptorOf(cpu, at) + BD_RATE, true);
}

test('how much more often the inner of two loops runs is noted when they are compiled', async () => {
  // MOV ECX, 1000; L: MOV EDX, 40; M: DEC EDX; JNE M; DEC ECX; JNE L; HLT
  const [inner, after] = [10, 14];
  await using cpu = await run([...count(1000), 0xba, 40, 0, 0, 0, 0xff, 0xca, 0x75, 0xfc, 0xff, 0xc9, 0x75, 0xf3, HLT], CODE);
  const ratio = rateOf(cpu, inner) / rateOf(cpu, after);
  expect(ratio).toBeGreaterThan(30);
  expect(ratio).toBeLessThan(60);
});

/** A loop of `rounds` that calls a function of 102 instructions twice. */
async function runCalls(rounds: number): Promise<{ cpu: Cpu; f: number }> {
  const f = CODE + 0x100;
  // L: CALL f; CALL f; DEC ECX; JNE L; HLT
  const call = (n: number) => [0xe8, ...rel32(CODE + COUNT.length + 5 * n, f)];
  const loop = [...call(1), ...call(2), 0xff, 0xc9, 0x75, 0xf2, HLT];
  const code = new Array<number>(0x200).fill(NOP);
  code.splice(0, COUNT.length + loop.length, ...count(rounds), ...loop);
  // f: 100 NOPs; INC RAX; RET. It has its own region first, for it is entered more often than the loop.
  code.splice(f - CODE + 100, 4, 0x48, 0xff, 0xc0, 0xc3);
  const cpu = await run(code, CODE);
  expect(cpu.get('rax')).toBe(BigInt(2 * rounds));
  return { cpu, f };
}

test('functions too long to be copied are merged with the loop that calls them often', async () => {
  const { cpu } = await runCalls(2 * ROUNDS);
  const { jit, interpreterBlocks } = cpu.core.stats(0);
  expect(jit?.merges).toBeGreaterThan(0);
  expect(interpreterBlocks).toBeLessThan(10_000);
  await cpu[Symbol.asyncDispose]();
});

test('a loop that does not come to the start of its region goes over to the merged one', async () => {
  const f = CODE + 0x100;
  const code = new Array<number>(0x200).fill(NOP);
  const rounds = 6 * ROUNDS;
  // MOV EBX, 1000; O: MOV EDX, 1; DEC EBX; JNE N; MOV EDX, rounds; N: CALL f; MOV ECX, EDX; JMP L; L: CALL f; DEC ECX; JNE L; TEST EBX, EBX; JNE O; HLT
  const call = (at: number) => [0xe8, ...rel32(CODE + at + 5, f)];
  const start = [0xbb, 0xe8, 3, 0, 0, 0xba, 1, 0, 0, 0, 0xff, 0xcb, 0x75, 5, 0xba, ...count(rounds).slice(1), ...call(19), 0x89, 0xd1, 0xeb, 0, ...call(28)];
  const end = [0xff, 0xc9, 0x75, 0xf7, 0x85, 0xdb, 0x75, 0xdc, HLT];
  code.splice(0, start.length + end.length, ...start, ...end);
  code.splice(f - CODE + 100, 4, 0x48, 0xff, 0xc0, 0xc3);
  await using cpu = await run(code, CODE);
  expect(cpu.get('rax')).toBe(BigInt(rounds + 1999));
  expect(cpu.core.stats(0).jit?.merges).toBeGreaterThan(0);
  expect(entriesOf(cpu, f & 0xfff)).toBeLessThan(rounds / 2);
});

test('what a merge would compile costs more than a few crossings', async () => {
  const { cpu, f } = await runCalls(ROUNDS / 2);
  expect(entriesOf(cpu, f & 0xfff)).toBeGreaterThan(32_768);
  expect(cpu.core.stats(0).jit?.merges).toBe(0);
  await cpu[Symbol.asyncDispose]();
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
