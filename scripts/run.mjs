// `npm start`, `npm test` and `npm run build` on a fresh machine: Node 20 and npm are enough. Installs the workspace with pnpm (which brings
// Node 24 as the package `node`), builds, and goes on with that Node.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const PNPM = 'pnpm@12.21.0';
const node = join(root, 'node_modules/.bin/node');

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.error !== undefined) {
    console.error(`pvm: cannot start ${command}: ${result.error.message}`);
    process.exit(1);
  }
  if (result.status !== 0) process.exit(result.status ?? 1);
}

/** Installs when node_modules is missing or older than the lock file. Everything it prints goes to stderr. */
function install() {
  const marker = join(root, 'node_modules/.modules.yaml');
  const fresh = existsSync(marker) && existsSync(node) && statSync(marker).mtimeMs >= statSync(join(root, 'pnpm-lock.yaml')).mtimeMs;
  if (fresh) return;
  const args = ['--yes', PNPM, 'install', ...(process.env.CI ? ['--frozen-lockfile'] : [])];
  run('npx', args, { stdio: ['ignore', 2, 2] });
}

const nodeScript = (file, ...args) => run(node, ['-C', 'source', join(root, file), ...args], { stdio: ['inherit', 2, 2] });

function build() {
  nodeScript('scripts/build.ts');
}

const task = process.argv[2];
const rest = process.argv.slice(3);
install();
switch (task) {
  case 'build':
    build();
    break;
  case 'start':
    build();
    run(node, [join(root, 'packages/cli/bin/pvm.mjs'), 'demo', ...rest]);
    break;
  case 'test':
    build();
    run(node, [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '-p', '.']);
    run(node, [join(root, 'node_modules/@biomejs/biome/bin/biome'), 'check', '.']);
    run(node, [join(root, 'node_modules/vitest/vitest.mjs'), 'run', ...rest]);
    break;
  default:
    console.error('usage: node scripts/run.mjs start|test|build');
    process.exit(2);
}
