import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { makeFolders } from './make-folders.ts';

const root = mkdtempSync(join(tmpdir(), 'pvm-folders-'));
afterAll(() => rmSync(root, { recursive: true }));

test('folders are made as deep as asked for, and may be there already', () => {
  const path = join(root, 'a/b/c');
  makeFolders(path);
  makeFolders(path);
  expect(statSync(path).isDirectory()).toBe(true);
});

test('what is in the way is an error', () => {
  const file = join(root, 'file');
  writeFileSync(file, '');
  expect(() => makeFolders(join(file, 'x'))).toThrow(/ENOTDIR/);
});

test.runIf(existsSync('/proc/self'))('a place where nothing can be made is an error, and does not take for ever', () => {
  expect(() => makeFolders('/proc/nope/deeper')).toThrow(/ENOENT|EACCES|EPERM/);
});
