import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { DamagedStore, MAX_STORE_BYTES, readStore, type StoreModule, writeStore } from './code-store.ts';
import type { StoredRegion } from './stored-region.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-store-'));
const file = join(folder, 'sub', 'a.pvm-code');
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => rmSync(join(folder, 'sub'), { recursive: true, force: true }));

const region: StoredRegion = {
  index: 1,
  key: 0xffff_ffff,
  codeSize: 64,
  tracked: false,
  insnCount: 2,
  maxInsns: 400,
  reach: 3,
  reforms: 0,
  merges: 2,
  within: 0xffe,
  blocks: [[0, 4]],
  entries: [],
  returnSites: [],
  targets: [[0, [4, 8]]],
  cold: [-8],
  stops: [],
  code: Uint8Array.of(1, 2, 3, 4),
};
const moduleOf = (bytes: number, idle = 0): StoreModule => ({ wasm: new Uint8Array(bytes).fill(bytes), regions: [region], idle });

describe('a file of compiled code', () => {
  it('gives back what was written, and leaves nothing else in its folder', () => {
    const modules = [moduleOf(10), moduleOf(3), { ...moduleOf(5), regions: [region, { ...region, index: 0, code: Uint8Array.of(9) }] }];
    writeStore(file, 'v', modules);
    expect(readStore(file, 'v')).toEqual(modules);
    expect(readdirSync(join(folder, 'sub'))).toEqual(['a.pvm-code']);
  });
  it('that is missing, or of another version, is empty', () => {
    expect(readStore(file, 'v')).toEqual([]);
    writeStore(file, 'v', [moduleOf(10)]);
    expect(readStore(file, 'w')).toEqual([]);
  });
  it.each([
    ['cut off', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['empty', () => Buffer.alloc(0)],
    ['of something else', () => Buffer.from('#!/bin/sh\n'.repeat(20))],
    [
      'changed in one bit',
      (bytes: Buffer) => {
        bytes.writeUInt8(bytes.readUInt8(60) ^ 1, 60);
        return bytes;
      },
    ],
  ])('that is %s is refused', (_, damage) => {
    writeStore(file, 'v', [moduleOf(10)]);
    writeFileSync(file, damage(readFileSync(file)));
    expect(() => readStore(file, 'v')).toThrow(DamagedStore);
  });
  it('is bounded: what was not used for longest stays outside, and what three runs had no use for', () => {
    const half = MAX_STORE_BYTES / 2;
    writeStore(file, 'v', [moduleOf(half, 2), moduleOf(half, 0), moduleOf(half, 1), moduleOf(1, 3)]);
    expect(readStore(file, 'v').map(({ idle }) => idle)).toEqual([0, 1]);
    writeStore(file, 'v', [moduleOf(1, 3), moduleOf(1, 2)]);
    expect(readStore(file, 'v').map(({ idle }) => idle)).toEqual([2]);
  });
  it('makes room in its folder by removing the files that were not used for longest', () => {
    writeStore(file, 'v', [moduleOf(10)]);
    for (const [name, year] of [
      ['old.pvm-code', 2001],
      ['older.pvm-code', 2000],
      ['other.txt', 1999],
    ] as const) {
      const path = join(folder, 'sub', name);
      writeFileSync(path, '');
      truncateSync(path, 200 << 20);
      utimesSync(path, new Date(year, 0), new Date(year, 0));
    }
    writeStore(file, 'v', [moduleOf(11)]);
    expect(readdirSync(join(folder, 'sub')).sort()).toEqual(['a.pvm-code', 'old.pvm-code', 'other.txt']);
  });
});
