#!/usr/bin/env node
// Checks the Node version before anything that needs it is loaded.
const major = Number(process.versions.node.split('.')[0]);
if (major < 24) {
  console.error(`pvm: needs Node 24 or newer, this is ${process.versions.node}; inside the workspace run it as \`npx pnpm@12 exec pvm\``);
  process.exit(2);
}
const { main } = await import('../dist/main.js').catch((error) => {
  if (error?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  console.error('pvm: not built yet; run `npm run build` in the workspace');
  process.exit(2);
});
await main(process.argv.slice(2));
