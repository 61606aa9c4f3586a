// Builds the workspace: the Wasm runtime, the interpreter, the switcher, then the JavaScript of each package. Steps whose inputs are older than
// their output are skipped.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Step {
  readonly name: string;
  /** Files and folders, relative to the root. */
  readonly inputs: readonly string[];
  /** Files whose presence says that the step was done. */
  readonly outputs: readonly string[];
  readonly command: readonly string[];
  readonly cwd?: string;
}

const tsc = join(root, 'node_modules/typescript/bin/tsc');
const script = (file: string): string[] => ['-C', 'source', join(root, file)];
/** In dependency order: each one sees the declarations of those before it. */
const PACKAGES = ['packages/cpu-jit', 'packages/shadow-mmu', 'packages/machine', 'packages/pvm', 'guests', 'packages/cli'];

const steps: Step[] = [
  {
    name: 'Wasm runtime',
    inputs: ['packages/cpu-jit/assembly', 'packages/cpu-jit/src/layout.ts', 'packages/cpu-jit/scripts/build-runtime.ts'],
    outputs: ['packages/cpu-jit/build/runtime.wasm'],
    command: script('packages/cpu-jit/scripts/build-runtime.ts'),
    cwd: 'packages/cpu-jit',
  },
  {
    name: 'interpreter',
    inputs: [
      ...['decoder', 'semantics', 'emit', 'interp', 'layout.ts'].map((part) => `packages/cpu-jit/src/${part}`),
      'packages/cpu-jit/scripts/build-interp.ts',
    ],
    outputs: ['interp', 'interp-avx', 'interp-legacy', 'interp-legacy-avx'].flatMap((name) =>
      ['wasm', 'keys'].map((kind) => `packages/cpu-jit/build/${name}.${kind}`),
    ),
    command: script('packages/cpu-jit/scripts/build-interp.ts'),
    cwd: 'packages/cpu-jit',
  },
  {
    name: 'switcher',
    inputs: [
      'packages/pvm/src/switcher',
      'packages/pvm/src/abi',
      'packages/pvm/src/abi-v2/constants.ts',
      'packages/pvm/src/abi-rfc-v1/constants.ts',
      'packages/pvm/scripts/build-switcher.ts',
      'packages/cpu-jit/src/layout.ts',
    ],
    outputs: ['packages/pvm/build/switcher.wasm'],
    command: script('packages/pvm/scripts/build-switcher.ts'),
    cwd: 'packages/pvm',
  },
  {
    name: 'report page',
    inputs: ['packages/cli/src/compare/page', 'packages/cli/scripts/build-page.ts', 'packages/cli/package.json'],
    outputs: ['packages/cli/build/compare-page.js'],
    command: script('packages/cli/scripts/build-page.ts'),
    cwd: 'packages/cli',
  },
  {
    name: 'configuration schema',
    inputs: ['packages/cli/src/config.ts', 'packages/cli/src/commands', 'packages/cli/scripts/build-schema.ts', 'packages/pvm/src'],
    outputs: ['packages/cli/build/vm.schema.json'],
    command: script('packages/cli/scripts/build-schema.ts'),
    cwd: 'packages/cli',
  },
  ...PACKAGES.map(
    (folder): Step => ({
      name: folder,
      inputs: [`${folder}/src`, 'tsconfig.base.json', ...PACKAGES.slice(0, PACKAGES.indexOf(folder)).map((p) => `${p}/src`)],
      outputs: [`${folder}/dist/index.js`],
      command: [tsc, '-p', `${folder}/tsconfig.json`],
    }),
  ),
  {
    name: 'command',
    inputs: [...PACKAGES.map((p) => `${p}/src`), 'packages/cli/scripts/build-bundle.ts', 'packages/cli/package.json'],
    outputs: ['packages/cli/build/bundle/main.js'],
    command: script('packages/cli/scripts/build-bundle.ts'),
    cwd: 'packages/cli',
  },
];

function newest(path: string): number {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((f) => f.isFile() && !f.name.endsWith('.test.ts'))
    .reduce((latest, f) => Math.max(latest, statSync(join(f.parentPath, f.name)).mtimeMs), 0);
}

/** When the step last succeeded, 0: never. */
function stampOf(step: Step): string {
  return join(root, 'node_modules/.pvm-build', step.name.replace(/[^a-z-]/gi, '_'));
}

mkdirSync(join(root, 'node_modules/.pvm-build'), { recursive: true });
for (const step of steps) {
  const stamp = stampOf(step);
  const inputs = step.inputs.map((i) => newest(join(root, i)));
  const done = existsSync(stamp) && step.outputs.every((o) => existsSync(join(root, o)));
  if (done && Math.max(...inputs) < statSync(stamp).mtimeMs) continue;
  const started = new Date();
  const result = spawnSync(process.execPath, [...step.command], { cwd: join(root, step.cwd ?? '.'), stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
  if (result.status !== 0) {
    console.error(`build of ${step.name} failed:\n${result.stdout}${result.stderr}`);
    process.exit(1);
  }
  writeFileSync(stamp, '');
  utimesSync(stamp, started, started);
  console.error(`built ${step.name} in ${((Date.now() - started.getTime()) / 1000).toFixed(1)} s`);
}
