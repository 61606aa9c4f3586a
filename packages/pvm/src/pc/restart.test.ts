import { afterAll, describe, expect, it } from 'vitest';
import { createVm, DESIGN_NAMES, designInfo, type RestartCause, type Vm, VmError, type VmOptions } from '../index.ts';
import { COM1, out, outAl, outImmediate, powerOff, start, stockKernel, TIMER_VECTOR, waitForTimer, word } from '../testing/stock-guest.ts';

const machines: Vm[] = [];
afterAll(() => Promise.all(machines.map((vm) => vm.dispose())));

/** RAM keeps its contents over a reset: boots are counted there. */
const COUNTER = 0x30_0000;
/** inc dword [COUNTER]; mov eax, [COUNTER]; add al, '0'; send it; cmp al, '3'; power off if it is. */
const countBoots = [
  ...[0xff, 0x04, 0x25, ...word(COUNTER, 4), 0x8b, 0x04, 0x25, ...word(COUNTER, 4), 0x04, 0x30, ...outAl, 0x3c, 0x33],
  ...[0x75, powerOff.length, ...powerOff],
];
const hang = [0xeb, 0xfe];
/** Sleeps for ever, woken by the timer, whose 3000th tick (3 s) powers the machine off. */
const sleep = [...start, 0xbb, ...word(3000, 4), ...waitForTimer, 0xeb, 0xfd];
const tick = { [TIMER_VECTOR]: [0xff, 0xcb, 0x74, 0x06, ...outImmediate(0x20, 0x20), 0x48, 0xcf, ...powerOff] };

const DESIGNS = DESIGN_NAMES.filter((name) => designInfo(name).platforms.includes('pc'));

async function run(code: readonly number[], options: VmOptions = {}, handlers = {}) {
  return ended({ kernel: stockKernel(code, handlers), clock: 'icount', memory: '16M', jit: 'off', reboot: true, ...options });
}

const resume = (restore: Uint8Array, options: VmOptions) => ended({ restore, ...options });

/** Runs a machine to its end. */
async function ended(options: VmOptions) {
  let serial = '';
  const causes: RestartCause[] = [];
  const vm = await createVm({
    onRestart: (cause) => causes.push(cause),
    onSerial: (chunk) => {
      serial += Buffer.from(chunk).toString('latin1');
    },
    ...options,
  });
  machines.push(vm);
  const result = await vm.run();
  return { result, serial, causes, vm };
}

const resets: [string, number[], RestartCause][] = [
  ['the keyboard controller', outImmediate(0x64, 0xfe), 'reset'],
  ['the reset control register, as ACPI names it', out(0xcf9, 0x06), 'reset'],
  ['the fast reset of port 0x92', outImmediate(0x92, 0x01), 'reset'],
  ['a triple fault', [0x0f, 0x0b], 'triple-fault'],
];

describe('a reset', () => {
  it.each(resets)('by %s starts the machine anew', async (_, reset, cause) => {
    const { result, serial, causes } = await run([...countBoots, ...reset, ...hang]);
    expect(serial).toBe('123');
    expect(causes).toEqual([cause, cause]);
    expect(result).toMatchObject({ stopReason: 'poweroff', exitCode: 0 });
  });

  it.each(DESIGNS)('starts timers, interrupts and page tables anew under %s', async (design) => {
    const afterTick = [...countBoots, ...outImmediate(0x64, 0xfe), ...hang];
    // The tables begin in an empty pool each time.
    const check: VmOptions = design === 'bare' ? {} : { checkMmu: true, shadowMemory: '1M' };
    const { serial, vm } = await run([...start, ...waitForTimer], { design, jit: 'sync', ...check }, { [TIMER_VECTOR]: afterTick });
    expect(serial).toBe('123');
    const { serial: again, vm: second } = await run([...start, ...waitForTimer], { design, jit: 'sync', ...check }, { [TIMER_VECTOR]: afterTick });
    expect(again).toBe('123');
    expect(second.stats().instructions).toBe(vm.stats().instructions);
    expect(second.ledger.totalExits).toBe(vm.ledger.totalExits);
  });

  it.each(DESIGNS)('restarts a machine that was restored from a snapshot under %s', async (design) => {
    const code = [...countBoots, ...outImmediate(0x64, 0xfe), ...hang];
    const options = { design, commandLine: 'once' };
    const plain = await run(code, options);
    const first = await createVm({ kernel: stockKernel(code), clock: 'icount', jit: 'off', memory: '16M', reboot: true, ...options });
    machines.push(first);
    const snapshot = first.save({ at: 3 });
    const [bytes] = await Promise.all([snapshot, first.run()]);
    const restored = await resume(bytes, { reboot: true });
    // It is taken at the first end of a run after so many instructions: in the second boot.
    expect([restored.serial, restored.causes]).toEqual(['23', ['reset']]);
    expect(restored.vm.stats().instructions).toBe(plain.vm.stats().instructions);
    // Whether it restarts is for whoever restores it to say; what it would load is not forgotten over a second snapshot.
    expect((await resume(bytes, { reboot: false })).result.stopReason).toBe('reset');
    const again = await createVm({ restore: bytes, reboot: true });
    machines.push(again);
    expect((await resume(await again.save(), { reboot: true })).serial).toBe('23');
  });

  it('stops a machine that does not reboot', async () => {
    const { result, serial } = await run([...countBoots, ...outImmediate(0x64, 0xfe), ...hang], { reboot: false });
    expect([result.stopReason, serial]).toEqual(['reset', '1']);
  });

  it('is not tried again for a kernel that triple-faults before it has said anything', async () => {
    await expect(run([0x0f, 0x0b])).rejects.toThrow(VmError);
  });
});

/** lea ebx, [rip] to the text after the code; send it up to NUL; go on. */
const sayLong = (text: string, then: readonly number[]) => {
  const loop = [0x8a, 0x03, 0x84, 0xc0, 0x74, 0x08, 0x66, 0xba, ...word(COM1, 2), 0xee, 0x48, 0xff, 0xc3, 0xeb, 0xf0];
  loop[5] = loop.length - 6;
  loop[loop.length - 1] = 256 - loop.length;
  const rest = [...loop, ...then];
  return [0x48, 0x8d, 0x1d, ...word(rest.length, 4), ...rest, ...Buffer.from(`${text}\0`)];
};
const PANIC = '[    1.5] x\r\n[    1.500000] Kernel panic - not syncing: no init\r\n';
const LAST = '[    1.600000] ---[ end Kernel panic - not syncing: no init ]---\r\n';

describe('a kernel panic', () => {
  it('ends the machine when the kernel loops after its last words', async () => {
    const { result } = await run(sayLong(PANIC + LAST, sleep), {}, tick);
    expect(result).toMatchObject({ stopReason: 'panic', exitCode: 71 });
  });

  it('that resets (panic=-1) restarts a machine that reboots, and ends one that does not', async () => {
    const code = sayLong(PANIC, [...outImmediate(0x64, 0xfe), ...hang]);
    expect((await run(code, { reboot: false })).result).toMatchObject({ stopReason: 'panic', exitCode: 71 });
    expect((await run([...countBoots, ...code])).serial).toMatch(/^1.*2.*3$/s);
  });

  it('is not what a program prints, with more to follow', async () => {
    const { result } = await run(sayLong(`${PANIC}${LAST}$ `, powerOff));
    expect(result).toMatchObject({ stopReason: 'poweroff' });
    const echoed = await run(sayLong(`$ echo "${LAST.trim()}"\r\n`, sleep), {}, tick);
    expect(echoed.result.stopReason).toBe('poweroff');
  });
});
