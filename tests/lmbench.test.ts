import { expect, test } from 'vitest';
import { type LmbenchRow, lmbenchRows } from '../guests/src/index.ts';
import { lmbenchGuest, together } from '../packages/cli/src/bench/measure.ts';
import { createVm, intervalJson } from '../packages/pvm/src/index.ts';
import { debianKernel } from './debian.ts';

const kernel = await debianKernel('linux-image-cloud-amd64');
/** Rows and how often each is run in one of its four intervals. */
const ROWS: ReadonlyMap<LmbenchRow, number> = new Map([
  ['getpid', 50],
  ['protection-fault', 20],
  ['fork', 2],
  ['allocate', 1],
]);

test.skipIf(kernel === undefined)(
  'operations in stock Linux under pvm are counted one by one (skipped without a kernel from apt)',
  { timeout: 300_000 },
  async () => {
    const vm = await createVm({ design: 'pvm', kernel: kernel ?? '', memory: '128M', clock: 'icount', ...(await lmbenchGuest('pvm', ROWS)) });
    try {
      const { stopReason, intervals } = await vm.run();
      expect(stopReason).toBe('poweroff');
      const row = (name: LmbenchRow) => {
        const m = together(intervals.filter((i) => lmbenchRows[i.id] === name).map(intervalJson));
        const count = (reason: string, sub: string) => m.byReason.find((e) => e.reason === reason && e.sub === sub)?.count ?? 0;
        return { ...m, count, crossings: m.worldSwitches - 2 * m.exits };
      };
      // An interrupt of the timer now and then is part of an interval, so only what it does not cause is exact.
      expect(row('getpid')).toMatchObject({ operations: 200, crossings: 400 });
      expect(row('getpid').exits).toBeLessThan(10);
      expect(row('protection-fault').count('#PF', 'guest')).toBe(80);
      expect(row('allocate')).toMatchObject({ operations: 4 * 256 });
      expect(row('allocate').count('#PF', 'guest')).toBe(4 * 256);
      expect(row('fork').count('#PF', 'table write')).toBeGreaterThan(8 * 5);
    } finally {
      await vm.dispose();
    }
  },
);
