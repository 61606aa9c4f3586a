import { expect, it } from 'vitest';
import { compileRequests } from './compile-requests.ts';
import type { CompileRequest } from './jit.ts';

const request: CompileRequest = {
  id: 7,
  desc: 0,
  insnCount: 5,
  hpa: 0x1000,
  codeSize: 64,
  tracked: false,
  pages: [],
  blocks: [
    [0, 5],
    [5, 10],
    [10, 14],
    [14, 15],
  ],
  entries: [{ offset: 10, hpa: 0x100a }],
  returnSites: [],
  targets: new Map(),
  isMerge: false,
  reportAfter: 1 << 15,
};

it('a region has the entries that were asked for, in their order, whatever its code offers', () => {
  // 0: call 20; 5: call 20; 10: dec ecx; 12: jnz 0; 14: hlt; another region starts at 20
  const code = [0xe8, 15, 0, 0, 0, 0xe8, 10, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf2, 0xf4];
  const u8 = new Uint8Array(0x3000);
  u8.set(code, 0x1000);
  const [result] = compileRequests(u8, [request]);
  expect(result).toMatchObject({ ids: [7] });
  expect(result?.failure).toBeUndefined();
  const functions = result?.module === undefined ? [] : WebAssembly.Module.exports(result.module).map(({ name }) => name);
  expect(functions).toEqual(['r0', 'r0_1', 'c0']);
});

it('a request whose code is not there any more is answered', () => {
  // jmp to itself, of two bytes where there were five
  const u8 = new Uint8Array(0x3000);
  u8.set([0xeb, 0xfe, 0xeb, 0xfe, 0xeb, 0xfe], 0x1000);
  expect(compileRequests(u8, [request])).toMatchObject([{ ids: [], vanished: [7] }]);
});

it('a request whose code has a branch now where a block went on is answered, and no failure', () => {
  // 0: a NOP of 5 bytes, jz 9; 7: dec ecx; 9: hlt. Then the NOP is jmp 9.
  const u8 = new Uint8Array(0x3000);
  const code = [0x0f, 0x1f, 0x44, 0, 0, 0x74, 2, 0xff, 0xc9, 0xf4];
  const blocks = [
    [0, 7],
    [7, 9],
    [9, 10],
  ] as const;
  u8.set(code, 0x1000);
  expect(compileRequests(u8, [{ ...request, blocks, entries: [] }])).toMatchObject([{ ids: [7] }]);
  u8.set([0xe9, 4, 0, 0, 0], 0x1000);
  const [result] = compileRequests(u8, [{ ...request, blocks, entries: [] }]);
  expect(result).toMatchObject({ ids: [], vanished: [7] });
});
