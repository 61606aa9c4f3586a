/** Style sheet of the report page. Colours follow the reader's light or dark preference. */
export const STYLE = `
:root { --ground: #fbfbfa; --card: #fff; --text: #1c2024; --dim: #60646c; --line: #e2e3e6; --grid: #ececee; --good: #18794e; --bad: #c62a2f; --badground: #fff0ee; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #111214; --card: #191b1f; --text: #edeef0; --dim: #a3a8b0; --line: #2e3137; --grid: #26292e; --good: #5bd197; --bad: #ff9592; --badground: #391714; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
h1 { font-size: 28px; font-weight: 650; letter-spacing: -0.02em; margin: 0 0 4px; }
h2 { font-size: 16px; font-weight: 600; margin: 0; }
code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.command { margin: 0 0 12px; color: var(--dim); }
.same { color: var(--good); margin: 0 0 16px; }
.differ { background: var(--badground); color: var(--bad); border-radius: 8px; padding: 10px 16px; margin: 0 0 16px; }
.differ p, .differ ul { margin: 0; }
.designs { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 8px 24px; margin: 0 0 24px; }
.designs dt { font-weight: 600; }
.designs dd { margin: 0; color: var(--dim); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 16px; }
.chart, section.table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; margin: 0; min-width: 0; }
.chart figcaption p { margin: 0 0 4px; color: var(--dim); font-size: 13px; }
.chart label { font-size: 13px; color: var(--dim); }
.chart select { font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 1px 4px; max-width: 220px; }
.box { position: relative; height: 260px; margin-top: 8px; }
.timeline, .modelled { grid-column: 1 / -1; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 4px 0 0; padding: 0; font-size: 13px; }
.legend span { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.timeline .box { height: 140px; }
section.table { margin-top: 16px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-top: 8px; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 4px 12px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
thead th, thead td { border-top: 0; color: var(--dim); font-weight: 600; }
tbody th { text-align: left; font-weight: 400; padding-left: 0; }
tbody tr.part th { padding-left: 18px; color: var(--dim); }
tbody tr.modelled th, tbody tr.modelled td { font-style: italic; }
tbody tr:hover { background: var(--grid); }
.notes { color: var(--dim); font-size: 13px; margin: 20px 0 40px; }
@media print { body { background: #fff; } .chart, section.table { break-inside: avoid; } }
`;
