import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testPrograms } from '@pvm/guests';
import { createVm } from '@pvm/pvm';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { powerOff, stockKernel } from '../../pvm/src/testing/stock-guest.ts';
import { main } from './main.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-wrong-'));
const before = { folder: process.cwd(), code: process.exitCode, cache: process.env['XDG_CACHE_HOME'] };

/** The files that the cases name. */
async function prepare(): Promise<void> {
  const program = readFileSync(testPrograms.hello);
  const kernel = stockKernel(powerOff);
  const vm = await createVm({ kernel, memory: '8M', jit: 'off' });
  const snapshot = await vm.save();
  await vm.dispose();
  const changed = (bytes: Uint8Array, at: number, value: number) => Uint8Array.from(bytes, (byte, i) => (i === at ? value : byte));
  // The setup header of a bzImage of 1 MiB, without the rest.
  const cut = new Uint8Array(4096);
  const view = new DataView(cut.buffer);
  view.setUint8(0x1f1, 1);
  view.setUint32(0x1f4, 0x1_0000, true);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint8(0x201, 0x6a);
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, 0x20f, true);
  view.setUint8(0x211, 1);
  const files: Readonly<Record<string, Uint8Array | string>> = {
    program,
    kernel,
    empty: '',
    text: 'hello\n',
    'cut-header': program.subarray(0, 100),
    'cut-segment': program.subarray(0, 500),
    elf32: changed(program, 4, 1),
    arm: changed(program, 18, 0xb7),
    'cut-bzimage': cut,
    'not.json': '{ no',
    'key.json': '{"memori": "64M"}',
    'type.json': '{"kernel": "kernel", "smp": "two"}',
    'list.json': '[1]',
    'profile.json': '{"schema": "x"}',
    snapshot,
    'cut.pvmsnap': snapshot.subarray(0, snapshot.length / 2),
    'bad.pvmsnap': changed(snapshot, snapshot.length - 100, 0x55),
    'old.pvmsnap': changed(snapshot, 8, 9),
    image: new Uint8Array(4096),
  };
  for (const [name, data] of Object.entries(files)) writeFileSync(join(folder, name), data);
  mkdirSync(join(folder, 'directory'));
  // Nobody will write into it.
  execFileSync('mkfifo', [join(folder, 'pipe')]);
}

beforeAll(async () => {
  await prepare();
  // So that messages name files as they were typed.
  process.chdir(folder);
  process.env['XDG_CACHE_HOME'] = join(folder, 'cache');
});
afterEach(() => vi.restoreAllMocks());
afterAll(() => {
  process.chdir(before.folder);
  process.exitCode = before.code;
  if (before.cache === undefined) delete process.env['XDG_CACHE_HOME'];
  else process.env['XDG_CACHE_HOME'] = before.cache;
  rmSync(folder, { recursive: true });
});

const boot = 'run --kernel kernel';
/** A command line, and what the line on standard error says. */
const CASES: readonly (readonly [string, RegExp])[] = [
  ['', /name a command: run,/],
  ['bogus', /unknown command bogus; did you mean \w+\?/],
  ['runn program', /unknown command runn; did you mean run\?/],
  ['run', /name a program; for example/],
  ['run nope', /nope: no such file/],
  ['run directory', /directory: is a directory/],
  ['run empty', /empty: not an ELF file; expected a static x86-64 Linux executable/],
  ['run text', /text: not an ELF file/],
  ['run cut-header', /truncated ELF/],
  ['run cut-segment', /truncated ELF/],
  ['run elf32', /32-bit ELF; build it for x86-64/],
  ['run arm', /ELF for machine 183; expected x86-64/],
  ['run --memroy 64M program', /run: unknown option --memroy; did you mean --memory\?/],
  ['run -kernell kernel', /unknown option -kernell; did you mean --kernel\?/],
  ['compare --memory 64M -- program', /compare: --memory is an option of run; options of run come after --/],
  ['run --memory 1G1 program', /--memory: expected a number of bytes or a string such as "64M", got "1G1"/],
  ['run -m 4M program', /--memory: expected 8M to 3584M/],
  ['run -m 64G program', /--memory: expected 8M to 3584M/],
  ['run --smp 2 program', /--smp is for a stock kernel/],
  [`${boot} --smp 9`, /--smp: expected a whole number from 1 to 8, got 9/],
  [`${boot} --smp x`, /--smp x: expected a number/],
  [`${boot} -kernel other`, /--kernel is given twice, kernel and other; give it once/],
  [`${boot} --design kvm`, /--design kvm: expected one of bare, kvm-ept/],
  ['run --kernel nope', /nope: no such file/],
  ['run --kernel directory', /is a directory/],
  ['run --kernel text', /neither a bzImage, an ELF nor a multiboot image/],
  ['run --kernel cut-bzimage', /cut short: it has 4096 bytes of \d+/],
  ['run --kernel /dev/zero', /\/dev\/zero: is a device; expected a file/],
  [`${boot} --initrd /dev/zero`, /\/dev\/zero: is a device; expected a file/],
  [`${boot} --initrd nope`, /nope: no such file/],
  [`${boot} --append`, /option --append needs a value/],
  [`${boot} --drive image`, /do not know "image".*expected file=IMAGE/],
  [`${boot} --drive file=nope`, /nope: no such file; expected a raw disk image/],
  [`${boot} --drive file=directory`, /directory: is a directory; expected a raw disk image/],
  [`${boot} --drive file=pipe`, /pipe: is not a regular file; expected a raw disk image/],
  [`${boot} --drive file=pipe,readonly=on`, /pipe: is not a regular file; expected a raw disk image/],
  [`${boot} --drive file=empty`, /empty: is empty; expected a raw disk image/],
  [`${boot} --drive file=image,format=qcow2`, /only format=raw is there/],
  [`${boot} --drive readonly=on`, /names no image/],
  [`${boot} --share directory`, /expected FOLDER:TAG/],
  [`${boot} --share nope:x`, /nope: cannot be shared: no such file; expected a folder/],
  [`${boot} --share text:x`, /text: cannot be shared: is not a folder/],
  [`${boot} --serial tcp::1`, /expected stdio, none or file:PATH/],
  [`${boot} --serial stdio --virtio-console stdio`, /cannot both be stdio/],
  [`${boot} --serial stdio --display curses`, /--display curses has standard input/],
  [`${boot} --device e1000`, /only isa-debug-exit can be named/],
  [`${boot} --balloon=lots`, /expected a size such as 64M/],
  [`${boot} --channel a`, /expected NAME:ADDRESS/],
  [`${boot} --timeout 0`, /expected seconds, more than 0/],
  [`${boot} --timeout soon`, /--timeout soon: expected a number/],
  [`${boot} --gdb 99999`, /expected a port, 0 to 65535/],
  [`${boot} --wait`, /--wait belongs to --gdb/],
  [`${boot} --opt fast`, /no such switch; did you mean/],
  [`${boot} --save nowhere/x --save-at 1`, /--save nowhere\/x: cannot be written: no folder nowhere/],
  [`${boot} --save directory`, /--save directory: cannot be written: is a directory/],
  [`${boot} --save-on x`, /--save-on needs --save FILE/],
  [`${boot} --trace nowhere/t`, /no folder nowhere/],
  [`${boot} --stat-out directory`, /is a directory; expected a file to write/],
  [`${boot} --stat --symbols nope`, /nope: no such file/],
  [`${boot} --stat --symbols text`, /no symbols; expected System.map/],
  [`${boot} --stat --profile profile.json`, /expected "schema": "pvm-cost-1"/],
  [`${boot} --max-instructions 0`, /--max-instructions: expected a positive integer/],
  [`${boot} --check-mmu=x`, /--check-mmu: expected/],
  [`${boot} --env A=B`, /--env is for a program; this is a stock kernel/],
  ['run --env A program', /expected NAME=VALUE/],
  ['run --file text:x program', /an absolute path in the guest/],
  ['run --file nope:/x program', /nope: no such file/],
  ['run --config nope.json', /--config nope.json: no such file/],
  ['run --config directory', /--config directory: is a directory/],
  ['run --config not.json', /not JSON/],
  ['run --config list.json', /expected a JSON object/],
  ['run --config key.json', /unknown key "memori"; did you mean "memory"/],
  ['run --config type.json', /smp: expected a number, got "two"/],
  ['run --restore nope', /nope: no such file/],
  ['run --restore directory', /directory: is a directory/],
  ['run --restore pipe', /pipe: is not a regular file/],
  ['compare --input pipe -- program', /--input pipe: is not a regular file/],
  ['run --restore text', /text: is not a snapshot of pvm/],
  ['run --restore cut.pvmsnap', /is damaged or cut off/],
  ['run --restore bad.pvmsnap', /is damaged or cut off/],
  ['run --restore old.pvmsnap', /has format 9, this version of pvm reads format 1/],
  ['run --restore snapshot -m 64M', /memory .*, not .*; leave the option out/],
  ['run --restore snapshot --kernel kernel', /kernel has no effect on a restored machine/],
  ['run --restore snapshot program', /--restore goes on with what the snapshot is of/],
  ['snapshot info bad.pvmsnap', /is damaged or cut off/],
  ['snapshot inof snapshot', /unknown command inof; did you mean info\?/],
  ['stat report text', /text: not JSON; expected what pvm run --stat-out wrote/],
  ['stat report directory', /directory: is a directory/],
  ['stat trace2perfetto nope out', /nope: no such file/],
  ['jit dump -- program', /--rip is missing/],
  ['jit dump --rip zz -- program', /expected an address such as 0x401800/],
  ['compare program', /compare: what to run comes after --: pvm compare \[options\] -- program/],
  ['compare --designs xen -- program', /no design "xen"; expected some of bare, kvm-ept, kvm-spt, pvm\n/],
  ['compare', /compare: name after -- what to run; for example: pvm compare -- .\/hello/],
  ['stat live', /stat live: name after -- what to run/],
  ['stat live -- --memory 64M', /stat live: name after -- what to run/],
  ['bench table9', /unknown command table9; did you mean table\d\?/],
  ['calibrate --scale 0', /expected a number above 0/],
  ['image get debain', /did you mean debian/],
  ['image get debian --mirror x', /expected a URL/],
];

/** Runs the command in this process. */
async function run(line: string): Promise<{ code: typeof process.exitCode; stdout: string; stderr: string }> {
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    vi.spyOn(process[name], 'write').mockImplementation((chunk) => {
      text[name] += String(chunk);
      return true;
    });
  }
  process.exitCode = undefined;
  await main(line.split(' ').filter((word) => word !== ''));
  vi.restoreAllMocks();
  return { code: process.exitCode, ...text };
}

test.each(CASES)('pvm %s: one line that says what to do, exit code 2, and nothing is left behind', async (line, said) => {
  const there = readdirSync(folder);
  const { code, stdout, stderr } = await run(line);
  expect(stderr).toMatch(said);
  expect(stderr).toMatch(/^pvm: [^\n]+\n$/);
  expect([code, stdout]).toEqual([2, '']);
  expect(readdirSync(folder).filter((name) => name !== 'cache')).toEqual(there.filter((name) => name !== 'cache'));
});
