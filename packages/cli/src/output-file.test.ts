import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { OutputFile, writeWhole } from './output-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-output-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('a file appears whole when it is committed, and replaces the one before', async () => {
  const path = join(folder, 'a');
  writeFileSync(path, 'before');
  const file = await OutputFile.open(path, '--out');
  await file.write('x'.repeat(100_000));
  await file.write('y');
  expect(readFileSync(path, 'utf8')).toBe('before');
  await file.commit();
  await file.discard();
  expect(readFileSync(path, 'utf8')).toBe(`${'x'.repeat(100_000)}y`);
  expect(readdirSync(folder)).toEqual(['a']);
});

test('of a file that is given up nothing stays', async () => {
  const file = await OutputFile.open(join(folder, 'b'), '--out');
  await file.write('x'.repeat(100_000));
  await file.discard();
  expect(readdirSync(folder)).not.toContain('b');
  expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
});

test('a link stays a link, and what it leads to is replaced', async () => {
  const link = join(folder, 'link');
  writeFileSync(join(folder, 'c'), 'before');
  symlinkSync('c', link);
  await writeWhole(link, '--out', 'after');
  expect([readlinkSync(link), readFileSync(join(folder, 'c'), 'utf8')]).toEqual(['c', 'after']);
});

test('a pipe is written as it is, and is still one', async () => {
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const [text] = await Promise.all([readFile(pipe, 'utf8'), writeWhole(pipe, '--out', 'through the pipe')]);
  expect([text, statSync(pipe).isFIFO()]).toEqual(['through the pipe', true]);
});

test.each([
  ['in a folder that is not there', join(folder, 'no', 'file'), /--out .*no folder/],
  ['that is a folder', folder, /is a directory/],
])('a file %s is refused before any work', async (_, path, message) => {
  await expect(OutputFile.open(path, '--out')).rejects.toThrow(message);
});
