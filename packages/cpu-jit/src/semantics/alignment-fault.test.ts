import { afterEach, describe, expect, test } from 'vitest';
import { Cpu } from '../api/index.ts';
import { S_HOT_THRESHOLD } from '../layout.ts';

/** Aligned SSE accesses among others: a misaligned one faults at its own instruction, after what stands before it was done (SDM vol. 1, 4.1.1). */

const CODE = 0x1_0000;
const DATA = 0x2_0000;
const GP = 13;
const HLT = 0xf4;
/** Instructions by their bytes; an access is [rsi + displacement]. */
const MOVAPS_LOAD = (d: number) => [0x0f, 0x28, 0x46, d];
const MOVUPS_LOAD = (d: number) => [0x0f, 0x10, 0x46, d];
const MOVAPS_STORE = (d: number) => [0x0f, 0x29, 0x46, d];
const MOV_LOAD = (d: number) => [0x8b, 0x46, d];
const INC_EDX = [0xff, 0xc2];
const VMOVAPS_256 = (d: number) => [0xc5, 0xfc, 0x28, 0x46, d];

/** Code, RSI - DATA, and how many INC EDX come before the fault (undefined: there is none). */
const rows: readonly (readonly [name: string, code: readonly (readonly number[])[], at: number, incs: number | undefined])[] = [
  ['aligned', [MOVAPS_LOAD(0), MOVAPS_STORE(0x10), INC_EDX], 0, undefined],
  ['the first of a group', [MOVAPS_LOAD(0), INC_EDX, MOVAPS_LOAD(0x10)], 8, 0],
  ['the last of a group', [MOV_LOAD(0), INC_EDX, MOVUPS_LOAD(4), INC_EDX, MOVAPS_STORE(0x10)], 8, 2],
  ['aligned after others that are not', [MOV_LOAD(3), MOVUPS_LOAD(5), MOVAPS_LOAD(0x20), INC_EDX], 0, undefined],
  ['two that cannot both be aligned', [MOVAPS_LOAD(0), INC_EDX, MOVAPS_STORE(8)], 0, 1],
  ['two that cannot both be aligned, the other one', [MOVAPS_LOAD(0), INC_EDX, MOVAPS_STORE(8)], 8, 0],
  ['a group over a page boundary', [MOVAPS_LOAD(0), MOVAPS_STORE(0x10), INC_EDX], 0xff0, undefined],
  ['misaligned in a group over a page boundary', [MOV_LOAD(0), INC_EDX, MOVAPS_STORE(0x10)], 0xff1, 1],
  ['32 bytes after 16', [MOVAPS_LOAD(0), INC_EDX, VMOVAPS_256(0x20)], 0x10, 1],
  ['32 bytes, aligned, after 16', [MOVAPS_LOAD(0x10), INC_EDX, VMOVAPS_256(0x20)], 0, undefined],
];

const made: Cpu[] = [];
afterEach(async () => {
  await Promise.all(made.splice(0).map((cpu) => cpu.dispose()));
});

describe.each(['interp', 'sync'] as const)('tier %s', (tier) => {
  test.each(rows)('%s', async (_, code, at, incs) => {
    const cpu = await Cpu.create({ memory: 4 << 20, tier, cpu: 'v3' });
    made.push(cpu);
    cpu.core.u32[(cpu.core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 1;
    cpu.load(CODE, [...code.flat(), HLT]);
    cpu.map(DATA, 0x3000, 'rw');
    // The second time it runs compiled.
    for (let i = 0; i < 3; i++) {
      cpu.set('rip', BigInt(CODE));
      cpu.set('rsi', BigInt(DATA + at));
      cpu.set('rdx', 0n);
      const stop = cpu.run();
      if (incs === undefined) expect(stop).toEqual({ kind: 'hlt' });
      else expect(stop).toMatchObject({ kind: 'exception', vector: GP });
      expect(cpu.get('rdx')).toBe(BigInt(incs ?? 1));
    }
    expect((cpu.core.stats(0).jit?.regions ?? 0) > 0).toBe(tier === 'sync');
  });
});
