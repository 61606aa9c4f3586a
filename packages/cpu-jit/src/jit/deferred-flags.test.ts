import { expect, test } from 'vitest';
import { stateAtFault } from '../testing/state-at-fault.ts';
import { usesOnAllPaths } from './deferred-flags.ts';

const LOAD = [0x0f, 0xb6, 0x07]; // movzx eax, byte [rdi]
const NEXT = [0x48, 0x8d, 0x7f, 0x01]; // lea rdi, [rdi+1]

test.each([
  ['cmp of registers', [...LOAD, ...NEXT, 0x48, 0x39, 0xf7]],
  ['cmp of 32 bits', [...LOAD, ...NEXT, 0x39, 0xf7]],
  ['cmp of a byte with a number', [...LOAD, ...NEXT, 0x40, 0x80, 0xff, 0x81]],
  ['cmp of 16 bits with a number', [...LOAD, ...NEXT, 0x66, 0x81, 0xff, 0x34, 0xf2]],
  ['add, whose result is the pointer', [...LOAD, 0x48, 0x83, 0xc7, 0x01]],
  ['add of a register to itself', [...LOAD, ...NEXT, 0x01, 0xc9]],
  ['sub with the result in a register', [...LOAD, ...NEXT, 0x83, 0xe9, 0x07]],
  ['test of a register', [...LOAD, ...NEXT, 0x85, 0xff]],
  ['test with a number, whose result is nowhere', [...LOAD, ...NEXT, 0xf7, 0xc7, 0xff, 0x0f, 0, 0]],
  ['cmp whose operand changes afterwards', [...LOAD, 0x48, 0x39, 0xf7, ...NEXT]],
  ['cmp whose operand changes before the load that faults', [0x48, 0x8d, 0x76, 0x02, ...LOAD, ...NEXT, 0x48, 0x39, 0xf7]],
  ['dec, which keeps the carry', [...LOAD, ...NEXT, 0x48, 0x39, 0xf7, 0xff, 0xc9]],
  ['shift', [...LOAD, ...NEXT, 0xd1, 0xe9]],
  ['neg', [...LOAD, ...NEXT, 0xf7, 0xd9]],
  // cmp rdi, rsi; jb 1f; lea rsi, [rsi+1]; 1: load
  ['a path that writes an operand and one that does not', [0x48, 0x39, 0xf7, 0x72, 0x04, 0x48, 0x8d, 0x76, 0x01, ...LOAD, ...NEXT]],
  // 1: load; lea; cmp rdi, rsi; jne 2f; 2: setb dl; load
  ['flags that are read at the head of a block', [...LOAD, ...NEXT, 0x48, 0x39, 0xf7, 0x75, 0x00, 0x0f, 0x92, 0xc2, ...LOAD]],
])('a load that faults finds the flags of a %s before', async (_, body) => {
  expect(await stateAtFault('sync', body)).toEqual(await stateAtFault('interp', body));
});

test('what a block does with flags takes in the blocks that it passes them on to', () => {
  const use = (partial: object) => ({ reads: false, observed: false, clobbers: 0, passes: false, written: 0, ...partial });
  const own = new Map([
    [0, use({ passes: true, observed: true, written: 2 })],
    [1, use({ passes: true, written: 4 })],
    [2, use({ observed: true, clobbers: 8 })],
    [3, use({ reads: true })],
  ]);
  const successors = new Map([
    [0, [1]],
    [1, [2]],
    [2, [3]],
  ]);
  const uses = usesOnAllPaths(own, successors);
  expect(uses.get(0)).toMatchObject({ observed: true, reads: false, clobbers: 2 | 4 | 8 });
  expect(uses.get(1)).toMatchObject({ observed: true, reads: false, clobbers: 4 | 8 });
});
