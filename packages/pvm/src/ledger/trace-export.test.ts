import { expect, it } from 'vitest';
import { ExitLedger } from '../ledger.ts';
import { toPerfetto, traceLines } from './trace-export.ts';

function trace(): string[] {
  const ledger = new ExitLedger(undefined, { traceLimit: 3, instructions: () => 99 });
  ledger.record(ledger.row('HLT'), 500, 0, 0);
  ledger.record(ledger.row('CPUID'), 1000, 0x1000, 0xffff_8000);
  ledger.record(ledger.row('#PF', 'guest', 'read, not present, user'), 2000, 0x2000, 0, 1);
  ledger.record(ledger.row('MSR_READ', '0x10'), 1500, 0x3000, 0);
  return [...traceLines(ledger, 'pvm', { syscallEntry: 0n })];
}

async function convert(lines: readonly string[]): Promise<string> {
  let text = '';
  for await (const piece of toPerfetto(lines, 'trace.jsonl')) text += piece;
  return text;
}

it('writes a header that counts the lost exits, then an exit a line', () => {
  const [header, ...events] = trace().map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(header).toEqual({ schema: 'pvm-trace-1', design: 'pvm', events: 3, lost: 1 });
  expect(events).toMatchObject([
    { durationNs: 1000, vcpu: 0, reason: 'CPUID', sub: '', rip: '0xffff800000001000', instructions: 99 },
    { durationNs: 2000, vcpu: 1, reason: '#PF', sub: 'guest', detail: 'read, not present, user' },
    { durationNs: 1500, vcpu: 0, reason: 'MSR_READ', sub: '0x10' },
  ]);
});

it('converts to what the trace-event format allows: known phases, times in microseconds, named threads', async () => {
  const document = JSON.parse(await convert(trace())) as { displayTimeUnit: string; otherData: object; traceEvents: Record<string, unknown>[] };
  expect(['ms', 'ns']).toContain(document.displayTimeUnit);
  expect(document.otherData).toEqual({ design: 'pvm', lostExits: 1 });
  for (const event of document.traceEvents) {
    expect(event).toMatchObject({ name: expect.any(String), ph: expect.stringMatching(/^[XM]$/), ts: expect.any(Number), pid: 1, tid: expect.any(Number) });
    if (event['ph'] === 'X') expect(event).toMatchObject({ cat: expect.any(String), dur: expect.any(Number), args: { rip: expect.stringMatching(/^0x/) } });
    else expect(event).toMatchObject({ name: expect.stringMatching(/^(process|thread)_name$/), args: { name: expect.any(String) } });
  }
  const slices = document.traceEvents.filter((e) => e['ph'] === 'X');
  expect(slices.map((e) => [e['name'], e['dur'], e['tid']])).toEqual([
    ['CPUID', 1, 0],
    ['#PF guest', 2, 1],
    ['MSR_READ 0x10', 1.5, 0],
  ]);
  const named = document.traceEvents.filter((e) => e['name'] === 'thread_name').map((e) => e['tid']);
  expect(new Set(slices.map((e) => e['tid']))).toEqual(new Set(named));
});

it.each([
  ['nothing', [], /empty/],
  ['text', ['hello'], /trace.jsonl:1: not JSON/],
  ['another document', ['{"schema":"pvm-stat-1"}'], /header/],
  ['a line without a time', ['{"schema":"pvm-trace-1","design":"pvm","events":1,"lost":0}', '{"durationNs":1}'], /trace.jsonl:2: "startNs"/],
])('refuses %s', async (_, lines, message) => {
  await expect(convert(lines)).rejects.toThrow(message);
});
