// Measures the paper's tables under every design (`pvm bench all`), prints them and records them. Takes a stock Debian kernel by apt, unless one is named.
//   node -C source benchmarks/tables.ts [--kernel vmlinuz] [--scale N] [--json file]
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatBench } from '../packages/cli/src/bench/format.ts';
import type { BenchDocument } from '../packages/cli/src/bench/results.ts';
import { debianKernel } from '../tests/debian.ts';

const { values } = parseArgs({
  options: {
    kernel: { type: 'string' },
    scale: { type: 'string', default: '1' },
    json: { type: 'string', default: join(import.meta.dirname, 'results/tables.json') },
  },
});
const kernel = values.kernel ?? (await debianKernel('linux-image-cloud-amd64'));
if (kernel === undefined) console.error('No stock kernel (apt gave none): the rows in Linux are left out.');
const cli = join(import.meta.dirname, '../packages/cli/bin/pvm.mjs');
const args = [cli, 'bench', 'all', '--json', '--scale', values.scale, ...(kernel === undefined ? [] : ['--kernel', kernel])];
const start = performance.now();
const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 26 });
if (status !== 0) process.exit(status ?? 1);
writeFileSync(values.json, stdout);
console.log(formatBench(JSON.parse(stdout) as BenchDocument));
console.log(`\nTook ${((performance.now() - start) / 1000).toFixed(0)} s; recorded in ${values.json}`);
