import { describe, expect, it } from 'vitest';
import { createVm, DESIGN_NAMES, type DesignName, designInfo, VmError, type VmOptions } from '../index.ts';
import { COM1, echo, out, outImmediate, powerOff, runStock, start, stockKernel, TIMER_VECTOR, waitForTimer, word } from '../testing/stock-guest.ts';

/** Every design that boots stock kernels. */
const designs = DESIGN_NAMES.filter((name) => designInfo(name).platforms.includes('pc'));
/** The same, for machines of one design. */
const runOf = (design: DesignName) => (options: VmOptions) => runStock({ design, ...options });

describe.each(designs)('a stock kernel under %s', (design) => {
  const run = runOf(design);

  it('writes and reads the serial port and powers off', async () => {
    const { result, serial, exits } = await run({ kernel: stockKernel([...out(COM1, 0x4b), ...echo, ...echo, ...powerOff]), stdin: 'hi' });
    expect(serial).toBe('Khi');
    expect(result).toMatchObject({ stopReason: 'poweroff', exitCode: 0 });
    expect(Object.entries(exits).find(([name]) => name.endsWith('OUT 0x3f8'))?.[1]).toBe(3);
  });

  it.each(['icount', 'host'] as const)('sleeps in HLT until the timer interrupts it (%s)', async (clock) => {
    const { result, serial } = await run({
      kernel: stockKernel([...start, ...waitForTimer, ...powerOff], { [TIMER_VECTOR]: [...out(COM1, 0x54), ...powerOff] }),
      clock,
    });
    expect(serial).toBe('T');
    expect(result.stopReason).toBe('poweroff');
  });

  it("wakes at each of a thousand ticks of the host's clock, however close the sleep is to the next", async () => {
    // sti; hlt; jmp to the hlt. The handler counts in EBX: dec ebx; jz off; mov al, 0x20; out 0x20, al; iretq.
    const sleep = [0xbb, ...word(1000, 4), ...start, ...waitForTimer, 0xeb, 0xfd];
    const handler = [0xff, 0xcb, 0x74, 0x06, ...outImmediate(0x20, 0x20), 0x48, 0xcf, ...powerOff];
    const { result } = await run({ kernel: stockKernel(sleep, { [TIMER_VECTOR]: handler }), clock: 'host' });
    expect(result.stopReason).toBe('poweroff');
  });

  it('is interrupted in a loop that never leaves the guest', async () => {
    // sti; jmp $
    const code = [...start, ...waitForTimer.slice(0, -1), 0xeb, 0xfe];
    const runs = [
      await run({ kernel: stockKernel(code, { [TIMER_VECTOR]: [...out(COM1, 0x54), ...powerOff] }) }),
      await run({ kernel: stockKernel(code, { [TIMER_VECTOR]: [...out(COM1, 0x54), ...powerOff] }), jit: 'sync' }),
    ];
    expect(runs.map((r) => r.serial)).toEqual(['T', 'T']);
    expect(runs[1]?.result.summary.instructions).toBe(runs[0]?.result.summary.instructions);
  });

  it('is asked by its command line to isolate its page tables when the switch kpti is on', async () => {
    // mov ebx, [rsi + 0x228]; the byte at RBX to COM1 until it is 0.
    const print = [0x8b, 0x9e, ...word(0x228, 4), 0x66, 0xba, ...word(COM1, 2), 0x8a, 0x03, 0x84, 0xc0, 0x74, 0x06, 0xee, 0x48, 0xff, 0xc3, 0xeb, 0xf4];
    const kernel = stockKernel([...print, ...powerOff]);
    expect((await run({ kernel, commandLine: 'quiet' })).serial).toBe('quiet');
    for (const [commandLine, seen] of [
      ['quiet', 'quiet pti=on'],
      ['', 'pti=on'],
      // What follows -- is for init, unless it is in quotes.
      ['quiet -- sh -c "a -- b"', 'quiet pti=on -- sh -c "a -- b"'],
      ['-- sh', 'pti=on -- sh'],
      ['dyndbg="a -- b" x', 'dyndbg="a -- b" x pti=on'],
    ] as const) {
      expect((await run({ kernel, commandLine, optimisations: { kpti: true } })).serial).toBe(seen);
    }
  });

  it('that halts with interrupts off stops, and one without an IDT triple-faults', async () => {
    expect((await run({ kernel: stockKernel([0xfa, 0xf4]) })).result.stopReason).toBe('halted');
    // ud2
    await expect(run({ kernel: stockKernel([0x0f, 0x0b]) })).rejects.toThrow(VmError);
  });

  it('reads all ones where the board has nothing, and gets #GP for an MSR nobody has', async () => {
    // The last 2 MiB that the boot page directory can map become 0xd0000000; the first byte there goes out, minus 0xb4.
    const directory = [0x0f, 0x20, 0xd8, 0x48, 0x8b, 0x00, 0x24, 0x00, 0x48, 0x8b, 0x00, 0x24, 0x00];
    const map = [0xbb, ...word(0xd000_0083, 4), 0x48, 0x89, 0x98, ...word(0xff8, 4)];
    const load = [...directory, ...map, 0xb8, ...word(0x3fe0_0000, 4), 0x8a, 0x00];
    const { serial } = await run({ kernel: stockKernel([...start, ...load, 0x2c, 0xb4, 0x66, 0xba, ...word(COM1, 2), 0xee, ...powerOff]) });
    expect(serial).toBe('K');
    // RDMSR without an IDT.
    await expect(run({ kernel: stockKernel([0xb9, ...word(0x1_2345, 4), 0x0f, 0x32]) })).rejects.toThrow(/triple fault/);
  });
});

describe('createVm refuses', () => {
  const image = stockKernel(powerOff);
  it.each([
    ['a RAM disk beside a program', { program: 'x', initrd: image }, /initrd is for a stock kernel/],
    ['arguments for a stock kernel', { kernel: image, args: ['x'] }, /args is for a program/],
    ['a form of stock kernel for another design', { kernel: image, design: 'bare', stock: 'trap' }, /stock is for a kernel without a program under design pvm/],
    [
      'a revision of the ABI for a kernel that does not speak it',
      { kernel: image, design: 'pvm', stock: 'trap', abi: 'v2' },
      /abi is for kernels that speak PVM's ABI; stock/,
    ],
    ['neither program nor kernel', { design: 'bare' }, /program is missing/],
    ['a switch that the design does not have', { kernel: image, optimisations: { prefault: true } }, /design bare has no optimisation prefault; it has kpti/],
    ['isolated page tables of our own kernel', { program: 'x', optimisations: { kpti: true } }, /switch kpti is for unmodified kernels/],
    ['isolated page tables of a PVM kernel', { kernel: image, design: 'pvm', abi: 'v2', optimisations: { kpti: true } }, /switch kpti is for unmodified/],
  ] satisfies [string, VmOptions, RegExp][])('%s', async (_, options, message) => {
    await expect(createVm(options)).rejects.toThrow(message);
  });
  it('what is no kernel', async () => {
    await expect(createVm({ kernel: new Uint8Array(1000) })).rejects.toMatchObject({ code: 'unknown-kernel-format' });
  });
});
