// Writes tests/codegen.txt anew: how much Wasm the region emitter makes of some guest code. Run it after a change of the emitter that
// is meant to change that, and look at the difference.
import { writeFileSync } from 'node:fs';
import { CODEGEN_FILE, codegenTable } from '../tests/codegen.ts';

const table = codegenTable();
writeFileSync(CODEGEN_FILE, table);
