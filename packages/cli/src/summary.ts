import type { Summary } from '@pvm/pvm';

const ms = (n: number) => (n >= 1000 ? `${(n / 1000).toFixed(2)} s` : `${n.toFixed(1)} ms`);
const count = (n: number | bigint) => n.toLocaleString('en-US');

/** What a run cost, for people. */
export function formatSummary(s: Summary): string {
  const rows: [string, string][] = [
    ['instructions', `${count(s.instructions)} (${s.mips.toFixed(1)} MIPS)`],
    ['run time', `${ms(s.runMs)}: guest ${ms(s.guestMs)}, hypervisor ${ms(s.hypervisorMs)}`],
    ['exits', `${count(s.exits)}; world switches ${count(s.worldSwitches)}`],
    ['TLB misses', `${count(s.cpu.tlbMisses)}; flushes ${count(s.cpu.tlbFlushes)}`],
    ['shadow pages', `${count(s.shadowPagesBuilt)} built`],
  ];
  for (const [n, calls] of s.unknownSyscalls) rows.push(['unknown syscall', `number ${n}, ${count(calls)} times (answered -ENOSYS)`]);
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}

/** The same as plain data, units in the names. */
export function summaryJson(s: Summary): Record<string, unknown> {
  return {
    instructions: Number(s.instructions),
    mips: s.mips,
    runMs: s.runMs,
    guestMs: s.guestMs,
    hypervisorMs: s.hypervisorMs,
    exits: s.exits,
    worldSwitches: s.worldSwitches,
    shadowPagesBuilt: s.shadowPagesBuilt,
    tlbMisses: s.cpu.tlbMisses,
    tlbFlushes: s.cpu.tlbFlushes,
    unknownSyscalls: Object.fromEntries(s.unknownSyscalls),
  };
}
