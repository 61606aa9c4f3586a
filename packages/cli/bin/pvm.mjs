#!/usr/bin/env -S node --min-semi-space-size=8 --max-semi-space-size=8 --initial-old-space-size=64 --no-parallel-scavenge --no-wasm-inlining
// V8's young generation would grow to 48 MiB and stay so; with 4 MiB a half, scavenges take a twentieth of a boot's time. A scavenge on several threads waits for those
// that compile; the old generation is not collected before it has 64 MiB, which a boot does not reach: seven stops of up to 24 ms. Without inlining, which regions get no room for
// (engine-flags.ts), V8's baseline code does not count calls for it; once other Wasm was compiled it is too late for this flag.
// Checks the Node version before anything that needs it is loaded, and begins what takes long: the cache of compiled JavaScript, and the compiler thread, which loads
// the code generator meanwhile.
import { existsSync, mkdirSync } from 'node:fs';
import module from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

const major = Number(process.versions.node.split('.')[0]);
if (major < 24) {
  console.error(`pvm: needs Node 24 or newer, this is ${process.versions.node}; inside the workspace run it as \`npx pnpm@12 exec pvm\``);
  process.exit(2);
}
const argv = process.argv.slice(2);
// glibc's malloc reads these only when a process starts. As it is, each of V8's threads keeps what it once had: some 80 MiB after the boot of a kernel. Starting again takes 30 ms.
const malloc = { MALLOC_ARENA_MAX: '2', MALLOC_TRIM_THRESHOLD_: '131072' };
const isKernel = argv[0] === 'run' && argv.some((word) => word === 'debian' || /^--?kernel(=|$)/.test(word));
if (isKernel && process.platform === 'linux' && !Object.keys(malloc).some((name) => name in process.env)) {
  process.execve?.(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)], { ...process.env, ...malloc });
}
const caches = process.env.XDG_CACHE_HOME;
const compiled = join(caches?.startsWith('/') ? caches : join(homedir(), '.cache'), 'pvm', 'node');
// Node never returns from making it where nothing can be made, as under /proc (packages/cpu-jit/src/make-folders.ts); where it cannot be made there is none.
if (isFolder(compiled)) module.enableCompileCache(compiled);

function isFolder(path) {
  if (existsSync(path)) return true;
  try {
    if (isFolder(dirname(path))) mkdirSync(path);
  } catch {
    // Another process may have made it meanwhile.
  }
  return existsSync(path);
}

async function load() {
  // With --jit something else may be wanted.
  if (argv[0] === 'run' && !argv.some((word) => /^--?jit(=|$)/.test(word))) {
    const { prepareCompiler } = await import('../build/bundle/prepare.js');
    prepareCompiler();
  }
  return import('../build/bundle/main.js');
}
const { main } = await load().catch((error) => {
  if (error?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  console.error('pvm: not built yet; run `npm run build` in the workspace');
  process.exit(2);
});
await main(argv);
