// Generates build/interp.wasm from the semantics.
import { mkdirSync, writeFileSync } from 'node:fs';
import { buildInterpreter } from '../src/interp/build.ts';

const out = new URL('../build/', import.meta.url);
mkdirSync(out, { recursive: true });
for (const [file, legacy] of [
  ['interp.wasm', false],
  ['interp-legacy.wasm', true],
] as const) {
  const { wasm, forms } = buildInterpreter(legacy);
  writeFileSync(new URL(file, out), wasm);
  console.log(`${file}: ${forms.length} forms, ${wasm.length} bytes`);
}
