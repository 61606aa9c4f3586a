import { afterEach, describe, expect, it } from 'vitest';
import { createVm, DESIGN_NAMES, designInfo, type Vm, type VmOptions } from '../index.ts';
import { outImmediate, powerOff, start, stockKernel, TIMER_VECTOR, waitForTimer, word } from '../testing/stock-guest.ts';
import type { DebugStop } from './debugger.ts';

const LOAD = 0x20_0000n;
const COUNTER = 0x20_9000;
const TURNS = 100_000;
/** mov ebx, TURNS; loop: inc qword [COUNTER]; dec ebx; jnz loop */
const LOOP_AT = LOAD + 5n;
const AFTER_LOOP = LOOP_AT + 12n;
const loop = [0xbb, ...word(TURNS, 4), 0x48, 0xff, 0x04, 0x25, ...word(COUNTER, 4), 0xff, 0xcb, 0x75, 0xf4];
const designs = DESIGN_NAMES.filter((name) => designInfo(name).platforms.includes('pc'));

const machines: Vm[] = [];
afterEach(async () => {
  await Promise.all(machines.splice(0).map((vm) => vm.dispose()));
});

/** A machine that stops before its first instruction, and its stops one by one. */
async function debugged(code: readonly number[], options: VmOptions = {}, handlers: Readonly<Record<number, readonly number[]>> = {}) {
  const vm = await createVm({ kernel: stockKernel(code, handlers), memory: '16M', clock: 'icount', jit: 'sync', ...options });
  machines.push(vm);
  const stops: DebugStop[] = [];
  const { debugger: dbg } = vm;
  dbg.onStop = (stop) => stops.push(stop);
  dbg.pause();
  const ended = vm.run();
  await dbg.untilStopped();
  /** Goes on to the next stop, or to the end. */
  const go = async () => {
    dbg.resume();
    await Promise.race([dbg.untilStopped(), ended]);
    return dbg.stop;
  };
  return { vm, dbg, stops, ended, go };
}

describe.each(designs)('a debugger under %s', (design) => {
  it.each(['off', 'sync'] as const)('stops at each turn of a loop and counts what an undisturbed run counts (--jit %s)', async (jit) => {
    const plain = await createVm({ kernel: stockKernel([...loop, ...powerOff]), memory: '16M', clock: 'icount', design, jit });
    machines.push(plain);
    const { summary } = await plain.run();

    const { dbg, ended, go } = await debugged([...loop, ...powerOff], { design, jit });
    expect(dbg.registers(0).get('rip')).toBe(LOAD);
    dbg.addBreakpoint(LOOP_AT);
    for (let turn = 0; turn < 3; turn++) {
      expect(await go()).toMatchObject({ kind: 'breakpoint' });
      expect(dbg.registers(0).get('rip')).toBe(LOOP_AT);
      expect(dbg.registers(0).get('rbx')).toBe(BigInt(TURNS - turn));
      expect(dbg.read(0, BigInt(COUNTER), 8)).toEqual(Uint8Array.from([turn, 0, 0, 0, 0, 0, 0, 0]));
    }
    // Hot code by now, and the breakpoint behind it.
    dbg.removeBreakpoint(LOOP_AT);
    dbg.addBreakpoint(AFTER_LOOP);
    expect(await go()).toMatchObject({ kind: 'breakpoint' });
    expect(dbg.registers(0).get('rbx')).toBe(0n);
    dbg.removeBreakpoint(AFTER_LOOP);
    expect(await go()).toBeUndefined();
    expect((await ended).summary.instructions).toBe(summary.instructions);
  });

  it('stops after the store that a watchpoint is for', async () => {
    const { dbg, go, ended } = await debugged([...loop, ...powerOff], { design });
    expect(dbg.addWatchpoint({ address: BigInt(COUNTER), size: 8, kind: 'write' })).toBe(true);
    for (const value of [1, 2]) {
      expect(await go()).toMatchObject({ kind: 'watchpoint', watchpoint: { address: BigInt(COUNTER) } });
      expect(dbg.registers(0).get('rip')).toBe(LOOP_AT + 8n);
      expect(dbg.read(0, BigInt(COUNTER), 1)).toEqual(Uint8Array.of(value));
    }
    dbg.removeWatchpoint({ address: BigInt(COUNTER), size: 8, kind: 'write' });
    expect(await go()).toBeUndefined();
    expect((await ended).stopReason).toBe('poweroff');
  });

  it('steps one instruction at a time, without the interrupts that wait', async () => {
    const handler = [0x48, 0xcf];
    const { dbg } = await debugged([...start, ...waitForTimer, ...loop, ...powerOff], { design }, { [TIMER_VECTOR]: handler });
    const places: bigint[] = [];
    for (let n = 0; n < 40; n++) {
      dbg.step(0);
      places.push(dbg.registers(0).get('rip'));
    }
    // Past STI and HLT into the loop; the handler never ran.
    expect(places.every((rip) => rip > LOAD && rip < LOAD + 0x800n)).toBe(true);
    expect(new Set(places).size).toBeGreaterThan(20);
  });

  it('keeps its breakpoints and watchpoints over a restart of the machine', async () => {
    // Counts boots in RAM, which a reset leaves alone; the third powers off.
    const boots = 0x30_0000;
    const code = [
      ...[0xff, 0x04, 0x25, ...word(boots, 4), 0x83, 0x3c, 0x25, ...word(boots, 4), 3, 0x75, powerOff.length],
      ...[...powerOff, ...outImmediate(0x64, 0xfe), 0xeb, 0xfe],
    ];
    const { dbg, go, ended } = await debugged(code, { design, reboot: true });
    dbg.addBreakpoint(LOAD + 15n);
    dbg.addWatchpoint({ address: BigInt(boots), size: 4, kind: 'write' });
    for (const n of [1, 2, 3]) {
      expect(await go()).toMatchObject({ kind: 'watchpoint' });
      expect(dbg.read(0, BigInt(boots), 4)).toEqual(Uint8Array.of(n, 0, 0, 0));
      expect(await go()).toMatchObject({ kind: 'breakpoint' });
      expect(dbg.registers(0).get('rip')).toBe(LOAD + 15n);
    }
    expect(await go()).toBeUndefined();
    expect((await ended).stopReason).toBe('poweroff');
  });

  it('writes registers and memory, code too', async () => {
    const { dbg, go, ended, vm } = await debugged([...loop, ...powerOff], { design });
    dbg.addBreakpoint(AFTER_LOOP);
    await go();
    // The loop becomes "add qword [COUNTER], 16" and three NOPs.
    expect(dbg.write(0, BigInt(COUNTER), new Uint8Array(8))).toBe(true);
    expect(dbg.write(0, LOOP_AT, Uint8Array.from([0x48, 0x83, 0x04, 0x25, ...word(COUNTER, 4), 16, 0x90, 0x90, 0x90]))).toBe(true);
    dbg.registers(0).set('rip', LOOP_AT);
    expect(await go()).toMatchObject({ kind: 'breakpoint' });
    expect(dbg.read(0, BigInt(COUNTER), 8)).toEqual(Uint8Array.from([16, 0, 0, 0, 0, 0, 0, 0]));
    expect(dbg.read(0, 0x7000_0000_0000n, 4).length).toBe(0);
    expect(dbg.write(0, 0x7000_0000_0000n, Uint8Array.of(1))).toBe(false);
    dbg.detach();
    await ended;
    expect(vm.debugger.stop).toBeUndefined();
  });

  it('pauses a guest that sleeps, and one that never leaves', async () => {
    const { dbg, ended } = await debugged([...start, ...waitForTimer, 0xeb, 0xfd], { design, clock: 'host' }, { [TIMER_VECTOR]: [0x48, 0xcf] });
    for (let n = 0; n < 3; n++) {
      dbg.resume();
      await new Promise((resolve) => setTimeout(resolve, 5));
      dbg.pause();
      await dbg.untilStopped();
      expect(dbg.stop).toMatchObject({ kind: 'pause', vcpu: 0 });
    }
    await machines[0]?.dispose();
    dbg.resume();
    await ended;
  });

  it('shows a guest that cannot go on before the machine ends', async () => {
    // ud2 without an IDT
    const { dbg, ended, go } = await debugged([0x0f, 0x0b], { design });
    expect(await go()).toMatchObject({ kind: 'dead' });
    expect(dbg.registers(0).get('rip')).toBe(LOAD);
    dbg.resume();
    await expect(ended).rejects.toThrow(/triple fault/);
  });
});
