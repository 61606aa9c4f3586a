import type { CpuCore } from '@pvm/cpu-jit';
import { EXIT_LIMIT, S_ICOUNT } from '@pvm/cpu-jit/layout';
import { afterEach, expect, it, vi } from 'vitest';
import type { Design } from './designs/design.ts';
import { ExitLedger } from './ledger.ts';
import { RunLoop } from './run-loop.ts';

/** Instructions a millisecond of compiled code, and of code that has yet to be compiled. */
const FAST = 2_000_000;
const SLOW = 20_000;
/** What the guest retires fast before it comes to other code. */
const FAST_PART = 200_000_000;

/** A guest that does nothing but retire instructions, and the clock that goes with it. */
function machine(): { loop: RunLoop; now: () => number } {
  const u64 = new BigUint64Array(1 << 13);
  const i32 = new Int32Array(u64.buffer);
  let limit = 0n;
  const retired = () => u64[S_ICOUNT >>> 3] ?? 0n;
  const setLimit = (_: number, value: bigint) => {
    limit = value;
  };
  const core = { vcpus: 1, u64, u32: new Uint32Array(u64.buffer), i32, cpuAddress: () => 0, setLimit };
  const enter = () => {
    u64[S_ICOUNT >>> 3] = limit;
    return EXIT_LIMIT;
  };
  const design = { enter, halted: () => 'no', prepareEntry: () => false, interruptRow: -1, timerRow: -1 };
  const ledger = new ExitLedger(() => ({ syscalls: 0, returns: 0 }));
  const control = { stopped: () => false, afterExit: () => undefined, maxInstructions: undefined };
  const now = () => Math.min(Number(retired()), FAST_PART) / FAST + Math.max(0, Number(retired()) - FAST_PART) / SLOW;
  return { loop: new RunLoop(core as unknown as CpuCore, design as unknown as Design, ledger, undefined, control), now };
}

afterEach(() => void vi.restoreAllMocks());

it('a guest that becomes a hundred times slower keeps the event loop waiting for some slices, not for a hundred', () => {
  const { loop, now } = machine();
  vi.spyOn(performance, 'now').mockImplementation(now);
  const slices: number[] = [];
  while (loop.retired < FAST_PART + 100 * SLOW) {
    const start = now();
    expect(loop.runSlice()).toBe('yield');
    slices.push(now() - start);
  }
  expect(Math.max(...slices)).toBeLessThan(150);
  // Both speeds come to slices of 15 ms.
  expect(slices.filter((ms) => ms > 10 && ms < 20).length).toBeGreaterThan(slices.length / 2);
});
