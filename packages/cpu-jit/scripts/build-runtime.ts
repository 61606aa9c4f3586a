/** Compiles the Wasm runtime (`assembly/`) to `build/runtime.wasm`. */
import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';
import { FRAME_POOL_BASE, RUNTIME_DATA_BASE } from '../src/layout.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const PAGE = 0x1_0000;

mkdirSync(`${root}build`, { recursive: true });

// Entries export on their own; x87 is separate because it is large.
const entries = ['assembly/index.ts', 'assembly/x87.ts'].filter((file) => existsSync(root + file));
const { error, stderr } = await asc.main(
  [
    ...entries,
    '--baseDir',
    root,
    '--outFile',
    'build/runtime.wasm',
    '--textFile',
    'build/runtime.wat',
    '--runtime',
    'stub',
    '--use',
    'abort=',
    '--optimizeLevel',
    '3',
    '--shrinkLevel',
    '0',
    '--converge',
    '--noAssert',
    '--disableWarning',
    '112',
    '--importMemory',
    '--sharedMemory',
    '--initialMemory',
    String(FRAME_POOL_BASE / PAGE),
    '--maximumMemory',
    '65536',
    '--memoryBase',
    String(RUNTIME_DATA_BASE),
    '--importTable',
    '--noExportMemory',
    '--enable',
    'threads,simd,bulk-memory,sign-extension,nontrapping-f2i,reference-types,mutable-globals,relaxed-simd',
  ],
  { stdout: process.stdout },
);
if (error) {
  process.stderr.write(`${stderr}\n${error.message}\n`);
  process.exitCode = 1;
}
