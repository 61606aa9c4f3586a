import { StateReader, StateWriter } from '@pvm/cpu-jit';
import { describe, expect, it } from 'vitest';
import { log2Histogram } from './ledger/exit-row.ts';
import { ledgerJson } from './ledger/ledger-json.ts';
import { ExitLedger } from './ledger.ts';
import { formatLedger } from './report.ts';

describe('exit ledger', () => {
  it('keeps exact count, total, minimum, maximum, mean and deviation', () => {
    const ledger = new ExitLedger();
    const samples = [100, 200, 300, 1000, 4000];
    const row = ledger.row('HYPERCALL', 'IRQ_WIN');
    for (const ns of samples) ledger.record(row, ns, 0x1000, 0);
    const [e] = ledger.entries();
    const mean = 1120;
    const variance = samples.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 4;
    expect(e).toMatchObject({ reason: 'HYPERCALL', sub: 'IRQ_WIN', count: 5, totalNs: 5600, minNs: 100, maxNs: 4000 });
    expect(e?.meanNs).toBeCloseTo(mean, 9);
    expect(e?.relStddevPercent).toBeCloseTo((100 * Math.sqrt(variance / 5)) / mean, 9);
    const octaves = e === undefined ? [] : log2Histogram(e);
    expect(octaves).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1]);
  });

  it('keeps vCPUs and classes of error codes apart, and sums them up', () => {
    const ledger = new ExitLedger();
    ledger.record(ledger.row('#PF', 'guest', 'read'), 100, 0, 0, 0);
    ledger.record(ledger.row('#PF', 'guest', 'read'), 300, 0, 0, 3);
    ledger.record(ledger.row('#PF', 'guest', 'write'), 500, 0, 0, 3);
    expect(ledger.stats().map((e) => [e.detail, e.vcpu, e.count])).toEqual([
      ['read', 0, 1],
      ['read', 3, 1],
      ['write', 3, 1],
    ]);
    expect(ledger.entries()).toMatchObject([{ reason: '#PF', sub: 'guest', detail: '', vcpu: -1, count: 3, totalNs: 900, minNs: 100, maxNs: 500 }]);
    expect(formatLedger(ledger, { vcpu: 3 })).toMatch(/^Total Samples:2,/m);
    expect(formatLedger(ledger, { by: 'detail' })).toMatch(/^#PF guest \(write\) +1 /m);
  });

  it('takes no state whose rows are none', () => {
    for (const row of [undefined, 5, { reason: 'HLT' }]) {
      const state = StateWriter.save({ state: (s) => void s.value('rows', [row]) });
      const restored = new ExitLedger(() => ({ syscalls: 0, returns: 0 }));
      expect(() => StateReader.restore(restored, state)).toThrow('ledger row 0 has no name');
    }
  });

  it('counts nothing when it is switched off', () => {
    const ledger = new ExitLedger(undefined, { timing: 'off' });
    ledger.finish(ledger.row('HLT'), ledger.start(), 0, 0);
    expect([ledger.totalExits, ledger.entries()]).toEqual([0, []]);
  });

  it('counts every exit, but times fewer and fewer after the first 2,048, with the same mean', () => {
    const ledger = new ExitLedger();
    const rows = [ledger.row('HLT'), ledger.row('CPUID')];
    const n = 400_000;
    for (let i = 0; i < n; i++) ledger.finish(rows[i % 2] ?? 0, ledger.start(), i % 2, 0);
    const [a, b] = ledger.entries();
    expect([a?.count, b?.count]).toEqual([n / 2, n / 2]);
    const timed = (2048 + (32_768 - 2048) / 16 + (262_144 - 32_768) / 64 + (n - 262_144) / 256) / 2;
    for (const e of [a, b]) {
      expect((e?.timed ?? 0) / timed).toBeCloseTo(1, 1);
      expect(e?.totalNs).toBeCloseTo(((e?.meanNs ?? 0) * n) / 2, 3);
      expect((e?.buckets ?? []).reduce((sum, [, count]) => sum + count, 0) / (n / 2)).toBeCloseTo(1, 2);
    }
  });

  describe('an exit that stands for others and takes very long', () => {
    /** 10,000 exits of 2 to 4 us, of which the last that is timed takes `ns`. */
    const ledgerWith = (ns: number) => {
      const ledger = new ExitLedger();
      const row = ledger.row('#PF', 'guest');
      for (let i = 0; i < 10_000; i++) {
        if (ledger.start() === 0) ledger.finish(row, 0, 0, 0);
        else ledger.record(row, 2000 + (i % 20) * 100, 0, 0);
      }
      while (ledger.start() === 0) ledger.finish(row, 0, 0, 0);
      ledger.record(row, ns, 0, 0);
      return ledger;
    };

    it('was held up by the host, and counts for itself alone', () => {
      const [e] = ledgerWith(4e6).entries();
      expect(e).toMatchObject({ heldUp: 1, heldUpNs: 4e6, maxNs: 4e6 });
      // 2.95 us, and 4 ms in 10,000 exits.
      expect((e?.meanNs ?? 0) / (2950 + 400)).toBeCloseTo(1, 2);
      expect((e?.buckets ?? []).filter(([low]) => low > 5000).map(([, count]) => count)).toEqual([1]);
    });

    it('says so in table and document', () => {
      const ledger = ledgerWith(4e6);
      expect(formatLedger(ledger)).toContain('Held up by the host:1 of the timed, 4000.00us; each counts for itself alone.');
      expect(ledgerJson(ledger).exits[0]).toMatchObject({ heldUpSamples: 1, heldUpNs: 4e6 });
    });

    it.each([49_000, 60_000 - 1])('counts for the others too when it took %i ns, no 16 times the usual', (ns) => {
      const ledger = ledgerWith(ns);
      expect(ledger.entries()[0]?.heldUp).toBe(0);
      expect(formatLedger(ledger)).not.toContain('Held up');
    });
  });

  it('counts all that is timed when each exit is, whatever it took', () => {
    const ledger = new ExitLedger(undefined, { timing: 'all' });
    const row = ledger.row('HLT');
    for (let i = 0; i < 3000; i++) ledger.record(row, i === 2999 ? 3e6 : 1000, 0, 0);
    expect(ledger.entries()[0]).toMatchObject({ heldUp: 0, totalNs: 2999e3 + 3e6 });
  });

  it('counts again after it was switched off and on', () => {
    const ledger = new ExitLedger();
    const row = ledger.row('HLT');
    const exit = () => ledger.finish(row, ledger.start(), 0, 0);
    exit();
    ledger.timing = 'off';
    exit();
    ledger.timing = 'sampled';
    exit();
    expect([ledger.count('HLT'), ledger.totalExits]).toEqual([2, 2]);
  });

  it('takes halves of RIP with or without a sign', () => {
    const ledger = new ExitLedger();
    for (const rip of [-1, 0xffff_ffff]) ledger.finish(ledger.row('HLT'), ledger.start(), rip, rip);
    expect(ledger.hotRips(2).map((r) => [r.rip, r.count])).toEqual([[0xffff_ffff_ffff_ffffn, 2]]);
    expect(ledger.recent().map((e) => e.rip)).toEqual([0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn]);
  });

  it('traces the last exits and counts those it lost', () => {
    const ledger = new ExitLedger(undefined, { traceLimit: 4, instructions: () => 7 });
    const row = ledger.row('CPUID');
    for (let i = 0; i < 10; i++) ledger.record(row, i, i, 1);
    expect(ledger.trace?.lost).toBe(6);
    expect([...(ledger.trace?.events() ?? [])].map((e) => [e.row, e.vcpu, e.durationNs, e.rip, e.instructions])).toEqual(
      [6, 7, 8, 9].map((i) => [row, 0, i, 0x1_0000_0000n + BigInt(i), 7]),
    );
  });

  it('counts two world switches an exit and one a direct switch', () => {
    const ledger = new ExitLedger(() => ({ syscalls: 10, returns: 9, faults: 3 }));
    ledger.record(ledger.row('SYSCALL'), 5, 0, 0);
    expect(ledger.worldSwitches()).toEqual({ exits: 1, directSyscalls: 10, directReturns: 9, directFaults: 3, total: 24 });
  });

  it('remembers the last exits, oldest first', () => {
    const ledger = new ExitLedger();
    const row = ledger.row('#PF');
    for (let i = 0; i < 40; i++) ledger.record(row, 1, i, 0xffff_d000);
    expect(ledger.recent().map((e) => e.rip)).toEqual(Array.from({ length: 32 }, (_, i) => 0xffff_d000_0000_0000n + BigInt(i + 8)));
  });

  it('stays bounded when the guest invents sub-reasons', () => {
    const ledger = new ExitLedger();
    for (let port = 0; port < 10_000; port++) ledger.record(ledger.row('#GP', `in 0x${port.toString(16)}`), 1, 0, 0);
    ledger.record(ledger.row('HLT'), 1, 0, 0);
    expect(ledger.entries()).toHaveLength(130);
    expect(ledger.count('#GP')).toBe(10_000);
    expect(ledger.count('#GP', 'other')).toBe(10_000 - 128);
  });

  it('merges sub-reasons as if they had been one row', () => {
    const [split, whole] = [new ExitLedger(), new ExitLedger()];
    [10, 20, 70, 400].forEach((ns, i) => {
      split.record(split.row('A', `${i % 2}`), ns, 0, 0);
      whole.record(whole.row('A'), ns, 0, 0);
    });
    expect(formatLedger(split, { by: 'reason' })).toBe(formatLedger(whole));
  });

  it('leaves columns out of a table that must be narrow, the average last', () => {
    const ledger = new ExitLedger();
    ledger.record(ledger.row('HYPERCALL', 'TLB_FLUSH_CURRENT'), 1500, 0, 0);
    const heading = (width: number) => formatLedger(ledger, { width }).split('\n')[0] ?? '';
    expect(heading(200)).toBe(formatLedger(ledger).split('\n')[0]);
    expect(heading(80)).not.toMatch(/Min Time/);
    for (const width of [80, 60]) expect(heading(width)).toMatch(/Samples .*Time%.*Avg time$/);
    expect(
      Math.max(
        ...formatLedger(ledger, { width: 80 })
          .split('\n')
          .slice(0, 3)
          .map((line) => line.length),
      ),
    ).toBeLessThanOrEqual(80);
  });

  it('prints the columns of perf kvm stat', () => {
    const ledger = new ExitLedger();
    ledger.record(ledger.row('HYPERCALL', 'LOAD_PGTBL'), 1500, 0, 0);
    const lines = formatLedger(ledger).split('\n');
    expect(lines[0]).toMatch(/^VM-EXIT +Samples +Samples% +Time% +Min Time +Max Time +Avg time$/);
    expect(lines[2]).toMatch(/^HYPERCALL LOAD_PGTBL +1 +100\.00% +100\.00% +1\.50us +1\.50us +1\.50us \( \+- +0\.00% \)$/);
    expect(ledgerJson(ledger).exits[0]).toMatchObject({ reason: 'HYPERCALL', sub: 'LOAD_PGTBL', samples: 1, avgNs: 1500 });
  });
});
