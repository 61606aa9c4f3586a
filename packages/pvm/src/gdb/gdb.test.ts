import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { createVm, type GdbServer, serveGdb, type Vm, type VmOptions } from '../index.ts';
import { powerOff, stockKernel, word } from '../testing/stock-guest.ts';
import { frame, fromHex, PacketReader, toHex } from './packet.ts';

const COUNTER = 0x20_9000;
/** mov ebx, 1000; loop: inc qword [COUNTER]; dec ebx; jnz loop; then power off. */
const kernel = stockKernel([0xbb, ...word(1000, 4), 0x48, 0xff, 0x04, 0x25, ...word(COUNTER, 4), 0xff, 0xcb, 0x75, 0xf4, ...powerOff]);

const open: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

async function machine(options: VmOptions = {}): Promise<{ vm: Vm; server: GdbServer; ended: Promise<number> }> {
  const vm = await createVm({ kernel, memory: '16M', clock: 'icount', jit: 'sync', ...options });
  open.push(() => vm.dispose());
  const server = await serveGdb(vm, { port: 0 });
  vm.debugger.pause();
  const ended = vm.run().then(async ({ exitCode }) => {
    await server.close(exitCode);
    return exitCode;
  });
  return { vm, server, ended };
}

/** A client that sends packets and waits for their answers. */
class Client {
  private readonly socket: Socket;
  private readonly answers: string[] = [];
  private heard: (() => void) | undefined;

  constructor(port: number) {
    const reader = new PacketReader(() => undefined);
    this.socket = connect(port, '127.0.0.1');
    open.push(() => this.socket.destroy());
    this.socket.on('data', (chunk) => {
      for (const received of reader.push(chunk)) if (received.kind === 'packet') this.answers.push(Buffer.from(received.data).toString('latin1'));
      this.heard?.();
    });
  }
  write(data: Uint8Array | string): void {
    this.socket.write(data);
  }
  async answer(): Promise<string> {
    while (this.answers.length === 0) {
      await new Promise<void>((resolve) => {
        this.heard = resolve;
      });
    }
    return this.answers.shift() ?? '';
  }
  ask(command: string): Promise<string> {
    this.write(frame(command));
    return this.answer();
  }
}

describe('packets', () => {
  it('survive any bytes, and any division into chunks', () => {
    const data = Uint8Array.from({ length: 256 }, (_, i) => i);
    const bytes = frame(data);
    const reader = new PacketReader(() => undefined);
    const received = [...bytes].flatMap((byte) => [...reader.push(Uint8Array.of(byte))]);
    expect(received).toEqual([{ kind: 'packet', data }]);
  });
  it('with a wrong checksum are damaged, and a lone 3 interrupts', () => {
    const reader = new PacketReader(() => undefined);
    expect([...reader.push(Buffer.from('$g#00'))]).toEqual([{ kind: 'damaged' }]);
    expect([...reader.push(Uint8Array.of(3))]).toEqual([{ kind: 'interrupt' }]);
  });
  it('of hexadecimal text are refused when they are none', () => {
    expect(fromHex('0aFF')).toEqual(Uint8Array.of(10, 255));
    expect(fromHex('0a1')).toBeUndefined();
    expect(fromHex('zz')).toBeUndefined();
  });
});

describe('a connection', () => {
  it('describes as many registers as it sends', async () => {
    const { server } = await machine();
    const client = new Client(server.port);
    const xml = await client.ask('qXfer:features:read:target.xml:0,4000');
    const bits = [...xml.matchAll(/bitsize="(\d+)"/g)].reduce((sum, [, n]) => sum + Number(n), 0);
    const all = await client.ask('g');
    expect(all.length).toBe(bits / 4);
    // RIP is number 16: the kernel's entry.
    expect(await client.ask('p10')).toBe('0000200000000000');
    expect(all.slice(16 * 16, 17 * 16)).toBe('0000200000000000');
    // In parts, as GDB reads it.
    const half = await client.ask('qXfer:features:read:target.xml:0,100');
    expect(half.slice(1) + (await client.ask('qXfer:features:read:target.xml:100,4000')).slice(1)).toBe(xml.slice(1));
  });

  it('writes registers and memory, and refuses what does not exist', async () => {
    const { server } = await machine();
    const client = new Client(server.port);
    expect(await client.ask('P3=efcdab8967452301')).toBe('OK');
    expect(await client.ask('p3')).toBe('efcdab8967452301');
    expect(await client.ask(`G${await client.ask('g')}`)).toBe('OK');
    expect(await client.ask('M209000,4:01020304')).toBe('OK');
    expect(await client.ask('m209000,4')).toBe('01020304');
    const bad = [
      ['p999', 'E22'],
      ['P3=00', 'E22'],
      ['mffff800000000000,4', 'E14'],
      ['M209000,4:01', 'E22'],
      ['mx,1', 'E22'],
      ['Z0,zz,1', 'E22'],
      ['Hg9', 'E22'],
      ['Z3,209000,8', ''],
      ['qNonsense', ''],
      ['vMustReplyEmpty', ''],
      ['!', ''],
    ];
    for (const [command = '', answer] of bad) expect([command, await client.ask(command)]).toEqual([command, answer]);
  });

  it('runs over random packets without losing the machine', async () => {
    const { server, vm } = await machine();
    const client = new Client(server.port);
    await client.ask('?');
    let seed = 20_261_122;
    const random = () => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return seed / 2 ** 32;
    };
    const first = 'gGpPmMXZzHTqQv!?';
    for (let n = 0; n < 500; n++) {
      const body = Array.from({ length: Math.floor(random() * 40) }, () => 32 + Math.floor(random() * 95));
      client.write(frame(Uint8Array.from([first.charCodeAt(Math.floor(random() * first.length)), ...body])));
      // What resumes, lets go or kills is not sent.
      await client.answer();
    }
    expect(vm.debugger.stop).toMatchObject({ kind: 'pause' });
  });

  it('counts a second one out, and lets the machine go when the first ends', async () => {
    const { server, ended } = await machine();
    const client = new Client(server.port);
    await client.ask('?');
    const second = connect(server.port, '127.0.0.1');
    await new Promise((resolve) => second.on('close', resolve));
    expect(await client.ask('Z0,200005,1')).toBe('OK');
    client.write(frame('D'));
    expect(await ended).toBe(0);
  });

  it('hears the exit code', async () => {
    const { server } = await machine();
    const client = new Client(server.port);
    expect(await client.ask('vCont;c')).toBe('W00');
  });

  it('kills the machine', async () => {
    const { server, ended } = await machine();
    const client = new Client(server.port);
    await client.ask('?');
    client.write(frame('k'));
    expect(await ended).toBe(130);
  });

  it('answers monitor commands', async () => {
    const { server } = await machine();
    const client = new Client(server.port);
    const text = async (command: string) => Buffer.from(await client.ask(`qRcmd,${toHex(Buffer.from(command))}`), 'hex').toString();
    expect(await text('help')).toMatch(/exits: .*--stat/);
    expect(await text('exits')).toMatch(/VM-EXIT/);
    expect(await text('toString')).toMatch(/there is no command "toString"/);
  });

  it('at a port that is taken is refused', async () => {
    const { server, vm } = await machine();
    await expect(serveGdb(vm, { port: server.port })).rejects.toMatchObject({ code: 'bad-option', message: /choose another port/ });
  });
});

const gdb = ['/usr/bin/gdb', '/usr/local/bin/gdb'].find((path) => existsSync(path));
describe.skipIf(gdb === undefined)('GDB itself (skipped where it is not installed)', () => {
  async function batch(port: number, commands: readonly string[], files: readonly string[] = []): Promise<string> {
    const words = ['-nx', '-batch', '-iex', 'set confirm off', '-ex', `target remote 127.0.0.1:${port}`, ...commands.flatMap((c) => ['-ex', c]), ...files];
    const { stdout, stderr } = await promisify(execFile)(gdb ?? '', words, { timeout: 50_000 });
    return stdout + stderr;
  }

  it('breaks, steps, watches, reads and writes', async () => {
    const { server, ended } = await machine();
    const out = await batch(server.port, [
      'x/2i $pc',
      'break *0x200005',
      'continue',
      'print/d $rbx',
      'continue',
      'print/d $rbx',
      'stepi',
      'print $pc',
      'delete',
      'watch *(long *)0x209000',
      'continue',
      'print/d *(long *)0x209000',
      'delete',
      'set $rbx = 1',
      'print/x $cr0',
      'info threads',
      'info float',
      'print $xmm0',
      'print $eflags',
      'monitor exits',
      'continue',
    ]);
    expect(out).toMatch(/=> 0x200000:\s+mov\s+\$0x3e8,%ebx/);
    expect(out).toMatch(/\$1 = 1000\n/);
    expect(out).toMatch(/\$2 = 999\n/);
    expect(out).toMatch(/\$3 = \(void \(\*\)\(\)\) 0x20000d/);
    expect(out).toMatch(/Hardware watchpoint 2: /);
    expect(out).toMatch(/Old value = 2\s+New value = 3/);
    expect(out).toMatch(/\$4 = 3\n/);
    expect(out).toMatch(/Thread 1 \(vCPU 0\)/);
    expect(out).toMatch(/VM-EXIT/);
    expect(out).toMatch(/exited normally/);
    expect(await ended).toBe(0);
  });

  it('debugs a program under the embedded kernel', async () => {
    const program = fileURLToPath(new URL('../../../../guests/demo/demo.elf', import.meta.url));
    const entry = readFileSync(program).readBigUInt64LE(24);
    const vm = await createVm({ program, memory: '32M', clock: 'icount', jit: 'sync' });
    open.push(() => vm.dispose());
    const server = await serveGdb(vm, { port: 0 });
    vm.debugger.pause();
    const ended = vm.run().then(({ exitCode }) => server.close(exitCode));
    const out = await batch(server.port, [`break *${entry}`, 'continue', 'print/d $cs & 3', 'print *(long *)$rsp', 'stepi', 'stepi', 'kill'], [program]);
    // argc is what a program finds at the top of its stack.
    expect(out).toMatch(/Breakpoint 1, .*\n\$1 = 3\n\$2 = 1\n/);
    await ended;
  });
});
