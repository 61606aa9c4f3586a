/** Assembles src/switcher/switcher.wat into build/switcher.wasm: `node -C source scripts/build-switcher.ts`. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { assembleSwitcher } from '../src/switcher/assemble.ts';

const source = readFileSync(new URL('../src/switcher/switcher.wat', import.meta.url), 'utf8');
const binary = await assembleSwitcher(source);
mkdirSync(new URL('../build/', import.meta.url), { recursive: true });
writeFileSync(new URL('../build/switcher.wasm', import.meta.url), binary);
console.log(`switcher.wasm: ${binary.length} bytes`);
