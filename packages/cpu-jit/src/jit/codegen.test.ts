import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CODEGEN_FILE, codegenTable } from '../../tests/codegen.ts';

test('guest code becomes as much Wasm as tests/codegen.txt says; scripts/codegen.ts writes it anew', () => {
  expect(codegenTable()).toBe(readFileSync(CODEGEN_FILE, 'utf8'));
});
