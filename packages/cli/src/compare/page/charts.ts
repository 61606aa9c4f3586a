import { Chart, type ChartConfiguration, type ChartDataset, type ChartOptions } from 'chart.js';
import type { PageData, PageDesign } from './data.ts';
import { type Colours, GUEST_COLOUR, OTHER, property } from './theme.ts';

/** Reasons that a chart tells apart; rarer ones are `other`. */
const MAX_REASONS = 8;
/** Octaves of nanoseconds that the latency chart has, from and to. */
const FIRST_OCTAVE = 6;
const LAST_OCTAVE = 24;

type Values = Readonly<Record<string, number>>;

/** Names by their sum over all designs, largest first, the small ones together. */
export function ranked(all: readonly Values[], limit = MAX_REASONS): string[] {
  const sums = new Map<string, number>();
  for (const values of all) for (const [name, n] of Object.entries(values)) sums.set(name, (sums.get(name) ?? 0) + n);
  const names = [...sums]
    .filter(([, n]) => n > 0)
    .sort((a, b) => b[1] - a[1])
    .map(([name]) => name);
  return names.length > limit ? [...names.slice(0, limit - 1), OTHER] : names;
}

/** What `name` amounts to; `other` is all that is not in `names`. */
function amount(values: Values, name: string, names: readonly string[]): number {
  if (name !== OTHER || name in values) return values[name] ?? 0;
  return Object.entries(values).reduce((sum, [key, n]) => (names.includes(key) ? sum : sum + n), 0);
}

function total(values: Values): number {
  return Object.values(values).reduce((sum, n) => sum + n, 0);
}

function canvas(id: string): HTMLCanvasElement | undefined {
  const found = document.getElementById(id);
  return found instanceof HTMLCanvasElement ? found : undefined;
}

const compact = new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 });
const plain = new Intl.NumberFormat('en-US', { maximumFractionDigits: 2 });

function axis(text: string) {
  return {
    title: { display: text !== '', text, color: property('--dim') },
    grid: { color: property('--grid') },
    border: { display: false },
    ticks: { color: property('--dim'), maxRotation: 0 },
  };
}

function legend() {
  return {
    position: 'bottom' as const,
    labels: { color: property('--text'), boxWidth: 11, boxHeight: 11, useBorderRadius: true, borderRadius: 2, padding: 12 },
  };
}

function draw(id: string, config: ChartConfiguration<'bar'> | ChartConfiguration<'line'>): Chart | undefined {
  const at = canvas(id);
  return at === undefined ? undefined : new Chart(at, config as ChartConfiguration);
}

/** Horizontal bars, one a design, of parts laid end to end. */
function stacked(
  id: string,
  designs: readonly PageDesign[],
  parts: readonly { name: string; colour: string; values: readonly number[] }[],
  unit: string,
  share: boolean,
) {
  const sums = designs.map((_, i) => parts.reduce((sum, p) => sum + (p.values[i] ?? 0), 0));
  const datasets: ChartDataset<'bar'>[] = parts.map((p) => ({
    label: p.name,
    data: p.values.map((n, i) => (share ? (100 * n) / Math.max(Number.MIN_VALUE, sums[i] ?? 1) : n)),
    backgroundColor: p.colour,
    borderWidth: 0,
    maxBarThickness: 38,
  }));
  const options: ChartOptions<'bar'> = {
    indexAxis: 'y',
    maintainAspectRatio: false,
    animation: false,
    scales: {
      x: {
        ...axis(share ? 'percent' : unit),
        stacked: true,
        ...(share ? { max: 100 } : {}),
        ticks: { color: property('--dim'), callback: (n) => compact.format(Number(n)) },
      },
      // A design without its name would be a bar of nobody's.
      y: { ...axis(''), stacked: true, grid: { display: false }, ticks: { color: property('--text'), autoSkip: false } },
    },
    plugins: {
      legend: legend(),
      tooltip: {
        mode: 'index',
        itemSort: (a, b) => Number(b.raw) - Number(a.raw),
        filter: (item) => Number(item.raw) > 0,
        callbacks: { label: (item) => ` ${item.dataset.label ?? ''}: ${plain.format(Number(item.raw))}${share ? ' %' : unit === 'ms' ? ' ms' : ''}` },
      },
    },
  };
  const labels = designs.map((d, i) => [d.name, unit === 'ms' ? `${plain.format(sums[i] ?? 0)} ms` : plain.format(sums[i] ?? 0)]);
  return draw(id, { type: 'bar', data: { labels: labels as unknown as string[], datasets }, options });
}

export function exitsChart({ designs }: PageData, colours: Colours, share: boolean): Chart | undefined {
  const names = ranked(designs.map((d) => d.exits));
  const parts = names.map((name) => ({ name, colour: colours.colour(name), values: designs.map((d) => amount(d.exits, name, names)) }));
  return stacked('exits', designs, parts, 'exits', share);
}

export function timeChart({ designs }: PageData, colours: Colours): Chart | undefined {
  const names = ranked(designs.map((d) => d.exitMs));
  const exits = names.map((name) => ({ name, colour: colours.colour(name), values: designs.map((d) => amount(d.exitMs, name, names)) }));
  return stacked('time', designs, [{ name: 'in the guest', colour: GUEST_COLOUR, values: designs.map((d) => d.guestMs) }, ...exits], 'ms', false);
}

export function switchesChart({ designs }: PageData, colours: Colours): Chart | undefined {
  const names = ranked(designs.map((d) => d.switches));
  const parts = names.map((name) => ({ name, colour: colours.colour(name), values: designs.map((d) => d.switches[name] ?? 0) }));
  return stacked('switches', designs, parts, 'world switches', false);
}

export function modelledChart({ designs }: PageData, colours: Colours): Chart | undefined {
  const names = ranked(designs.map((d) => d.modelledMs));
  const parts = names.map((name) => ({ name, colour: colours.colour(name), values: designs.map((d) => amount(d.modelledMs, name, names)) }));
  return stacked('modelled', designs, parts, 'ms', false);
}

/** `2^i` nanoseconds in the largest unit that fits. */
function octaveName(i: number): string {
  const ns = 2 ** i;
  if (ns < 1e3) return `${ns} ns`;
  return ns < 1e6 ? `${plain.format(Math.round(ns / 100) / 10)} us` : `${plain.format(Math.round(ns / 1e5) / 10)} ms`;
}

/** @param reason empty: exits of all reasons */
export function latencyChart({ designs }: PageData, colours: Colours, reason: string): Chart | undefined {
  const labels = Array.from({ length: LAST_OCTAVE - FIRST_OCTAVE + 1 }, (_, i) => octaveName(FIRST_OCTAVE + i));
  const datasets: ChartDataset<'line'>[] = designs.map((d) => {
    const lists = Object.entries(d.latencies).filter(([name]) => reason === '' || name === reason);
    const counts = labels.map(() => 0);
    for (const [, list] of lists) {
      list.forEach((n, octave) => {
        const at = Math.min(LAST_OCTAVE, Math.max(FIRST_OCTAVE, octave)) - FIRST_OCTAVE;
        counts[at] = (counts[at] ?? 0) + n;
      });
    }
    const sum = counts.reduce((a, b) => a + b, 0);
    const colour = colours.colour(d.name);
    const data = counts.map((n) => (sum === 0 ? 0 : (100 * n) / sum));
    return { label: d.name, data, borderColor: colour, backgroundColor: `${colour}30`, fill: true, stepped: 'middle', pointRadius: 0, borderWidth: 2 };
  });
  const options: ChartOptions<'line'> = {
    maintainAspectRatio: false,
    animation: false,
    interaction: { mode: 'index', intersect: false },
    scales: { x: axis('host time of an exit, at least'), y: { ...axis('% of exits'), min: 0 } },
    plugins: { legend: legend(), tooltip: { callbacks: { label: (item) => ` ${item.dataset.label ?? ''}: ${plain.format(Number(item.raw))} %` } } },
  };
  return draw('latency', { type: 'line', data: { labels, datasets }, options });
}

/** What the timelines' colours mean, once for all of them. */
function timelineLegend(names: readonly string[], colours: Colours): void {
  const items = names.map((name) => {
    const item = document.createElement('li');
    const mark = document.createElement('span');
    mark.style.background = colours.colour(name);
    item.append(mark, name);
    return item;
  });
  document.getElementById('timeline-legend')?.replaceChildren(...items);
}

/** One small chart a design, all on the same scale of instructions. */
export function timelineCharts({ designs }: PageData, colours: Colours): (Chart | undefined)[] {
  const longest = Math.max(...designs.map((d) => d.instructions));
  const names = ranked(
    designs.map((d) => Object.fromEntries(Object.entries(d.timeline.counts).map(([name, list]) => [name, list.reduce((a, b) => a + b, 0)]))),
  );
  timelineLegend(names, colours);
  return designs.map((d, index) => {
    const { widthInstructions: width, counts } = d.timeline;
    const length = Math.max(1, ...Object.values(counts).map((list) => list.length));
    const at = (i: number) => Object.fromEntries(Object.entries(counts).map(([name, list]) => [name, list[i] ?? 0]));
    const bins = Array.from({ length }, (_, i) => at(i));
    const datasets: ChartDataset<'line', { x: number; y: number }[]>[] = names
      .filter((name) => bins.some((bin) => amount(bin, name, names) > 0))
      .map((name) => ({
        label: name,
        data: bins.map((bin, i) => ({ x: ((i + 0.5) * width) / 1e6, y: amount(bin, name, names) })),
        borderWidth: 0,
        backgroundColor: colours.colour(name),
        fill: true,
        pointRadius: 0,
      }));
    const isLast = index === designs.length - 1;
    const options: ChartOptions<'line'> = {
      maintainAspectRatio: false,
      animation: false,
      interaction: { mode: 'index', intersect: false },
      scales: {
        x: {
          ...axis(isLast ? 'million guest instructions' : ''),
          type: 'linear',
          min: 0,
          max: longest / 1e6,
          ticks: { color: property('--dim'), maxRotation: 0, includeBounds: false },
        },
        // One width of the labels, so that the charts lie exactly one below the other.
        y: {
          ...axis(''),
          afterFit: (scale) => {
            scale.width = 44;
          },
          stacked: true,
          min: 0,
          ticks: { color: property('--dim'), maxTicksLimit: 4, callback: (n) => compact.format(Number(n)) },
        },
      },
      plugins: {
        legend: { display: false },
        title: {
          display: true,
          text: `${d.name} (intervals of ${compact.format(width)} instructions)`,
          color: property('--text'),
          align: 'start',
          font: { weight: 600 },
        },
        tooltip: {
          filter: (item) => Number(item.parsed.y) > 0,
          callbacks: { title: (items) => `${plain.format(Number(items[0]?.parsed.x ?? 0))} million instructions` },
        },
      },
    };
    return draw(`timeline-${index}`, { type: 'line', data: { datasets: datasets as ChartDataset<'line'>[] }, options });
  });
}

/** One line of text for who cannot see the charts. */
export function describe(data: PageData): string {
  return data.designs.map((d) => `${d.name}: ${plain.format(total(d.exits))} exits, ${plain.format(d.guestMs + total(d.exitMs))} ms`).join('; ');
}
