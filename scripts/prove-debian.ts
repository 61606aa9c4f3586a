/**
 * Proves that a stock Debian 12 works: builds a disk from its packages, boots it with Debian's kernel to a login, and works through a list of commands and devices.
 *
 *     npm run prove:debian -- [--kernel cloud|generic] [--design NAME] [--cpu v2|v3] [--clock host|icount] [--only REGEXP] [--quick] [--list] [--log FILE] [--disk FOLDER]
 *
 * Needs apt with Debian's archive, and the first time minutes and 400 MB of downloads. Prints a table; exit code 1 when something failed.
 */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { DESIGN_NAMES, type DesignName, type VmOptions } from '../packages/pvm/src/index.ts';
import { DEVICE_ITEMS, deviceOptions, hostSide } from '../tests/debian-proof/devices.ts';
import { debianDisk, KERNEL_NAMES, type KernelName, ROOT_PASSWORD } from '../tests/debian-proof/image.ts';
import { ITEMS } from '../tests/debian-proof/items.ts';
import { type Proof, prove, proveDevice, table } from '../tests/debian-proof/prove.ts';
import { GuestSession } from '../tests/debian-proof/session.ts';

const BOOT_MS = 1_800_000;
const END_MS = 600_000;

const { values } = parseArgs({
  options: {
    kernel: { type: 'string', default: 'cloud' },
    design: { type: 'string', default: 'bare' },
    cpu: { type: 'string', default: 'v3' },
    clock: { type: 'string', default: 'icount' },
    append: { type: 'string', default: '' },
    only: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    log: { type: 'string' },
    disk: { type: 'string', default: join(import.meta.dirname, '../node_modules/.pvm-cache/debian-proof') },
  },
});

/** One of the values that an option may have. */
function choice<T extends string>(name: string, given: string, known: readonly T[]): T {
  const found = known.find((value) => value === given);
  if (found !== undefined) return found;
  console.error(`--${name} ${given}: expected ${known.join(', ')}`);
  process.exit(2);
}

const kernelName: KernelName = choice('kernel', values.kernel, KERNEL_NAMES);
const design: DesignName = choice('design', values.design, DESIGN_NAMES);
const cpu = choice('cpu', values.cpu, ['v2', 'v3']);
const clock = choice('clock', values.clock, ['host', 'icount']);
const wanted = new RegExp(values.only);
const items = ITEMS.filter((item) => wanted.test(item.name) && (!values.quick || item.quick === true) && (item.generic !== true || kernelName === 'generic'));
const devices = values.quick ? [] : DEVICE_ITEMS.filter(({ name, needs }) => wanted.test(name) && (needs !== 'generic' || kernelName === 'generic'));
if (values.list) {
  for (const { name } of [...items, ...devices]) console.log(name);
  process.exit(0);
}

const image = await debianDisk(values.disk, (line) => console.error(line));
if (image === undefined) {
  console.error('Debian packages cannot be had here: apt with the archive of Debian 12 is needed');
  process.exit(2);
}
const work = mkdtempSync(join(tmpdir(), 'pvm-prove-'));
const log = values.log;
if (log !== undefined) writeFileSync(log, '');
const host = hostSide(work);
const options: VmOptions = {
  ...image.kernel(kernelName),
  ...deviceOptions(host, image.disk),
  commandLine: `console=ttyS0 root=/dev/vda ro ${values.append}`.trim(),
  memory: '1G',
  design,
  cpu,
  clock,
};
const proofs: Proof[] = [];
const say = (proof: Proof): void => {
  proofs.push(proof);
  console.error(`${proof.problem === undefined ? 'ok' : 'FAILED'}  ${proof.seconds.toFixed(1)} s  ${proof.name}`);
  if (proof.problem !== undefined) console.error(proof.problem.replaceAll(/^/gm, '    '));
};
try {
  await using guest = await GuestSession.boot(options, (text) => log !== undefined && appendFileSync(log, text));
  const start = performance.now();
  await guest.logIn('root', ROOT_PASSWORD, BOOT_MS);
  say({ name: `boot to a login: ${kernelName} kernel, ${design}, ${cpu}, ${clock}`, seconds: (performance.now() - start) / 1000, problem: undefined });
  for (const item of items) say(await prove(guest, item));
  for (const item of devices) say(await proveDevice(guest, host, item));
  const before = performance.now();
  guest.type('poweroff\n');
  const late = setTimeout(() => guest.vm.abort(), END_MS);
  const { stopReason } = await guest.end();
  clearTimeout(late);
  say({ name: 'power-off', seconds: (performance.now() - before) / 1000, problem: stopReason === 'poweroff' ? undefined : `ended with ${stopReason}` });
} finally {
  rmSync(work, { recursive: true, force: true });
}
console.log(table(proofs));
process.exitCode = proofs.some(({ problem }) => problem !== undefined) ? 1 : 0;
