// Generates the parts of the interpreter in build/ from the semantics.
import { mkdirSync, writeFileSync } from 'node:fs';
import { buildInterpreter } from '../src/interp/build.ts';
import { handlerKeys } from '../src/interp/handler-forms.ts';
import { PARTS } from '../src/interp/handler-table.ts';

const out = new URL('../build/', import.meta.url);
mkdirSync(out, { recursive: true });
for (const part of Object.values(PARTS)) {
  const { wasm, forms } = buildInterpreter(part);
  writeFileSync(new URL(part.file, out), wasm);
  writeFileSync(new URL(part.keys, out), handlerKeys(part));
  console.log(`${part.file}: ${forms.length} forms, ${wasm.length} bytes`);
}
