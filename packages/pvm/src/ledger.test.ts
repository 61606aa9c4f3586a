import { describe, expect, it } from 'vitest';
import { ExitLedger } from './ledger.ts';
import { formatLedger, ledgerJson } from './report.ts';

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
    expect(e?.histogram[6]).toBe(1);
    expect(e?.histogram[7]).toBe(1);
    expect(e?.histogram[8]).toBe(1);
    expect(e?.histogram[9]).toBe(1);
    expect(e?.histogram[11]).toBe(1);
  });

  it('counts two world switches an exit and one a direct switch', () => {
    const ledger = new ExitLedger(() => ({ syscalls: 10, returns: 9 }));
    ledger.record(ledger.row('SYSCALL'), 5, 0, 0);
    expect(ledger.worldSwitches()).toEqual({ exits: 1, directSyscalls: 10, directReturns: 9, total: 21 });
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
    expect(ledger.entries().length).toBeLessThanOrEqual(513);
    expect(ledger.count('#GP')).toBe(10_000);
  });

  it('merges sub-reasons as if they had been one row', () => {
    const [split, whole] = [new ExitLedger(), new ExitLedger()];
    [10, 20, 70, 400].forEach((ns, i) => {
      split.record(split.row('A', `${i % 2}`), ns, 0, 0);
      whole.record(whole.row('A'), ns, 0, 0);
    });
    expect(formatLedger(split, { bySub: false })).toBe(formatLedger(whole));
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
