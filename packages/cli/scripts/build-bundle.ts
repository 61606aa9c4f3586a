// Bundles the command `pvm` with everything it imports into a few files: Node takes a third of a second to find and link four hundred modules one by one.
import { rmSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'rolldown';

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const output = path('build/bundle');

rmSync(output, { recursive: true, force: true });
await build({
  input: { main: path('dist/main.js'), prepare: path('../pvm/dist/prepare.js'), worker: path('../cpu-jit/dist/jit/worker.js') },
  platform: 'node',
  // Debuggers of WebAssembly text, which few runs need.
  external: ['wabt'],
  plugins: [
    {
      name: 'files beside modules',
      transform(code, id) {
        // The thread's module is in the bundle, too.
        if (!code.includes('import.meta.url') || id.endsWith('worker-compiler.js')) return null;
        // All files of the bundle lie in one folder.
        const original = JSON.stringify(relative(output, id));
        return { code: code.replaceAll('import.meta.url', `new URL(${original}, import.meta.url).href`), map: null };
      },
    },
  ],
  output: { dir: output, format: 'esm', chunkFileNames: '[name].js' },
});
