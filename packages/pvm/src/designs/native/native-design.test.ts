import { afterAll, describe, expect, it } from 'vitest';
import { createVm, type Result, type Vm, VmError, type VmOptions } from '../../index.ts';

const LOAD = 0x20_0000;
const IDT = 0x21_0000;
/** Where the operand of LIDT lies. */
const IDTR = 0x200;
const HANDLER = 0x100;
const COM1 = 0x3f8;
const COM1_STATUS = 0x3fd;
const PM1_CONTROL = 0x604;
const VECTOR = 0x20;

const word = (n: number, size: number) => Array.from({ length: size }, (_, i) => (n / 2 ** (8 * i)) & 0xff);
const outImmediate = (port: number, value: number) => [0xb0, value, 0xe6, port];
const out = (port: number, value: number) => [0x66, 0xba, ...word(port, 2), 0xb0, value, 0xee];
/** mov dx, PM1; mov ax, S5 | SLP_EN; out dx, ax; cli; hlt. */
const powerOff = [0x66, 0xba, ...word(PM1_CONTROL, 2), 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xfa, 0xf4];
/** Wait until COM1 has a byte (the status port is polled) and send it back. */
const echo = [0x66, 0xba, ...word(COM1_STATUS, 2), 0xec, 0xa8, 0x01, 0x74, 0xfb, 0x66, 0xba, ...word(COM1, 2), 0xec, 0xee];
/** mov esp, imm32; lidt [abs32]. */
const start = [0xbc, ...word(LOAD + 0x8000, 4), 0x0f, 0x01, 0x1c, 0x25, ...word(LOAD + IDTR, 4)];
/** 8259 at vector 0x20 with IRQ 0 open; 8254 channel 0, mode 2, 1 kHz; sti; hlt. */
const waitForTimer = [
  ...[...outImmediate(0x20, 0x11), ...outImmediate(0x21, VECTOR), ...outImmediate(0x21, 4), ...outImmediate(0x21, 1), ...outImmediate(0x21, 0xfe)],
  ...[...outImmediate(0x43, 0x34), ...outImmediate(0x40, 1193 & 0xff), ...outImmediate(0x40, 1193 >> 8)],
  ...[0xfb, 0xf4],
];

/** An ELF64 kernel for the Linux entry: code at `LOAD`, a handler for the timer, and an IDT that has only that. */
function kernel(code: readonly number[], handler: readonly number[] = []): Uint8Array {
  const image = new Uint8Array(0x1_1000);
  image.set(code, 0);
  image.set(handler, HANDLER);
  image.set([...word(16 * 256 - 1, 2), ...word(IDT, 8)], IDTR);
  const address = LOAD + HANDLER;
  image.set([...word(address & 0xffff, 2), 0x10, 0, 0, 0x8e, ...word(address >>> 16, 2)], IDT - LOAD + 16 * VECTOR);
  const header = [
    0x7f,
    0x45,
    0x4c,
    0x46,
    2,
    1,
    1,
    ...word(0, 9),
    ...word(2, 2),
    ...word(62, 2),
    ...word(1, 4),
    ...word(LOAD, 8),
    ...word(64, 8),
    ...word(0, 8),
  ];
  const rest = [...word(0, 4), ...word(64, 2), ...word(56, 2), ...word(1, 2), ...word(0, 6)];
  const load = [
    ...word(1, 4),
    ...word(7, 4),
    ...word(120, 8),
    ...word(LOAD, 8),
    ...word(LOAD, 8),
    ...word(image.length, 8),
    ...word(image.length, 8),
    ...word(4096, 8),
  ];
  return Uint8Array.from([...header, ...rest, ...load, ...image]);
}

const machines: Vm[] = [];
afterAll(() => Promise.all(machines.map((vm) => vm.dispose())));

async function run(options: VmOptions): Promise<{ result: Result; serial: string; vm: Vm }> {
  let serial = '';
  const vm = await createVm({
    jit: 'off',
    clock: 'icount',
    memory: '16M',
    onSerial: (chunk) => {
      serial += new TextDecoder().decode(chunk);
    },
    ...options,
  });
  machines.push(vm);
  return { result: await vm.run(), serial, vm };
}

describe('a stock kernel', () => {
  it('writes and reads the serial port and powers off', async () => {
    const { result, serial, vm } = await run({ kernel: kernel([...out(COM1, 0x4b), ...echo, ...echo, ...powerOff]), stdin: 'hi' });
    expect(serial).toBe('Khi');
    expect(result).toMatchObject({ stopReason: 'poweroff', exitCode: 0 });
    expect(vm.ledger.entries().find((e) => e.reason === 'IO_INSTRUCTION' && e.sub === 'OUT 0x3f8')?.count).toBe(3);
  });

  it.each(['icount', 'host'] as const)('sleeps in HLT until the timer interrupts it (%s)', async (clock) => {
    const { result, serial } = await run({ kernel: kernel([...start, ...waitForTimer, ...powerOff], [...out(COM1, 0x54), ...powerOff]), clock });
    expect(serial).toBe('T');
    expect(result.stopReason).toBe('poweroff');
  });

  it("wakes at each of a thousand ticks of the host's clock, however close the sleep is to the next", async () => {
    // sti; hlt; jmp to the hlt. The handler counts in EBX: dec ebx; jz off; mov al, 0x20; out 0x20, al; iretq.
    const sleep = [0xbb, ...word(1000, 4), ...start, ...waitForTimer, 0xeb, 0xfd];
    const handler = [0xff, 0xcb, 0x74, 0x06, ...outImmediate(0x20, 0x20), 0x48, 0xcf, ...powerOff];
    const { result } = await run({ kernel: kernel(sleep, handler), clock: 'host' });
    expect(result.stopReason).toBe('poweroff');
  });

  it('is interrupted in a loop that never leaves the guest', async () => {
    // sti; jmp $
    const code = [...start, ...waitForTimer.slice(0, -1), 0xeb, 0xfe];
    const runs = [
      await run({ kernel: kernel(code, [...out(COM1, 0x54), ...powerOff]) }),
      await run({ kernel: kernel(code, [...out(COM1, 0x54), ...powerOff]), jit: 'sync' }),
    ];
    expect(runs.map((r) => r.serial)).toEqual(['T', 'T']);
    expect(runs[1]?.result.summary.instructions).toBe(runs[0]?.result.summary.instructions);
  });

  it('that halts with interrupts off stops, and one without an IDT triple-faults', async () => {
    expect((await run({ kernel: kernel([0xfa, 0xf4]) })).result.stopReason).toBe('halted');
    // ud2
    await expect(run({ kernel: kernel([0x0f, 0x0b]) })).rejects.toThrow(VmError);
  });

  it('reads all ones where the board has nothing, and gets #GP for an MSR nobody has', async () => {
    // The last 2 MiB that the boot page directory can map become 0xd0000000; the first byte there goes out, minus 0xb4.
    const directory = [0x0f, 0x20, 0xd8, 0x48, 0x8b, 0x00, 0x24, 0x00, 0x48, 0x8b, 0x00, 0x24, 0x00];
    const map = [0xbb, ...word(0xd000_0083, 4), 0x48, 0x89, 0x98, ...word(0xff8, 4)];
    const load = [...directory, ...map, 0xb8, ...word(0x3fe0_0000, 4), 0x8a, 0x00];
    const { serial } = await run({ kernel: kernel([...start, ...load, 0x2c, 0xb4, 0x66, 0xba, ...word(COM1, 2), 0xee, ...powerOff]) });
    expect(serial).toBe('K');
    // RDMSR without an IDT.
    await expect(run({ kernel: kernel([0xb9, ...word(0x1_2345, 4), 0x0f, 0x32]) })).rejects.toThrow(/triple fault/);
  });
});

describe('createVm refuses', () => {
  const image = kernel(powerOff);
  it.each([
    ['a RAM disk beside a program', { program: 'x', initrd: image }, /initrd is for a stock kernel/],
    ['arguments for a stock kernel', { kernel: image, args: ['x'] }, /args is for a program/],
    ['a stock kernel for design pvm', { kernel: image, design: 'pvm' }, /design pvm does not run a stock kernel; bare does/],
    ['neither program nor kernel', { design: 'bare' }, /program is missing/],
    ['a switch that the design does not have', { kernel: image, optimisations: { prefault: true } }, /design bare has no optimisation prefault; it has none/],
  ] satisfies [string, VmOptions, RegExp][])('%s', async (_, options, message) => {
    await expect(createVm(options)).rejects.toThrow(message);
  });
  it('what is no kernel', async () => {
    await expect(createVm({ kernel: new Uint8Array(1000) })).rejects.toMatchObject({ code: 'unknown-kernel-format' });
  });
});
