import { expect, it } from 'vitest';
import { CpuCore } from '../cpu.ts';
import { EXIT_HLT, INTERCEPT_HLT, S_HOT_THRESHOLD, V_INTERCEPTS, V_NATIVE } from '../layout.ts';
import { hashTargets, UNUSED } from './target-hash.ts';

it.each([2, 4, 5, 19, 40, 62])('%i targets have a place each', (count) => {
  // Distances as between the cases of a switch: irregular, some before the branch.
  const targets = Array.from({ length: count }, (_, i) => (i - 3) * 24 + ((i * i * 7) % 19));
  const hash = hashTargets(targets);
  expect(hash?.slots.filter((slot) => slot !== UNUSED).toSorted((a, b) => a - b)).toEqual([...targets.keys()]);
  for (const [i, target] of targets.entries()) {
    const slot = hash === undefined ? -1 : (Math.imul(target, hash.multiplier) >>> hash.shift) & (hash.slots.length - 1);
    expect(hash?.slots[slot]).toBe(i);
  }
});

it('a jump through a table of forty places goes to each of them in compiled code', async () => {
  const [code, table, cases, length] = [0x1000, 0x3000, 0x1100, 40];
  const core = await CpuCore.create({ ramBytes: 1 << 20, jit: 'sync' });
  try {
    core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 16;
    core.enterFlat(0, 'protected', { rip: BigInt(code) });
    core.u32[(core.cpuAddress(0) + V_NATIVE) >>> 2] = 1;
    core.u32[(core.cpuAddress(0) + V_INTERCEPTS) >>> 2] = INTERCEPT_HLT;
    const bytes32 = (n: number) => [0, 8, 16, 24].map((shift) => (n >>> shift) & 0xff);
    const at = (address: number, bytes: readonly number[]) => core.u8.set(bytes, core.ramBase + address);
    // mov ecx, 4000; 1: mov edx, ecx; again: lea eax, [edx-40]; test eax, eax; cmovns edx, eax; jns again; jmp [table+edx*4]
    at(code, [0xb9, ...bytes32(4000), 0x89, 0xca, 0x8d, 0x42, 0xd8, 0x85, 0xc0, 0x0f, 0x49, 0xd0, 0x79, 0xf6, 0xff, 0x24, 0x95, ...bytes32(table)]);
    const end = code + 0x40;
    // dec ecx; jnz 1b; hlt
    at(end, [0xff, 0xc9, 0x0f, 0x85, ...bytes32(code + 5 - (end + 8)), 0xf4]);
    for (let i = 0; i < length; i++) {
      const place = cases + i * 17;
      at(table + i * 4, bytes32(place));
      // add ebx, (i + 1) * 3; jmp end
      at(place, [0x81, 0xc3, ...bytes32((i + 1) * 3), 0xe9, ...bytes32(end - (place + 11))]);
    }
    expect(core.run(0)).toBe(EXIT_HLT);
    expect(core.getReg(0, 3)).toBe(BigInt(100 * 3 * ((length * (length + 1)) / 2)));
    const { instructions, compiledInstructions } = core.stats();
    expect(compiledInstructions).toBeGreaterThan(Number(instructions) / 2);
  } finally {
    await core.dispose();
  }
});
