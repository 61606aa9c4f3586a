// Bundles the script of the report page of `pvm compare`, with the chart library, into one file that is inlined into each report.
import { fileURLToPath } from 'node:url';
import { build } from 'rolldown';

/** The library's licence asks for it. */
const NOTICE = '/*! Chart.js 4.6.1 (c) Chart.js Contributors, @kurkle/color (c) Jukka Kurkela; MIT licence, https://www.chartjs.org */';

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));

await build({
  input: path('src/compare/page/main.ts'),
  platform: 'browser',
  output: { file: path('build/compare-page.js'), format: 'iife', minify: true, postBanner: NOTICE },
});
