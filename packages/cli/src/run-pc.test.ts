import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { COM1, echo, out, outAl, outImmediate, powerOff, start, stockKernel, TIMER_VECTOR, waitForTimer, word } from '../../pvm/src/testing/stock-guest.ts';
import { BIN, pvm, startPvm } from './testing/pvm-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-pc-'));
afterAll(() => rmSync(folder, { recursive: true }));

function fileWith(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}
const kernel = (name: string, code: readonly number[], handlers: Readonly<Record<number, readonly number[]>> = {}) =>
  fileWith(name, stockKernel(code, handlers));

/** Sends K and powers off. */
const hello = kernel('hello', [...out(COM1, 0x4b), ...powerOff]);
/** Says >, and sends back what it gets, for ever. */
const typewriter = kernel('typewriter', [...out(COM1, 0x3e), ...echo, 0xeb, 256 - echo.length - 2]);
/** Counts its boots in RAM, which a reset leaves alone; resets by the keyboard controller until the third. */
const rebooter = kernel('rebooter', [
  ...[0xff, 0x04, 0x25, ...word(0x30_0000, 4), 0x8b, 0x04, 0x25, ...word(0x30_0000, 4), 0x04, 0x30, ...outAl, 0x3c, 0x33],
  ...[0x75, powerOff.length, ...powerOff, ...outImmediate(0x64, 0xfe), 0xeb, 0xfe],
]);
/** Panics, and resets. */
const panicking = kernel('panicking', [
  ...[...'[    1.500000] Kernel panic - not syncing: x\n'].flatMap((c) => out(COM1, c.charCodeAt(0))),
  ...[...outImmediate(0x64, 0xfe), 0xf4],
]);
/** Sleeps for ever, woken by the timer. */
const sleeper = kernel('sleeper', [...out(COM1, 0x5a), ...start, ...waitForTimer, 0xeb, 0xfd], { [TIMER_VECTOR]: [...outImmediate(0x20, 0x20), 0x48, 0xcf] });

describe('a machine by the command line', () => {
  test("takes QEMU's spellings", () => {
    const qemu = ['-kernel', hello, '-m', '16', '-append', '-console=ttyS0 quiet', '-nographic', '-serial', 'stdio', '-no-reboot', '-cpu', 'max'];
    expect(pvm(['run', ...qemu])).toEqual({ status: 0, stdout: 'K', stderr: '', ...rest });
    expect(pvm(['run', ...qemu, '-drive', `file=${hello},if=virtio,format=raw,readonly=on,id=a,cache=none`])).toMatchObject({ status: 0, stdout: 'K' });
  });

  test('has its debug-exit port where -device puts it', () => {
    const code = kernel('exits', [...out(0x501, 2), ...out(0xf4, 8)]);
    expect(pvm(['run', '-kernel', code]).status).toBe(17);
    expect(pvm(['run', '-kernel', code, '-device', 'isa-debug-exit,iobase=0x501,iosize=0x04']).status).toBe(5);
    expect(pvm(['run', '-kernel', code, '-device', 'isa-debug-exit']).status).toBe(5);
  });

  test('shows its text screen and takes keys with --display curses, on a terminal or not', () => {
    // mov word [0xb8000], 0x074b; wait for a key; its code to the next cell; power off.
    const text = (at: number) => [0x66, 0xc7, 0x04, 0x25, ...word(at, 4), ...word(0x07_4b, 2)];
    const key = [0xe4, 0x64, 0xa8, 0x01, 0x74, 0xfa, 0xe4, 0x60, 0x88, 0x04, 0x25, ...word(0xb_8002, 4)];
    const code = kernel('screen', [...text(0xb_8000), ...text(0xb_80a0), ...key, ...powerOff]);
    expect(pvm(['run', '--kernel', code, '--display', 'curses'], 'b')).toMatchObject({ status: 0, stdout: 'K0\nK\n' });
    expect(pvm(['run', '--kernel', code, '--display', 'curses', '--serial', 'stdio'])).toMatchObject({ status: 2, stdout: '' });
  });

  test('restarts when the guest resets it, and ends instead with --no-reboot', () => {
    expect(pvm(['run', '--kernel', rebooter])).toMatchObject({ status: 0, stdout: '123' });
    expect(pvm(['run', '--kernel', rebooter, '--no-reboot'])).toMatchObject({ status: 0, stdout: '1' });
  });

  test('says that the kernel panicked, and leaves with 71', () => {
    expect(pvm(['run', '--kernel', panicking, '--no-reboot'])).toMatchObject({ status: 71, stderr: "pvm: the guest's kernel panicked\n" });
  });

  test('ends after --timeout, while it sleeps, with 124', () => {
    const { status, stderr } = pvm(['run', '--kernel', sleeper, '--timeout', '1.5']);
    expect([status, stderr]).toEqual([124, 'pvm: stopped after 1.5 s (--timeout)\n']);
  });

  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
    ['SIGQUIT', 131],
  ] as const)('ends at once by %s', async (signal, code) => {
    const run = startPvm(['run', '--kernel', sleeper]);
    await run.says('Z');
    run.child.kill(signal);
    expect([await run.ended, run.stderr()]).toEqual([code, '']);
  });

  test('presses the power button by SIGPWR', async () => {
    // mov dx, PM1 status; in ax, dx; test ah, 1; jz back.
    const wait = [0x66, 0xba, ...word(0x600, 2), 0x66, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xf9];
    const run = startPvm(['run', '--kernel', kernel('button', [...out(COM1, 0x42), ...wait, ...powerOff])]);
    await run.says('B');
    run.child.kill('SIGPWR');
    expect(await run.ended).toBe(0);
  });

  test('writes its consoles to files, and nothing to standard output', () => {
    const log = join(folder, 'serial.log');
    expect(pvm(['run', '-kernel', hello, '-serial', `file:${log}`])).toMatchObject({ status: 0, stdout: '' });
    expect(readFileSync(log, 'utf8')).toBe('K');
    expect(pvm(['run', '-kernel', hello, '-serial', 'none'])).toMatchObject({ status: 0, stdout: '' });
  });

  test.skipIf(!existsSync('/dev/full'))('says which of its consoles found the disk full', () => {
    const full = pvm(['run', '-kernel', hello, '-serial', 'file:/dev/full']);
    expect(full).toMatchObject({ status: 2, stderr: 'pvm: --serial file:/dev/full: cannot be written (ENOSPC)\n' });
  });

  test('reads everything that is piped in, however early', () => {
    const code = kernel(
      'reader',
      Array.from({ length: 30 }, () => echo)
        .flat()
        .concat(powerOff),
    );
    expect(pvm(['run', '--kernel', code], 'abcdefghijklmnopqrstuvwxyz0123')).toMatchObject({ status: 0, stdout: 'abcdefghijklmnopqrstuvwxyz0123' });
  });

  test('offers sockets at the addresses it is told', async () => {
    const socket = join(folder, 'channel');
    const run = startPvm(['run', '--kernel', sleeper, '--channel', `agent:unix:${socket}`, '--vsock-listen', `unix:${socket}2:7`]);
    await run.says('Z');
    const client = connect(socket);
    await new Promise((resolve) => client.once('connect', resolve));
    const clash = pvm(['run', '--kernel', sleeper, '--channel', `agent:unix:${socket}`]);
    expect(clash).toMatchObject({ status: 2, stderr: `pvm: --channel agent: cannot listen at unix:${socket} (something is there already)\n` });
    expect(existsSync(`${socket}2`)).toBe(true);
    run.child.kill('SIGTERM');
    expect(await run.ended).toBe(143);
    expect(existsSync(socket)).toBe(false);
    client.destroy();
  });
});

/** What `spawnSync` also says. */
const rest = { pid: expect.any(Number) as number, output: expect.any(Array) as string[], signal: null };

describe('wrong input gets one line on stderr and exit code 2', () => {
  test.each([
    ['an unknown option in QEMU spelling', ['-kernell', 'x'], /unknown option -kernell; did you mean --kernel\?/],
    ['a drive that is not there', ['--drive', `file=${join(folder, 'none')}`], /none/],
    ['a share of what is not there', ['--share', `${join(folder, 'none')}:x`], /cannot be shared: no such file; expected a folder/],
    ['a file that cannot be written', ['--serial', 'file:/nowhere/log'], /cannot be written \(ENOENT\)/],
    ['an option without its value', ['-kernel', hello, '-append'], /option -append needs a value/],
  ])('%s', (_, args, message) => {
    const { status, stdout, stderr } = pvm(['run', '--kernel', hello, ...args]);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect([status, stdout]).toEqual([2, '']);
  });
});

/** Runs a shell command on a terminal of its own, with keys typed as soon as it says `ready`. */
const hasScript = spawnSync('script', ['--version']).status === 0;
const onTerminal = (command: string) => startPvm([], ['script', '-qefc', command, '/dev/null']);

describe.skipIf(!hasScript)('on a terminal', () => {
  const run = (...args: string[]) => [process.execPath, BIN, 'run', ...args].map((word) => `'${word}'`).join(' ');

  test('every key goes to the guest but Ctrl-A and the next; Ctrl-A X ends it with 0; the terminal is as it was', async () => {
    const shell = onTerminal(`stty -a > ${folder}/before; ${run('--kernel', typewriter)}; echo "left $?"; stty -a > ${folder}/after`);
    await shell.says('>');
    shell.child.stdin.write('a\x03\x1a\x04b');
    await shell.says('a\x03\x1a\x04b');
    shell.child.stdin.write('\x01h');
    await shell.says('Ctrl-A X      ends the machine');
    shell.child.stdin.write('c\x01\x01');
    await shell.says('c\x01');
    shell.child.stdin.write('\x01x');
    await shell.says('left 0');
    await shell.ended;
    expect(readFileSync(`${folder}/after`, 'utf8')).toBe(readFileSync(`${folder}/before`, 'utf8'));
  });

  test.each([
    ['SIGTERM', 'left 143'],
    ['SIGINT', 'left 130'],
    ['SIGHUP', 'left 129'],
    ['SIGQUIT', 'left 131'],
  ])('%s leaves the terminal as it was', async (signal, left) => {
    const shell = onTerminal(
      `stty -a > ${folder}/before; sh -c 'echo "pid $$;"; exec ${run('--kernel', typewriter).replaceAll("'", '"')}'; echo "left $?"; stty -a > ${folder}/after`,
    );
    await shell.says('>');
    process.kill(Number(/pid (\d+);/.exec(shell.stdout())?.[1]), signal);
    await shell.says(left);
    await shell.ended;
    expect(readFileSync(`${folder}/after`, 'utf8')).toBe(readFileSync(`${folder}/before`, 'utf8'));
  });

  test('SIGTSTP gives the terminal back while the machine is stopped, SIGCONT takes it again', async () => {
    const shell = onTerminal(`tty; stty -a; sh -c 'echo "pid $$;"; exec ${run('--kernel', typewriter).replaceAll("'", '"')}'; echo "left $?"`);
    await shell.says(';\r\n>');
    const tty = /^\/dev\/\S+/.exec(shell.stdout())?.[0] ?? '';
    const pid = Number(/pid (\d+);/.exec(shell.stdout())?.[1]);
    const settings = () => spawnSync('stty', ['-F', tty, '-a'], { encoding: 'utf8' }).stdout;
    const before = /^speed[^$]*?-extproc/m.exec(shell.stdout().replaceAll('\r', ''))?.[0] ?? 'none';
    const raw = settings();
    expect(raw).toMatch(/-icanon/);
    process.kill(pid, 'SIGTSTP');
    await expect.poll(settings).toContain(before);
    // What a shell does when it has the terminal.
    spawnSync('stty', ['-F', tty, 'icanon', 'isig', 'echo']);
    process.kill(pid, 'SIGCONT');
    await expect.poll(settings).toBe(raw);
    shell.child.stdin.write('a');
    await shell.says('>a');
    shell.child.stdin.write('\x01x');
    await shell.says('left 0');
    await shell.ended;
  });

  test('so does every other end: of itself, by a time limit, a snapshot, a panic, a death, wrong input found late', async () => {
    const died = kernel('died', [0x0f, 0x0b]);
    const none = fileWith('none', new Uint8Array(5000));
    const runs: [string[], RegExp, number][] = [
      [['--kernel', hello], /K/, 0],
      [['--kernel', sleeper, '--timeout', '0.5'], /stopped after/, 124],
      [['--kernel', typewriter, '--save', join(folder, 'end.pvmsnap'), '--save-on', '>', '--save-exit'], /snapshot written/, 0],
      [['--kernel', panicking, '--no-reboot'], /panicked/, 71],
      [['--kernel', died], /triple fault/, 70],
      [['--kernel', none], /neither a bzImage/, 2],
    ];
    const shell = onTerminal(
      [`stty -a > ${folder}/before`, ...runs.map(([args, , code], i) => `${run(...args)}; echo "left $? ${code}"; stty -a > ${folder}/after${i}`)].join('; '),
    );
    await shell.ended;
    runs.forEach(([args, said, code], i) => {
      expect(shell.stdout()).toMatch(said);
      expect(shell.stdout().match(/left \d+ \d+/g)?.[i], args.join(' ')).toBe(`left ${code} ${code}`);
      expect(readFileSync(`${folder}/after${i}`, 'utf8'), args.join(' ')).toBe(readFileSync(`${folder}/before`, 'utf8'));
    });
  });
});
