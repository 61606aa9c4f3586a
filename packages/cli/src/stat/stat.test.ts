import { type ExitLedger, ExitLedger as Ledger, type Vm } from '@pvm/pvm';
import { describe, expect, test } from 'vitest';
import { GuestTail } from './guest-tail.ts';
import { LiveView, showLive } from './live.ts';
import { Screen } from './screen.ts';

/** A terminal of 60 x 12 that remembers what was written. */
class FakeTerminal {
  readonly columns: number = 60;
  readonly rows: number = 12;
  text = '';
  write(text: string): boolean {
    this.text += text;
    return true;
  }
}

/** What the view asks of a machine. */
function machine(ledger: ExitLedger): Vm {
  return { ledger, designName: 'pvm', stats: () => ({ instructions: 1234n }) } as unknown as Vm;
}

function ledgerWithExits(): ExitLedger {
  const ledger = new Ledger();
  for (let i = 0; i < 30; i++) ledger.record(ledger.row(`REASON_${i}`), 1000, 0, 0, i % 2);
  return ledger;
}

const OPTIONS = { sort: 'samples', by: 'sub', percentiles: false } as const;
/** A stream that is no terminal: nothing is set on it. */
const input = { isTTY: false } as NodeJS.ReadStream;

describe('the guest output under the live view', () => {
  const cases: [string, string, string[]][] = [
    ['escape sequences', '\x1b[2J\x1b[31mred\x1b[0m \x1b]0;title\x07x\n', ['red x']],
    ['carriage returns', 'old\rnew\r\n', ['new']],
    ['control characters', 'a\x00\x07\x08b\tc\x9b1m\n', ['ab    c']],
    ['a character divided between chunks', 'ä\nb', ['ä', 'b']],
  ];
  test.each(cases)('loses its %s', (_, text, lines) => {
    const tail = new GuestTail(10);
    for (const byte of new TextEncoder().encode(text)) tail.add(Uint8Array.of(byte));
    expect(tail.last(10)).toEqual(lines);
  });
  test('stays bounded', () => {
    const tail = new GuestTail(3);
    tail.add(new TextEncoder().encode(`${'x'.repeat(1_000_000)}\n${'line\n'.repeat(1000)}`));
    expect(tail.last(100)).toEqual(['line', 'line', 'line']);
  });
});

describe('the live view', () => {
  test('draws exactly the size of the terminal, on a screen of its own that it leaves', async () => {
    const terminal = new FakeTerminal();
    const tail = new GuestTail(5);
    tail.add(new TextEncoder().encode('from the guest\x1b[2J\n'));
    await showLive(new LiveView(machine(ledgerWithExits()), tail, OPTIONS, undefined), input, terminal, 1000, Promise.resolve(), () => undefined);
    expect(terminal.text.startsWith('\x1b[?1049h\x1b[?25l\x1b[H')).toBe(true);
    expect(terminal.text.endsWith('\x1b[?25h\x1b[?1049l')).toBe(true);
    const frame = terminal.text.split('\x1b[H')[1]?.split('\x1b[J')[0] ?? '';
    const lines = frame.replaceAll('\x1b[K', '').split('\r\n');
    expect(lines).toHaveLength(terminal.rows);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(terminal.columns);
    expect(frame).toContain('from the guest');
    expect(frame).not.toContain('\x1b[2J');
  });

  test('shows all of its title, footer and keys on a narrow terminal, in more lines', async () => {
    const terminal = Object.assign(new FakeTerminal(), { columns: 40, rows: 30 });
    const view = new LiveView(machine(ledgerWithExits()), new GuestTail(1), OPTIONS, undefined);
    await showLive(view, input, terminal, 1000, Promise.resolve(), () => undefined);
    const lines = (terminal.text.split('\x1b[H')[1]?.split('\x1b[J')[0] ?? '').replaceAll('\x1b[K', '').split('\r\n');
    expect(lines).toHaveLength(30);
    const text = lines.filter((line) => line !== '').join(' ');
    for (const part of ['all vCPUs, by samples', 'World switches:60 (exits and entries 60', 'Lost events:0.', 'p percentiles', 'more'])
      expect(text).toContain(part);
  });

  test('leaves its screen when the run fails', async () => {
    const terminal = new FakeTerminal();
    const view = new LiveView(machine(ledgerWithExits()), new GuestTail(1), OPTIONS, undefined);
    await expect(showLive(view, input, terminal, 1000, Promise.reject(new Error('dead')), () => undefined)).rejects.toThrow('dead');
    expect(terminal.text.endsWith('\x1b[?1049l')).toBe(true);
  });

  test('changes order, rows, vCPU and columns by keys, and quits with q and Ctrl-C', () => {
    const ledger = ledgerWithExits();
    ledger.record(ledger.row('SLOW'), 1e9, 0, 0);
    const view = new LiveView(machine(ledger), new GuestTail(1), OPTIONS, undefined);
    const first = () => view.table().split('\n')[2];
    expect(first()).not.toMatch(/^SLOW/);
    expect(view.key('s')).toBe(true);
    expect(first()).toMatch(/^SLOW/);
    expect(view.key('p')).toBe(true);
    expect(view.table()).toContain('p99');
    expect([view.key('v'), view.key('v')]).toEqual([true, true]);
    expect(view.title()).toContain('vCPU 1');
    expect(view.table()).not.toContain('SLOW');
    expect([view.key('q'), view.key('\x03')]).toEqual([false, false]);
  });
});

test('a small screen keeps its last lines', () => {
  const terminal = new FakeTerminal();
  const screen = new Screen(terminal);
  screen.draw(
    Array.from({ length: 50 }, (_, i) => `top ${i}`),
    ['bottom'],
  );
  expect(terminal.text).toContain('bottom');
  expect(terminal.text).toContain('top 10');
  expect(terminal.text).not.toContain('top 11');
});
