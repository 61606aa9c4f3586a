// Writes the generated part of README.md: what the decoder's tables have, what is compiled, what vectors show.
//   npm run coverage-table
import { readFileSync, writeFileSync } from 'node:fs';
import { withCoverage } from '../tests/coverage-table.ts';

const readme = new URL('../README.md', import.meta.url);
writeFileSync(readme, withCoverage(readFileSync(readme, 'utf8')));
