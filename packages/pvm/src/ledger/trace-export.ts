import { PvmError } from '../errors.ts';
import type { ExitLedger } from '../ledger.ts';
import { type LoadAddresses, Symboliser } from '../symbols/symboliser.ts';

/** First key of a trace's first line: which form it has. */
export const TRACE_SCHEMA = 'pvm-trace-1';

/** First line of a trace. */
export interface TraceHeader {
  readonly schema: typeof TRACE_SCHEMA;
  readonly design: string;
  /** Lines that follow, and exits before them that the ring lost. */
  readonly events: number;
  readonly lost: number;
}

/** Each further line: one VM exit, in the order in which they ended. */
export interface TraceLine {
  /** When the exit began: host time since the machine was made, ns. */
  readonly startNs: number;
  /** Host time until the guest ran again, ns. */
  readonly durationNs: number;
  readonly vcpu: number;
  readonly reason: string;
  readonly sub: string;
  readonly detail: string;
  /** Guest RIP, hexadecimal. */
  readonly rip: string;
  readonly symbol?: string;
  /** Guest instructions retired on that vCPU before the exit. */
  readonly instructions: number;
}

/** The trace as JSON lines, each with its newline: the header, then the exits. Nothing when the ledger keeps no trace. */
export function* traceLines(ledger: ExitLedger, design: string, at: LoadAddresses, symbols = new Symboliser()): Generator<string, void> {
  const { trace } = ledger;
  if (trace === undefined) return;
  const header: TraceHeader = { schema: TRACE_SCHEMA, design, events: trace.length, lost: trace.lost };
  yield `${JSON.stringify(header)}\n`;
  for (const event of trace.events()) {
    const { reason, sub, detail } = ledger.name(event.row);
    const symbol = symbols.find(event.rip, at);
    const line: TraceLine = {
      startNs: Math.round(event.startNs),
      durationNs: Math.round(event.durationNs),
      vcpu: event.vcpu,
      ...{ reason, sub, detail },
      rip: `0x${event.rip.toString(16)}`,
      ...(symbol === undefined ? {} : { symbol }),
      instructions: event.instructions,
    };
    yield `${JSON.stringify(line)}\n`;
  }
}

/** Process number of the machine in the Perfetto document. */
const PID = 1;

/**
 * Converts a trace to Chrome's trace-event format (JSON object form), which Perfetto and chrome://tracing open: a complete event ("X") an exit,
 * a thread a vCPU, and how much of the run was lost in the metadata. Times are microseconds there.
 *
 * Source: "Trace Event Format", Google, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
 *
 * @param lines of the trace, in order, without newlines
 * @returns the document piece by piece
 * @throws PvmError `bad-report` that names the line that is wrong
 */
export async function* toPerfetto(lines: AsyncIterable<string> | Iterable<string>, name: string): AsyncGenerator<string, void> {
  let number = 0;
  let header: TraceHeader | undefined;
  const vcpus = new Set<number>();
  for await (const text of lines) {
    number++;
    if (text.trim() === '') continue;
    const line = parseLine(text, `${name}:${number}`);
    if (header === undefined) {
      header = checkHeader(line, name);
      yield `{"displayTimeUnit":"ns","otherData":${JSON.stringify({ design: header.design, lostExits: header.lost })},"traceEvents":[\n`;
      yield JSON.stringify({ name: 'process_name', ph: 'M', pid: PID, tid: 0, ts: 0, args: { name: `pvm machine, design ${header.design}` } });
      continue;
    }
    const event = checkEvent(line, `${name}:${number}`);
    if (!vcpus.has(event.vcpu)) {
      vcpus.add(event.vcpu);
      yield `,\n${JSON.stringify({ name: 'thread_name', ph: 'M', pid: PID, tid: event.vcpu, ts: 0, args: { name: `vCPU ${event.vcpu}` } })}`;
    }
    yield `,\n${JSON.stringify(perfettoEvent(event))}`;
  }
  if (header === undefined) throw new PvmError('bad-report', `${name}: empty; expected a trace that pvm run --trace wrote`);
  yield '\n]}\n';
}

function perfettoEvent(e: TraceLine) {
  const { rip, symbol, instructions, detail } = e;
  return {
    name: e.sub === '' ? e.reason : `${e.reason} ${e.sub}`,
    cat: e.reason,
    ph: 'X',
    ts: e.startNs / 1000,
    dur: e.durationNs / 1000,
    pid: PID,
    tid: e.vcpu,
    args: { rip, ...(symbol === undefined ? {} : { symbol }), ...(detail === '' ? {} : { detail }), instructions },
  };
}

function parseLine(text: string, where: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Readonly<Record<string, unknown>>;
  } catch (cause) {
    throw new PvmError('bad-report', `${where}: not JSON; expected a trace that pvm run --trace wrote`, { cause });
  }
  throw new PvmError('bad-report', `${where}: expected an object a line`);
}

function checkHeader(line: Readonly<Record<string, unknown>>, name: string): TraceHeader {
  if (line['schema'] === TRACE_SCHEMA && typeof line['design'] === 'string' && isCount(line['lost'])) return line as unknown as TraceHeader;
  throw new PvmError('bad-report', `${name}: the first line is not the header of schema "${TRACE_SCHEMA}"; expected a trace that pvm run --trace wrote`);
}

function checkEvent(line: Readonly<Record<string, unknown>>, where: string): TraceLine {
  const wrong =
    ['startNs', 'durationNs', 'vcpu', 'instructions'].find((key) => !isCount(line[key])) ??
    ['reason', 'sub', 'detail', 'rip'].find((key) => typeof line[key] !== 'string') ??
    (line['symbol'] === undefined || typeof line['symbol'] === 'string' ? undefined : 'symbol');
  if (wrong !== undefined) throw new PvmError('bad-report', `${where}: "${wrong}" is missing or not what a trace has there`);
  return line as unknown as TraceLine;
}

function isCount(value: unknown): boolean {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}
