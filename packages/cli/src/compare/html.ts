import { readFile } from 'node:fs/promises';
import { exitClass, octaves, PvmError } from '@pvm/pvm';
import type { ComparedDesign, Comparison } from './comparison.ts';
import { figure, label, type Metric, type Section, sections } from './metrics.ts';
import type { PageData, PageDesign } from './page/data.ts';
import { STYLE } from './style.ts';
import { unpriced } from './text.ts';

const SCRIPT = new URL('../../build/compare-page.js', import.meta.url);

/**
 * A comparison as one HTML page: tables with every figure, and charts drawn by a script that is inside. It loads nothing.
 *
 * @throws PvmError `not-built`
 */
export async function comparisonPage(c: Comparison): Promise<string> {
  const script = await readFile(SCRIPT, 'utf8').catch((cause: unknown) => {
    throw new PvmError('not-built', 'the script of the report page was not built; run `npm run build` in the workspace', { cause });
  });
  const title = `pvm compare: ${c.designs.map((d) => d.design).join(', ')}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${html(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>One guest, ${c.designs.length === 1 ? 'one design' : `${c.designs.length} designs`}</h1>
<p class="command"><code>pvm run ${html(c.command.join(' '))}</code></p>
${verdict(c)}
<dl class="designs">${c.designs.map((d) => `<div><dt>${html(d.design)}</dt><dd>${html(d.title)}</dd></div>`).join('')}</dl>
</header>
<main>
${charts(c)}
${sections(c)
  .map((s, i) => table(c, s, i))
  .join('\n')}
<section class="notes">
<h2>How to read this</h2>
<p>Counts are exact. Host times were measured with this machine's clock around each exit; after the first 2,048 exits of a run fewer and fewer are timed, from one of 16 to one of 1,024; one of those that took 16 times what is usual was held up by the host and stands for itself alone.
${c.profile === undefined ? 'No cost profile was given, so nothing here is modelled.' : `Modelled times are counts times prices of the cost profile “${html(c.profile.name)}” (${html(c.profile.source)}); they have rows of their own. ${html(unpriced(c).join(' '))}`}
The guest's clock counted instructions, so every run is repeatable.</p>
</section>
</main>
<script type="application/json" id="comparison">${json(pageData(c))}</script>
<script>${script.replaceAll('</script', '<\\/script')}</script>
</body>
</html>
`;
}

function verdict(c: Comparison): string {
  if (c.differences.length === 0) return '<p class="same">Exit codes and console output are the same under all designs.</p>';
  return `<div class="differ" role="alert"><p>The results differ:</p><ul>${c.differences.map((d) => `<li>${html(d)}</li>`).join('')}</ul></div>`;
}

function figureOf(id: string, title: string, hint: string, canvases: readonly string[], controls = ''): string {
  const boxes = canvases.map((name) => `<div class="box"><canvas id="${id}${name}" role="img" aria-label="${html(title)}"></canvas></div>`);
  return `<figure class="chart ${id}" aria-labelledby="${id}-title"><figcaption><h2 id="${id}-title">${html(title)}</h2><p>${html(hint)}</p>${controls}</figcaption>${boxes.join('')}</figure>`;
}

function charts(c: Comparison): string {
  const reasons = '<label>Exits: <select id="latency-reason"><option value="">all</option></select></label>';
  const share = '<label><input type="checkbox" id="exits-share"> as shares of each design</label>';
  return `<div class="charts">
${figureOf('exits', 'Exits by reason', 'Number of VM exits of each design.', [''], share)}
${figureOf('time', 'Host time', 'Where the time of the run went on this host, in milliseconds.', [''])}
${figureOf('switches', 'World switches by kind', 'Crossings between user, kernel and hypervisor; an exit and the entry after it are two.', [''])}
${figureOf('latency', 'How long an exit takes', 'Share of exits by host time, in octaves of nanoseconds.', [''], reasons)}
${c.profile === undefined ? '' : figureOf('modelled', 'Modelled time', `Counts times the prices of “${c.profile.name}”, in milliseconds.`, [''])}
${figureOf(
  'timeline',
  'Exits over the run',
  'Exits per interval over retired guest instructions.',
  c.designs.map((_, i) => `-${i}`),
  '<ul class="legend" id="timeline-legend"></ul>',
)}
</div>`;
}

function table(c: Comparison, s: Section, index: number): string {
  const id = `table-${index}`;
  const head = c.designs.map((d) => `<th scope="col">${html(d.design)}</th>`).join('');
  const rows = s.metrics.map(
    (m) => `<tr class="${m.kind}${m.name.startsWith(' ') ? ' part' : ''}"><th scope="row">${html(label(m).trim())}</th>${cells(m)}</tr>`,
  );
  return `<section class="table"><h2 id="${id}">${html(s.title)}</h2><div class="scroll"><table aria-labelledby="${id}" data-section="${html(s.title)}"><thead><tr><td></td>${head}</tr></thead><tbody>${rows.join('\n')}</tbody></table></div></section>`;
}

function cells(m: Metric): string {
  return m.values.map((n) => `<td data-value="${n ?? ''}">${figure(n)}</td>`).join('');
}

function pageData(c: Comparison): PageData {
  return { designs: c.designs.map(pageDesign), hasModel: c.profile !== undefined };
}

function pageDesign(d: ComparedDesign): PageDesign {
  const { ledger } = d.report;
  const latencies: Record<string, number[]> = {};
  const nsOf: Record<string, number> = {};
  const countOf: Record<string, number> = {};
  for (const row of ledger.rows) {
    const name = exitClass(row.reason, row.sub);
    countOf[name] = (countOf[name] ?? 0) + row.samples;
    nsOf[name] = (nsOf[name] ?? 0) + row.totalNs;
    const sum = latencies[name] ?? [];
    octaves(row.bucketsNs).forEach((n, i) => {
      sum[i] = (sum[i] ?? 0) + n;
    });
    latencies[name] = Array.from(sum, (n) => n ?? 0);
  }
  return {
    name: d.design,
    exits: countOf,
    switches: ledger.worldSwitchesByKind,
    exitMs: Object.fromEntries(Object.entries(nsOf).map(([reason, ns]) => [reason, ns / 1e6])),
    guestMs: d.report.guestMs,
    latencies,
    timeline: ledger.timeline,
    instructions: d.report.instructions,
    modelledMs: Object.fromEntries((d.modelled?.parts ?? []).map((p) => [p.name, (p.count * p.eachNs) / 1e6])),
  };
}

function html(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

/** JSON that cannot end the script element it stands in. */
function json(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c');
}
