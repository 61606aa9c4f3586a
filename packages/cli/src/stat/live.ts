import { formatLedger, type TableOptions, type Vm, wrapLine } from '@pvm/pvm';
import type { GuestTail } from './guest-tail.ts';
import { Screen, type Terminal } from './screen.ts';

const SORTS = ['samples', 'time'] as const;
const LEVELS = ['sub', 'detail', 'reason'] as const;
/** Lines of the guest's output at the bottom of the screen. */
const TAIL_LINES = 4;
const HELP = 'q quit   s samples/time   b sub-reason/detail/reason   v vCPU   p percentiles';

/** What the live view shows, and how it changes with keys. */
export class LiveView {
  private readonly vm: Vm;
  private readonly tail: GuestTail;
  private readonly started = performance.now();
  private options: Required<Pick<TableOptions, 'sort' | 'by' | 'percentiles'>>;
  private vcpu: number | undefined;
  private last = { exits: 0, at: performance.now() };

  constructor(vm: Vm, tail: GuestTail, options: Required<Pick<TableOptions, 'sort' | 'by' | 'percentiles'>>, vcpu: number | undefined) {
    this.vm = vm;
    this.tail = tail;
    this.options = options;
    this.vcpu = vcpu;
  }

  /** Does what a key means. @returns false when it means quit */
  key(key: string): boolean {
    const { sort, by, percentiles } = this.options;
    if (key === 'q' || key === 'Q' || key === '\x03') return false;
    if (key === 's') this.options = { ...this.options, sort: next(SORTS, sort) };
    else if (key === 'b') this.options = { ...this.options, by: next(LEVELS, by) };
    else if (key === 'p') this.options = { ...this.options, percentiles: !percentiles };
    else if (key === 'v') this.vcpu = next([undefined, ...this.vm.ledger.vcpus()], this.vcpu);
    return true;
  }

  /** One line about the run as a whole, since the last call. */
  title(): string {
    const { vm } = this;
    const now = performance.now();
    const exits = vm.ledger.totalExits;
    const rate = ((exits - this.last.exits) * 1000) / Math.max(1, now - this.last.at);
    this.last = { exits, at: now };
    const stats = vm.stats();
    const who = this.vcpu === undefined ? 'all vCPUs' : `vCPU ${this.vcpu}`;
    return `design ${vm.designName}, ${((now - this.started) / 1000).toFixed(1)} s, ${stats.instructions.toLocaleString('en-US')} instructions, ${exits.toLocaleString('en-US')} exits (${Math.round(rate).toLocaleString('en-US')}/s), ${who}, by ${this.options.sort}`;
  }

  table(): string {
    return formatLedger(this.vm.ledger, { ...this.options, ...(this.vcpu === undefined ? {} : { vcpu: this.vcpu }) });
  }

  /** Draws everything. */
  paint(screen: Screen, rows: number, width: number): void {
    const tail = this.tail.last(TAIL_LINES);
    const bottom = [...(tail.length > 0 ? ['--- guest output', ...tail] : []), ...wrapLine(HELP, width)];
    const title = [...wrapLine(this.title(), width), ''];
    const table = (limit: number) =>
      formatLedger(this.vm.ledger, { ...this.options, ...(this.vcpu === undefined ? {} : { vcpu: this.vcpu }), rows: limit, width }).split('\n');
    const aroundRows = table(1).length - 1;
    screen.draw([...title, ...table(Math.max(1, rows - bottom.length - title.length - aroundRows))], bottom);
  }
}

function next<T>(list: readonly T[], current: T): T {
  return list[(list.indexOf(current) + 1) % list.length] ?? current;
}

/** Keys and a screen for a view until `done` settles; the terminal is then as it was, whatever happens. */
export async function showLive(
  view: LiveView,
  input: NodeJS.ReadStream,
  output: Terminal,
  intervalMs: number,
  done: Promise<unknown>,
  quit: () => void,
): Promise<void> {
  const screen = new Screen(output);
  const leave = () => screen.leave();
  const paint = () => view.paint(screen, output.rows ?? 24, output.columns ?? 80);
  const onKey = (chunk: Buffer) => {
    for (const key of chunk.toString('latin1')) if (!view.key(key)) quit();
    paint();
  };
  process.once('exit', leave);
  if (input.isTTY) input.setRawMode(true).resume().on('data', onKey);
  screen.enter();
  paint();
  const timer = setInterval(paint, intervalMs);
  try {
    await done;
  } finally {
    clearInterval(timer);
    if (input.isTTY) input.off('data', onKey).setRawMode(false).pause();
    screen.leave();
    process.off('exit', leave);
  }
}

/** Without a terminal: the table as text, again and again. */
export async function printLive(view: LiveView, output: Terminal, intervalMs: number, done: Promise<unknown>): Promise<void> {
  const timer = setInterval(() => output.write(`${view.title()}\n\n${view.table()}\n\n`), intervalMs);
  try {
    await done;
  } finally {
    clearInterval(timer);
  }
}
