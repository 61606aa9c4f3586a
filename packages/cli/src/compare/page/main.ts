import {
  BarController,
  BarElement,
  CategoryScale,
  Chart,
  Filler,
  Legend,
  LinearScale,
  LineController,
  LineElement,
  PointElement,
  Title,
  Tooltip,
} from 'chart.js';
import { describe, exitsChart, latencyChart, modelledChart, ranked, switchesChart, timeChart, timelineCharts } from './charts.ts';
import type { PageData } from './data.ts';
import { Colours } from './theme.ts';

Chart.register(BarController, BarElement, CategoryScale, Filler, Legend, LinearScale, LineController, LineElement, PointElement, Title, Tooltip);
Chart.defaults.font.family = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

const data = JSON.parse(document.getElementById('comparison')?.textContent ?? '{"designs":[]}') as PageData;
const { designs } = data;
const reasons = ranked(
  designs.map((d) => d.exits),
  Number.POSITIVE_INFINITY,
);
// What charts show comes first: its colours are used once.
const byReason = new Colours([...new Set([...ranked(designs.map((d) => d.exits)), ...ranked(designs.map((d) => d.exitMs)), ...reasons])]);
const byDesign = new Colours(designs.map((d) => d.name));
const byPart = new Colours(
  ranked(
    designs.map((d) => d.modelledMs),
    Number.POSITIVE_INFINITY,
  ),
);
const byKind = new Colours(['exit', 'entry', 'direct syscall', 'direct return', 'direct fault']);
const share = document.getElementById('exits-share');
const choice = document.getElementById('latency-reason');
let drawn: (Chart | undefined)[] = [];

/** Everything anew: the choices above a chart, or light and dark, have changed. */
function drawAll(): void {
  for (const chart of drawn) chart?.destroy();
  const isShare = share instanceof HTMLInputElement && share.checked;
  const reason = choice instanceof HTMLSelectElement ? choice.value : '';
  drawn = [
    exitsChart(data, byReason, isShare),
    timeChart(data, byReason),
    switchesChart(data, byKind),
    ...(data.hasModel ? [modelledChart(data, byPart)] : []),
    latencyChart(data, byDesign, reason),
    ...timelineCharts(data, byReason),
  ];
}

for (const reason of reasons) choice?.append(new Option(reason, reason));
for (const figure of document.querySelectorAll('canvas'))
  figure.setAttribute('aria-label', `${figure.getAttribute('aria-label') ?? ''}. ${describe(data)}. The tables below have all figures.`);
share?.addEventListener('change', drawAll);
choice?.addEventListener('change', drawAll);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
drawAll();
document.documentElement.dataset['drawn'] = String(drawn.filter((chart) => chart !== undefined).length);
