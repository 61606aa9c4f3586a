import { Writable } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { createVm, type Vm, type VmOptions } from '../index.ts';
import { COM1, echo, out, powerOff, stockKernel, word } from '../testing/stock-guest.ts';

const machines: Vm[] = [];
afterAll(() => Promise.all(machines.map((vm) => vm.dispose())));

async function machine(code: readonly number[], options: VmOptions = {}): Promise<{ vm: Vm; serial: () => string }> {
  let serial = '';
  const vm = await createVm({
    kernel: stockKernel(code),
    clock: 'icount',
    jit: 'off',
    memory: '16M',
    onSerial: (chunk) => {
      serial += Buffer.from(chunk).toString('latin1');
    },
    ...options,
  });
  machines.push(vm);
  return { vm, serial: () => serial };
}

/** mov ebx, [rsi + cmd_line_ptr]; send bytes to COM1 up to NUL. */
const printCommandLine = [0x8b, 0x9e, ...word(0x228, 4), 0x8a, 0x03, 0x84, 0xc0, 0x74, 0x0a, 0x66, 0xba, ...word(COM1, 2), 0xee, 0x48, 0xff, 0xc3, 0xeb, 0xf0];
/** mov dx, PM1 status; in ax, dx; test ah, 1; jz back. */
const waitForPowerButton = [0x66, 0xba, ...word(0x600, 2), 0x66, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xf9];

describe('the PC of a stock kernel', () => {
  it('has its debug-exit port where it is told, or not at all', async () => {
    const code = [...out(0x501, 5), ...out(0xf4, 1), ...powerOff];
    const run = async (debugExitPort?: number | false) => (await machine(code, debugExitPort === undefined ? {} : { debugExitPort })).vm.run();
    expect(await run(0x501)).toMatchObject({ stopReason: 'debug-exit', exitCode: 11 });
    expect(await run()).toMatchObject({ stopReason: 'debug-exit', exitCode: 3 });
    expect(await run(false)).toMatchObject({ stopReason: 'poweroff', exitCode: 0 });
  });

  it.each([
    ['acpi=off quiet', 'acpi=off quiet virtio_mmio.device=0x200@0xfeb00000:16 virtio_mmio.device=0x200@0xfeb01000:17'],
    ['quiet', 'quiet'],
  ])('names its MMIO devices to a kernel that does not read ACPI: %s', async (commandLine, expected) => {
    const { vm, serial } = await machine([...printCommandLine, ...powerOff], { virtio: 'mmio', balloon: '1M', commandLine });
    await vm.run();
    expect(serial()).toBe(expected);
  });

  it('has a power button, and controls of its devices that refuse nonsense', async () => {
    const { vm } = await machine([...waitForPowerButton, ...powerOff], { balloon: true, consolePorts: [{}] });
    const done = vm.run();
    const { devices } = vm;
    expect(devices?.balloon).toBe(0);
    expect(() => devices?.setBalloon(-1)).toThrow(RangeError);
    expect(() => devices?.resizeConsole(0, 25)).toThrow(RangeError);
    devices?.resizeConsole(100, 40);
    setTimeout(() => devices?.pressPowerButton(), 20);
    expect((await done).stopReason).toBe('poweroff');
    const { vm: plain } = await machine(powerOff);
    expect(() => plain.devices?.setBalloon(0)).toThrow(/no balloon/);
    expect([plain.devices?.vsock, plain.devices?.balloon]).toEqual([undefined, undefined]);
  });

  it('takes a function that returns what is no promise', async () => {
    const pieces: Uint8Array[] = [];
    const { vm } = await machine([...echo, ...powerOff], { stdin: 'x', onSerial: (chunk) => void pieces.push(chunk) });
    await vm.run();
    const returning = ((chunk: Uint8Array) => pieces.push(chunk)) as unknown as (chunk: Uint8Array) => void;
    expect(await (await machine([...echo, ...powerOff], { stdin: 'y', onSerial: returning })).vm.run()).toMatchObject({ stopReason: 'poweroff' });
    expect(Buffer.concat(pieces).toString()).toBe('xy');
  });

  it("takes streams of the Web and of Node for its console, and waits for a slow reader's", async () => {
    const code = [...echo, ...echo, ...echo, ...powerOff];
    let web = '';
    const slow = new WritableStream<Uint8Array>({
      async write(chunk) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        web += Buffer.from(chunk).toString();
      },
    });
    const input = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(Buffer.from('abc'));
        controller.close();
      },
    });
    await (await machine(code, { onSerial: slow, stdin: input })).vm.run();
    await slow.getWriter().close();
    expect(web).toBe('abc');
    let node = '';
    const writable = new Writable({
      highWaterMark: 1,
      write(chunk, _encoding, done) {
        node += String(chunk);
        setTimeout(done, 2);
      },
    });
    await (await machine(code, { onSerial: writable, stdin: 'xyz' })).vm.run();
    expect(node).toBe('xyz');
  });

  it.each<[string, () => VmOptions]>([
    [
      'throws',
      () => ({
        onSerial: () => {
          throw new Error('disk full');
        },
      }),
    ],
    ['rejects', () => ({ onSerial: () => Promise.reject(new Error('disk full')) })],
    ['rejects when the guest has ended', () => ({ onSerial: () => new Promise((_, reject) => setTimeout(reject, 5, new Error('disk full'))) })],
    [
      'is a stream of the Web that fails',
      () => ({
        onSerial: new WritableStream({
          write() {
            throw new Error('disk full');
          },
        }),
      }),
    ],
  ])('ends the run with the error of a receiver of its output that %s', async (_, options) => {
    const forever = [0xeb, 0xfe];
    await expect((await machine([...out(COM1, 0x41), ...forever], options())).vm.run()).rejects.toThrow('disk full');
    await expect((await machine([...out(COM1, 0x41), ...powerOff], options())).vm.run()).rejects.toThrow('disk full');
  });

  it.each([
    ['a share without a tag', { shares: [{ folder: '/tmp' }] }, /option shares: expected an array of \{ folder, tag/],
    ['a tag that cannot be mounted', { shares: [{ folder: '/tmp', tag: 'a,b' }] }, /without commas/],
    ['a folder that is not there', { shares: [{ folder: '/nowhere/at/all', tag: 'x' }] }, /cannot be shared: no such file; expected a folder/],
    ['a port that is no port', { debugExitPort: 0x1_0000 }, /0xfffc/],
    ['a debug-exit port that another device has', { debugExitPort: 0x3f8 }, /claim port 0x3f8/],
    ['a transport that does not exist', { virtio: 'isa' }, /one of pci, mmio/],
    ['an unknown key of a drive', { drives: [{ file: 'x', readonly: true }] }, /readOnly\?/],
    ['more MMIO devices than fit', { virtio: 'mmio', drives: Array.from({ length: 9 }, () => ({ file: new Uint8Array(512) })) }, /at most 8 virtio devices/],
    ['a balloon of nothing known', { balloon: 'large' }, /size such as "64M"/],
    ['output into what cannot be written to', { onSerial: 'stdout' }, /a function or a writable stream/],
  ])('refuses %s', async (_, options, message) => {
    await expect(machine(powerOff, options as VmOptions)).rejects.toThrow(message);
  });

  it('belongs to stock kernels only', async () => {
    await expect(createVm({ program: 'x', vsock: true })).rejects.toThrow(/option vsock is for a stock kernel/);
  });
});
