// Generates build/interp.wasm from the semantics.
import { mkdirSync, writeFileSync } from 'node:fs';
import { buildInterpreter } from '../src/interp/build.ts';

const out = new URL('../build/', import.meta.url);
mkdirSync(out, { recursive: true });
const { wasm, forms } = buildInterpreter();
writeFileSync(new URL('interp.wasm', out), wasm);
console.log(`interpreter: ${forms.length} forms, ${wasm.length} bytes`);
