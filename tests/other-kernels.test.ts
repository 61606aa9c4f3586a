// Kernels that are not Linux, from Debian's packages, unmodified.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { createVm, type VmOptions } from '../packages/pvm/src/index.ts';
import { debianPackage } from './debian.ts';

/** PVM_TEST_DEBIAN=1 runs a whole pass of memtest86+, which takes minutes. */
const WHOLE = process.env['PVM_TEST_DEBIAN'] === '1';
const LIMIT = { timeout: WHOLE ? 1_800_000 : 300_000 };

/** A file of a package under /boot; undefined when the package cannot be had here. */
async function bootFile(name: string, file: RegExp): Promise<Uint8Array | undefined> {
  const files = await debianPackage(name);
  if (files === undefined) return undefined;
  const found = readdirSync(join(files, 'boot')).find((entry) => file.test(entry));
  if (found === undefined) throw new Error(`${name}: nothing in /boot is called ${file}`);
  return readFileSync(join(files, 'boot', found));
}

/** Runs a kernel until its serial port has said `last`. @returns everything it said */
async function until(last: string, options: VmOptions): Promise<string> {
  let serial = '';
  const end = new AbortController();
  await using vm = await createVm({
    ...options,
    signal: end.signal,
    onSerial: (chunk) => {
      serial += Buffer.from(chunk).toString('latin1');
      if (serial.includes(last)) end.abort();
    },
  });
  const { stopReason } = await vm.run();
  expect([stopReason, serial.includes(last)]).toEqual(['aborted', true]);
  return serial;
}

const [memtest, invaders, mach] = await Promise.all([
  bootFile('memtest86+', /x64\.bin$/),
  bootFile('grub-invaders', /^invaders/),
  bootFile('gnumach-image-1.8-486', /^gnumach/),
]);

test.skipIf(memtest === undefined)(`memtest86+ finds no error in ${WHOLE ? 'a whole pass' : 'its tests up to the one that waits'}`, LIMIT, async () => {
  // Its screen is drawn every two seconds: only the last test, which waits for 80, is sure to be seen.
  const serial = await until(WHOLE ? 'Pass:  1' : '#10 [', {
    kernel: memtest ?? '',
    commandLine: 'console=ttyS0,115200',
    memory: WHOLE ? '64M' : '12M',
  });
  // Fields are drawn one by one, each time at the same places.
  const errors = [...serial.matchAll(/Errors: (\d+)/g)].map(([, n]) => n);
  expect(errors.length).toBeGreaterThan(0);
  expect(new Set(errors)).toEqual(new Set(['0']));
  expect(serial).toContain(WHOLE ? 'MB - 64MB [60MB of 63.6MB]' : '12MB [');
});

test.skipIf(invaders === undefined)('GRUB Invaders, a multiboot game, draws on the text screen and hears the keyboard', LIMIT, async () => {
  await using vm = await createVm({ kernel: invaders ?? '', memory: '16M', clock: 'icount' });
  const text = () => (vm.devices?.screen() ?? []).map((row) => row.text).join('\n');
  const seen: string[] = [];
  const watch = setInterval(() => {
    const screen = text();
    if (seen.length === 0 && screen.includes('-*-') && screen.includes('/ \\')) {
      seen.push(screen);
      vm.devices?.typeKeys(' ');
    } else if (seen.length === 1 && screen.includes('|')) {
      seen.push(screen);
      vm.abort();
    }
  }, 20);
  try {
    expect((await vm.run()).stopReason).toBe('aborted');
  } finally {
    clearInterval(watch);
  }
  // The ship stands below five rows of invaders, and fires.
  expect(seen[0]?.split('\n').filter((row) => row.includes('-*-') || row.includes('-*--')).length).toBeGreaterThanOrEqual(4);
  expect(seen[0]).not.toContain('|');
});

test.skipIf(mach === undefined)('GNU Mach, a multiboot kernel, finds memory, clock and the module that it is given', LIMIT, async () => {
  const kernel = gunzipSync(mach ?? new Uint8Array(0));
  const serial = await until('Loading single multiboot module in compat mode: console=com0', {
    kernel,
    commandLine: 'console=com0',
    memory: '64M',
    initrd: new TextEncoder().encode('no program'),
  });
  expect(serial).toMatch(/^GNU Mach 1\.8/);
  expect(serial).toContain('000000000000100000:000000000004000000, available');
  expect(serial).toMatch(/RTC time is 20\d\d-\d\d-\d\d/);
});
