import { afterAll, beforeAll, expect, test } from 'vitest';
import { Prng } from '../../tests/prng.ts';
import { CODE, CODE_BYTES, DATA, DATA_BYTES, READ_ONLY, STACK, STACK_BYTES } from '../../tests/program.ts';
import { randomMachine } from '../../tests/random-program.ts';
import { compareRuns, Tier } from '../../tests/tiers.ts';
import { type LoopFacts, windowsOf } from './paged-loops.ts';

const HLT = 0xf4;
const [RCX, RDX, RBX, RSI, RDI, R8] = [1, 2, 3, 6, 7, 8] as const;
const POINTERS = [RDX, RSI, RDI] as const;

let interpreter: Tier;
let compiler: Tier;
let compiledEntries = 0;
beforeAll(async () => {
  interpreter = await Tier.create(false);
  compiler = await Tier.create(true);
});
afterAll(async () => {
  for (const tier of [interpreter, compiler]) await tier.core.dispose();
});

/** [pointer + disp32] as an operand beside register `reg`; with RCX times 2^scale if `scale` is there. */
function memory(reg: number, pointer: number, disp: number, scale?: number): number[] {
  const bytes = [disp & 0xff, (disp >> 8) & 0xff, (disp >> 16) & 0xff, (disp >> 24) & 0xff];
  return scale === undefined ? [0x80 | (reg << 3) | pointer, ...bytes] : [0x80 | (reg << 3) | 4, (scale << 6) | (RCX << 3) | pointer, ...bytes];
}

/** An instruction that reads or writes where a pointer is. RAX, RBX, XMM0 to XMM3 hold what was read. */
function access(rng: Prng): number[] {
  const pointer = rng.pick(POINTERS);
  const at = (reg: number) => memory(reg, pointer, rng.oneIn(3) ? rng.below(64) - 32 : 16 * (rng.below(4) - 1), rng.oneIn(5) ? rng.below(4) : undefined);
  const value = rng.oneIn(2) ? 0 : 3;
  return rng.pick([
    () => [0x8b, ...at(value)], // mov eax, [m]
    () => [0x48, 0x03, ...at(value)], // add rax, [m]
    () => [0x0f, 0xb6, ...at(value)], // movzx eax, byte [m]
    () => [0x48, 0x89, ...at(value)], // mov [m], rax
    () => [0x01, ...at(value)], // add [m], eax
    () => [0x88, ...at(value)], // mov [m], al
    () => [0x48, 0x83, ...at(7), 5], // cmp qword [m], 5
    () => [0x0f, 0x10, ...at(value)], // movups xmm0, [m]
    () => [0x0f, 0x11, ...at(value)], // movups [m], xmm0
    () => [0x0f, 0x28, ...at(value)], // movaps xmm0, [m]
    () => [0x0f, 0x29, ...at(value)], // movaps [m], xmm0
    () => [0x66, 0x0f, 0xfe, ...at(value)], // paddd xmm0, [m]
    () => [0x48, 0x0f, 0x44, ...at(value)], // cmovz rax, [m]
    () => [0x11, ...at(value)], // adc [m], eax
  ])();
}

/** Reads or writes at a place that what was read decides: in a table, or anywhere (the compiler does not know that XOR leaves its bounds as they are). */
function lookUp(rng: Prng): number[] {
  const mask = rng.pick([0x7, 0xff, 0xff, 0x3ff, 0xfff, 0x1fff]);
  const index = rng.pick([
    () => [0x0f, 0xb6, 0xd8], // movzx ebx, al
    () => [0x89, 0xc3, 0x81, 0xe3, mask & 0xff, mask >> 8, 0, 0], // mov ebx, eax; and ebx, mask
    () => [0x48, 0x89, 0xc3, 0x81, 0xe3, mask & 0xff, mask >> 8, 0, 0, 0x83, 0xf3, 0x01], // mov rbx, rax; and ebx, mask; xor ebx, 1
    () => [0x89, 0xc3, 0xc1, 0xeb, 20 + rng.below(12)], // mov ebx, eax; shr ebx, 20..31
    () => [0x0f, 0xb6, 0xdc], // movzx ebx, ah
  ])();
  const pointer = rng.pick(POINTERS);
  const at = (reg: number) => {
    const disp = rng.pick([0, 0, 8, -64, 300]);
    return [0x80 | (reg << 3) | 4, (rng.below(3) << 6) | (RBX << 3) | pointer, disp & 0xff, (disp >> 8) & 0xff, (disp >> 16) & 0xff, (disp >> 24) & 0xff];
  };
  const use = rng.pick([
    () => [0x8b, ...at(0)], // mov eax, [m]
    () => [0x33, ...at(0)], // xor eax, [m]
    () => [0x0f, 0xb6, ...at(0)], // movzx eax, byte [m]
    () => [0xff, ...at(0)], // inc dword [m]
    () => [0x48, 0x89, ...at(0)], // mov [m], rax
    () => [0xff, ...at(6)], // push [m]
  ])();
  return [...index, ...use];
}

/** A pointer moves by a constant, or once in a while by another register. */
function move(rng: Prng): number[] {
  const pointer = rng.pick(POINTERS);
  const by = rng.pick([1, 2, 4, 8, 16, 24, 32, -1, -4, -8, -16, 64, 256, 0]) & 0xff;
  return rng.pick([
    () => [0x48, 0x83, 0xc0 | pointer, by], // add pointer, by
    () => [0x48, 0x83, 0xe8 | pointer, by], // sub pointer, by
    () => [0x48, 0x8d, 0x40 | (pointer << 3) | pointer, by], // lea pointer, [pointer + by]
    () => [0x48, 0xff, 0xc0 | pointer], // inc pointer
    () => (rng.oneIn(2) ? [0x4c, 0x01, 0xc0 | pointer] : [0x48, 0xff, 0xc8 | pointer]), // add pointer, r8; dec pointer
  ])();
}

/** A loop of random accesses, with pointers that move on, ways out and short cuts; it ends after RCX turns, or by a fault. */
function randomLoop(rng: Prng): number[] {
  const body: number[] = [];
  const looksUp = rng.oneIn(2);
  const piece = () => (rng.oneIn(3) ? move(rng) : looksUp && rng.oneIn(2) ? lookUp(rng) : access(rng));
  for (let n = 1 + rng.below(5); n > 0; n--) {
    body.push(...piece());
    if (!rng.oneIn(5)) continue;
    // A short cut over a piece, or a way out of the loop: to the byte after the last turn, patched below.
    const skipped = piece();
    body.push(0x70 | rng.below(16), skipped.length, ...skipped);
  }
  body.push(...(rng.oneIn(4) ? [0x48, 0x83, 0xe9, 1] : [0x48, 0xff, 0xc9])); // sub rcx, 1 or dec rcx
  if (rng.oneIn(4)) body.push(...access(rng), 0x48, 0x85, 0xc9); // test rcx, rcx
  if (rng.oneIn(4)) body.push(0x70 | rng.below(16), 6); // jcc out
  const back = -(body.length + 6);
  body.push(0x0f, 0x85, back & 0xff, (back >> 8) & 0xff, (back >> 16) & 0xff, (back >> 24) & 0xff); // jnz
  return body;
}

/** Where a pointer begins: anywhere in memory that is mapped, most often near where a page ends, and in code that may change under the loop. */
function place(rng: Prng): bigint {
  const [base, bytes] = rng.pick([
    [DATA, DATA_BYTES],
    [DATA, DATA_BYTES],
    [STACK, STACK_BYTES],
    [READ_ONLY, 4096],
    [CODE + 0x1000, CODE_BYTES - 0x1000],
  ] as const);
  const offset = rng.oneIn(3) ? rng.below(bytes) : 4096 * (1 + rng.below(bytes / 4096)) - rng.below(200);
  return BigInt(base + (rng.oneIn(3) ? offset : offset & ~15));
}

function compareLoops(seeds: readonly number[], interval: (seed: number) => number): string[] {
  const found: string[] = [];
  for (const seed of seeds) {
    const rng = new Prng(BigInt(seed));
    const machine = randomMachine(BigInt(seed));
    const gprs = [...machine.gprs];
    for (const pointer of POINTERS) gprs[pointer] = place(rng);
    gprs[R8] = BigInt(rng.pick([8, 16, 40, 100, 1000, 2000, -8]));
    gprs[RCX] = BigInt(1 + rng.below(rng.pick([4, 40, 400])));
    const code = new Uint8Array(CODE_BYTES).fill(HLT);
    code.set([...randomLoop(rng), ...(rng.oneIn(3) ? [0xb9, 50, 0, 0, 0, ...randomLoop(rng)] : [])]);
    const [expected, got] = [interpreter, compiler].map((tier) => {
      tier.load(code, { ...machine, gprs });
      return tier.run({ warm: seed % 4 !== 0, interval: interval(seed), threshold: 1 + (seed % 3) * 4 });
    });
    if (expected === undefined || got === undefined) throw new Error('there are two tiers');
    compiledEntries += compiler.core.stats(0).compiledEntries;
    found.push(...compareRuns(expected, got).map((line) => `seed ${seed}: ${line}`));
  }
  return found;
}

const [FIRST, COUNT] = [Number(process.env.PVM_LOOP_SEED ?? 1), Number(process.env.PVM_LOOP_SEEDS ?? 120)];
const seeds = Array.from({ length: COUNT }, (_, i) => FIRST + i);

test('loops whose pages are checked before they run end like interpreted ones: with the same memory, faults and retired instructions', () => {
  expect(compareLoops(seeds, () => 0)).toEqual([]);
  expect(compiledEntries).toBeGreaterThan(COUNT / 2);
});
test('they stop for the instruction limit where interpreted ones do', () => {
  expect(compareLoops(seeds.slice(0, 60), (seed) => 1 + (seed % 41))).toEqual([]);
});

test('a window moves as its registers do in each way through a turn, and a loop without known ways has none', () => {
  const [pointer, other] = [
    { root: 1, offset: 0 },
    { root: 2, offset: 0 },
  ];
  const facts = (turns: LoopFacts['turns'], callsHelpers = false): LoopFacts => ({
    registers: new Map([
      [1, RSI],
      [2, RDI],
    ]),
    sums: new Map([[3, { base: 1, index: 2, scale: 0 }]]),
    bounds: new Map(),
    accesses: [{ at: { root: 1, offset: 8 }, size: 4, writes: false, alignment: undefined }],
    turns,
    callsHelpers,
  });
  const turn = (offset: number, root = 1): LoopFacts['turns'][number] => {
    const registers: { root: number; offset: number }[] = [];
    registers[RSI] = { root, offset };
    registers[RDI] = other;
    return registers;
  };
  const step = (f: LoopFacts) => windowsOf(f)?.map((w) => [w.min, w.end, w.step, w.strides]);
  expect(step(facts([turn(4), turn(12)]))).toEqual([[8, 12, 12, []]]);
  expect(step(facts([turn(0, 3)]))).toEqual([[8, 12, 0, [[RDI, 1]]]]);
  expect([facts([]), facts([turn(4), turn(-4)]), facts([turn(4000)]), facts([turn(0, 9)]), facts([turn(4)], true)].map(step)).toEqual(
    new Array(5).fill(undefined),
  );
  const access = (root: number, offset: number, size: number) => ({ at: { root, offset }, size, writes: false, alignment: undefined });
  expect(step({ ...facts([turn(4)]), accesses: [access(1, -32, 8)] })).toEqual([[-32, -24, 4, []]]);
  const table = { sums: new Map([[4, { base: 1, index: 5, scale: 2 }]]), bounds: new Map([[5, 255]]), accesses: [access(4, 0, 4), access(6, 0, 4)] };
  expect(step({ ...facts([turn(0)]), ...table })).toEqual([[0, 1024, 0, []]]);
  expect(step({ ...facts([turn(0)]), ...table, accesses: [...table.accesses, access(6, 8, 4)] })).toBeUndefined();
  expect(step({ ...facts([turn(4)]), accesses: [{ at: pointer, size: 16, writes: true, alignment: 16 }] })).toBeUndefined();
});
