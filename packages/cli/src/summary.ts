import { formatTable, LEFT_NAMES, LONG_STALL_MS, type RunReport, STALL_CAUSES, type StallCause, type Summary } from '@pvm/pvm';

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

/** Hits, and the share of data accesses that they are. Misses include those of fetches. */
function tlbHits({ cpu }: Summary): string {
  return cpu.tlbHits === undefined ? '' : `; hits ${count(cpu.tlbHits)} (${((100 * cpu.tlbHits) / Math.max(1, cpu.tlbHits + cpu.tlbMisses)).toFixed(2)} %)`;
}

/** What a run cost, for people. */
export function formatSummary(s: Summary): string {
  const rows: [string, string][] = [
    ...(s.form === undefined ? [] : [['guest', s.form] satisfies [string, string]]),
    ['instructions', `${count(s.instructions)} (${s.mips.toFixed(1)} MIPS)`],
    ['run time', `${ms(s.runMs)}: ${guestTime(s)}, hypervisor ${ms(s.hypervisorMs)}`],
    ['compiling', compiling(s)],
    ['exits', `${count(s.exits)}; world switches ${count(s.worldSwitches)}`],
    ['TLB misses', `${count(s.cpu.tlbMisses)}; flushes ${count(s.cpu.tlbFlushes)}${tlbHits(s)}`],
    ['shadow pages', `${count(s.shadowPagesBuilt)} built`],
  ];
  for (const [n, calls] of s.unknownSyscalls) rows.push(['unknown syscall', `number ${n}, ${count(calls)} times (answered -ENOSYS)`]);
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}

const STALL_NAMES: Readonly<Record<StallCause, string>> = {
  decode: 'decoding',
  grow: 'growing regions',
  merge: 'growing merged regions',
  receive: 'taking modules from the compiler',
  instantiate: 'instantiating them',
  link: 'linking them',
  reuse: 'finding stored code',
  flush: 'dropping all code',
  collect: 'collecting garbage, in all of these',
};

/** What kept the vCPU's thread from running, most first. */
function stalls({ cpu }: Summary): [string, string][] {
  return STALL_CAUSES.map((cause) => ({ cause, ...cpu.stalls[cause] }))
    .filter((time) => time.ms > 0)
    .sort((a, b) => b.ms - a.ms)
    .map((time) => [`  ${STALL_NAMES[time.cause]}`, `${ms(time.ms)}, ${ms(time.longestMs)} the longest, ${count(time.long)} above ${LONG_STALL_MS} ms`]);
}

/** What was compiled, what it cost, and how well it carries the guest, for people. */
export function formatJitStats(s: Summary): string {
  const { cpu } = s;
  const { jit } = cpu;
  if (jit === undefined) return 'Nothing was compiled: --jit off.';
  const share = (n: number, of: number) => (of === 0 ? '0 %' : `${((100 * n) / of).toFixed(1)} %`);
  const total = Number(s.instructions);
  const left = cpu.compiledCodeLeft.map((n, i) => [`  ${LEFT_NAMES[i] ?? ''}`, `${count(n)} (${share(n, cpu.compiledEntries)})`] satisfies [string, string]);
  const rate = s.compileMs > 0 ? `${count(Math.round((jit.instructions / s.compileMs) * 1000))} instructions/s` : '';
  const rows: [string, string][] = [
    [
      'instructions',
      `${count(s.instructions)}: compiled ${share(cpu.compiledInstructions, total)}, interpreted ${share(total - cpu.compiledInstructions, total)}`,
    ],
    ['run time', `${ms(s.runMs)}: ${guestTime(s)}, hypervisor ${ms(s.hypervisorMs)}`],
    [
      'regions',
      `${count(jit.regions)} compiled (${count(jit.merges)} by merging others), ${count(jit.liveRegions)} in use; all dropped ${count(jit.evictions)} times for want of room`,
    ],
    ['guest code in them', `${count(jit.instructions)} instructions, of ${count(cpu.instructionsDecoded)} that were decoded`],
    ['Wasm', `${count(jit.bytes)} bytes, ${count(jit.liveBytes)} in use`],
    ['code generator', ms(jit.emitMs)],
    ["V8's compiler", ms(jit.engineMs)],
    ['throughput', rate],
    ...(jit.reused === 0 ? [] : [['reused', `${count(jit.reused)} regions of earlier runs, or of the same code elsewhere`] as [string, string]]),
    ['stalls', `${ms(s.compileStallMs)} to find regions and link them; by cause, by the clock`],
    ...stalls(s),
    [
      'entered from outside',
      `${count(cpu.compiledEntries)} times, ${count(Math.round(cpu.compiledInstructions / Math.max(1, cpu.compiledEntries)))} instructions each; left because of`,
    ],
    ...left,
    ['jump cache misses', count(cpu.jumpCacheMisses)],
    ['code that changed', `${count(cpu.codeInvalidations)} pieces dropped`],
    ...(jit.failures === 0 ? [] : [['failures', `${count(jit.failures)}: ${jit.failure ?? ''}`] satisfies [string, string]]),
  ];
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
