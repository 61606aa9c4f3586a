// Bundles the command `pvm` with everything it imports into a few files: Node takes a third of a second to find and link four hundred modules one by one.
import { rmSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'rolldown';

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const output = path('build/bundle');

/** Work of packages that few runs need, some 25 ms of processor time together. */
const LATER = [
  // The first segmenter reads ICU's tables; texts are measured only for help.
  {
    file: /\/string-width\/index\.js$/,
    from: /^const segmenter = new Intl\.Segmenter\(\);$/m,
    to: 'let made;\nconst segmenter = { segment: (text) => (made ??= new Intl.Segmenter()).segment(text) };',
  },
  // The text of help, laid out before a command runs in case it asks for it later, which ours do not.
  { file: /\/yargs\/build\/lib\/command\.js$/, from: /^ *yargs\.getInternalMethods\(\)\.getUsageInstance\(\)\.cacheHelpMessage\(\);$/m, to: '' },
] as const;

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
    {
      name: 'what packages do at each start, when it is needed',
      transform(code, id) {
        const change = LATER.find(({ file }) => file.test(id));
        if (change === undefined) return null;
        const made = code.replace(change.from, change.to);
        if (made === code) throw new Error(`${id}: is not as it was when this was written`);
        return { code: made, map: null };
      },
    },
  ],
  output: { dir: output, format: 'esm', chunkFileNames: '[name].js' },
});
