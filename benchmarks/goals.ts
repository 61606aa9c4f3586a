// Measures the goals for speed and memory of the whole path and prints goal and result side by side.
//   node -C source benchmarks/goals.ts [--json file]
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { GOALS } from './src/goals.ts';
import { describeMachine } from './src/machine.ts';
import { formatTable } from './src/table.ts';

const { values } = parseArgs({ options: { json: { type: 'string' } } });
const results = GOALS.map(({ measure, ...goal }) => {
  const measured = measure();
  const reached = goal.direction === 'at most' ? measured <= goal.limit : measured >= goal.limit;
  console.error(`${goal.what}: ${measured.toPrecision(3)} ${goal.unit}`);
  return { ...goal, measured, reached };
});
const rows = results.map((r) => [r.what, `${r.direction} ${r.limit} ${r.unit}`, `${r.measured.toPrecision(3)} ${r.unit}`, r.reached ? 'yes' : 'no']);
console.log(formatTable(['what', 'goal', 'measured', 'reached'], rows));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine: describeMachine(), results }, undefined, 1)}\n`);
