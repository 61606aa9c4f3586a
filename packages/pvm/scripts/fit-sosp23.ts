// Fits the profile that is shipped, profiles/sosp23.json, from the figures of table 1 in profiles/sosp23-figures.json, and prints how well it fits.
//   node -C source packages/pvm/scripts/fit-sosp23.ts
import { writeFileSync } from 'node:fs';
import { relativeError } from '../src/cost/fit.ts';
import { publishedProfile, table1Equations } from '../src/cost/published.ts';
import { publishedFigures } from '../src/cost/shipped.ts';

const figures = await publishedFigures();
const profile = publishedProfile(figures);
writeFileSync(new URL('../profiles/sosp23.json', import.meta.url), `${JSON.stringify(profile, undefined, 2)}\n`);
for (const [primitive, { ns, basis }] of Object.entries(profile.primitives)) console.log(`${primitive.padEnd(16)} ${ns.toFixed(1).padStart(8)} ns  ${basis}`);
for (const equation of table1Equations(figures))
  console.log(
    `${equation.name.padEnd(34)} ${equation.ns.toFixed(0).padStart(6)} ns  error ${(100 * relativeError(equation, profile.primitives)).toFixed(1).padStart(6)} %`,
  );
