import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { OutputFile } from './output-file.ts';

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

test.each([
  ['in a folder that is not there', join(folder, 'no', 'file'), /--out .*no folder/],
  ['that is a folder', folder, /is a directory/],
])('a file %s is refused before any work', async (_, path, message) => {
  await expect(OutputFile.open(path, '--out')).rejects.toThrow(message);
});
