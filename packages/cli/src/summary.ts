import { formatTable, type RunReport, type Summary } from '@pvm/pvm';

const ms = (n: number) => (n >= 1000 ? `${(n / 1000).toFixed(2)} s` : `${n.toFixed(1)} ms`);
const count = (n: number | bigint) => n.toLocaleString('en-US');

function guestTime(s: Summary): string {
  if (s.interpreterMs === undefined || s.compiledMs === undefined) return `guest ${ms(s.guestMs)}`;
  return `interpreter ${ms(s.interpreterMs)}, compiled code ${ms(s.compiledMs)}, waiting for the compiler ${ms(s.compileStallMs)}`;
}

function compiling(s: Summary): string {
  const { jit } = s.cpu;
  if (jit === undefined) return 'off';
  const failed = jit.failures === 0 ? '' : `; ${jit.failures} regions failed: ${jit.failure ?? ''}`;
  return `${count(jit.regions)} regions, ${count(jit.instructions)} instructions in ${ms(s.compileMs)}${failed}`;
}

/** What a run cost, for people. */
export function formatSummary(s: Summary): string {
  const rows: [string, string][] = [
    ...(s.form === undefined ? [] : [['guest', s.form] satisfies [string, string]]),
    ['instructions', `${count(s.instructions)} (${s.mips.toFixed(1)} MIPS)`],
    ['run time', `${ms(s.runMs)}: ${guestTime(s)}, hypervisor ${ms(s.hypervisorMs)}`],
    ['compiling', compiling(s)],
    ['exits', `${count(s.exits)}; world switches ${count(s.worldSwitches)}`],
    ['TLB misses', `${count(s.cpu.tlbMisses)}; flushes ${count(s.cpu.tlbFlushes)}`],
    ['shadow pages', `${count(s.shadowPagesBuilt)} built`],
  ];
  for (const [n, calls] of s.unknownSyscalls) rows.push(['unknown syscall', `number ${n}, ${count(calls)} times (answered -ENOSYS)`]);
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}

/** The guest addresses of the most exits. */
export function formatHotExits(report: Pick<RunReport, 'hotExits'>, rows = 10): string {
  if (report.hotExits.length === 0) return 'No exits.';
  const table = [
    ['Samples', 'VM-EXIT', 'Guest RIP', 'Symbol'],
    ...report.hotExits
      .slice(0, rows)
      .map((e) => [`${e.maxOvercount > 0 ? '<=' : ''}${count(e.samples)}`, [e.reason, e.sub].filter((part) => part !== '').join(' '), e.rip, e.symbol ?? '']),
  ];
  return formatTable(table, [1, 2, 3]).join('\n');
}
