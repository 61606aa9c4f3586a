import { accessSync, constants } from 'node:fs';
import { availableParallelism, freemem } from 'node:os';
import { delimiter, join } from 'node:path';
import { EMBEDDED_KERNEL } from '@pvm/pvm';
import type { CommandModule } from 'yargs';
import { cacheFolder } from '../image/cache.ts';

/** A finding: what was looked at, how it is, and what to do where it is not well. */
interface Finding {
  readonly state: 'ok' | 'warn' | 'fail';
  readonly what: string;
  readonly advice?: string;
}

const MIB = 2 ** 20;
/** The smallest modules that use a feature (https://github.com/WebAssembly/spec, binary format); an engine without it refuses them. */
const FEATURES: Readonly<Record<string, readonly number[]>> = {
  'WebAssembly SIMD': [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
  'WebAssembly relaxed SIMD': [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
  ],
  'WebAssembly tail calls': [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 6, 1, 4, 0, 18, 0, 11],
  'WebAssembly threads': [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65, 0, 254, 16, 2, 0, 26, 11],
};

function node(): Finding {
  const what = `Node ${process.versions.node}`;
  return Number(process.versions.node.split('.')[0]) >= 24 ? { state: 'ok', what } : { state: 'fail', what, advice: 'Node 24 or newer is needed' };
}

function feature([what, module]: [string, readonly number[]]): Finding {
  return WebAssembly.validate(new Uint8Array(module)) ? { state: 'ok', what } : { state: 'fail', what, advice: 'take a newer Node; without it nothing runs' };
}

/** The most guest RAM that this process gets; only addresses are taken, no memory. */
function guestMemory(): Finding {
  for (const mib of [3584, 2048, 1024, 512, 64]) {
    try {
      new WebAssembly.Memory({ initial: (mib + 256) * 16, maximum: 65536, shared: true });
      return mib === 3584
        ? { state: 'ok', what: 'guest RAM up to 3584 MiB' }
        : { state: 'warn', what: `guest RAM up to ${mib} MiB only`, advice: 'raise the limit of address space (ulimit -v)' };
    } catch (e) {
      if (!(e instanceof RangeError)) throw e;
    }
  }
  return { state: 'fail', what: 'no guest RAM', advice: 'raise the limit of address space (ulimit -v)' };
}

function host(): Finding[] {
  const free = Math.round(freemem() / MIB);
  const cores = availableParallelism();
  return [
    free >= 1024
      ? { state: 'ok', what: `${free} MiB of memory free` }
      : { state: 'warn', what: `${free} MiB of memory free`, advice: 'a stock kernel wants about 1 GiB' },
    cores > 1
      ? { state: 'ok', what: `${cores} processors` }
      : { state: 'warn', what: 'one processor', advice: 'the compiler shares it with the guest: hot code takes longer to get fast' },
  ];
}

function built(): Finding {
  try {
    accessSync(EMBEDDED_KERNEL);
    return { state: 'ok', what: 'the embedded guest kernel' };
  } catch {
    return { state: 'fail', what: 'the embedded guest kernel is not there', advice: 'run npm run build' };
  }
}

const hasProgram = (name: string): boolean =>
  (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

function images(): Finding {
  if (!hasProgram('xz')) return { state: 'warn', what: 'images (pvm run debian): xz is not there', advice: 'install xz-utils' };
  return { state: 'ok', what: `images (pvm run debian): packages ${hasProgram('apt-get') ? 'through apt' : 'by HTTPS'}, kept in ${cacheFolder()}` };
}

function terminal(): Finding {
  if (process.stdin.isTTY && process.stdout.isTTY) return { state: 'ok', what: `terminal, ${process.stdout.columns} x ${process.stdout.rows}` };
  return { state: 'ok', what: 'no terminal: input and output are files or pipes, keys like Ctrl-A X do not work' };
}

/** Everything that is looked at. */
export function findings(): Finding[] {
  return [
    node(),
    ...Object.entries(FEATURES).map(feature),
    guestMemory(),
    ...host(),
    built(),
    images(),
    terminal(),
    { state: 'ok', what: 'KVM and root are not needed' },
  ];
}

/** `pvm doctor`. */
export const doctorCommand: CommandModule = {
  command: 'doctor',
  describe: 'Say what this host can do, and what to do where something is missing',
  builder: (y) => y.usage('pvm doctor\n\nOne line for each thing that pvm needs: ok, warn or fail, and what to do. Leaves with 1 when something fails.'),
  handler: () => {
    const all = findings();
    for (const { state, what, advice } of all) process.stdout.write(`${state.padEnd(5)} ${what}${advice === undefined ? '' : `: ${advice}`}\n`);
    process.exitCode = all.some(({ state }) => state === 'fail') ? 1 : 0;
  },
};
