import { type CostProfile, type DesignName, designInfo, type ModelledCost, modelRun, type RunReport } from '@pvm/pvm';
import type { DesignRun } from './run-design.ts';

/** First key of the document: which form it has. */
export const COMPARE_SCHEMA = 'pvm-compare-1';

/** One design of a comparison. `report` is counted and measured here; `modelled` is predicted, of another machine. */
export interface ComparedDesign {
  readonly design: string;
  readonly title: string;
  /** Console output without the kernel's timestamps. */
  readonly console: { readonly bytes: number; readonly sha256: string };
  readonly report: RunReport;
  /** Of the whole run, and of each interval; absent without a cost profile. */
  readonly modelled?: ModelledCost;
  readonly modelledIntervals?: readonly ModelledCost[];
}

/** What `pvm compare --json` prints. */
export interface Comparison {
  readonly schema: typeof COMPARE_SCHEMA;
  /** Arguments of `pvm run`. */
  readonly command: readonly string[];
  /** Operations that an interval stands for (`--ops`); absent: what the guest said when it marked it. */
  readonly operations?: number;
  readonly profile?: { readonly name: string; readonly source: string };
  readonly designs: readonly ComparedDesign[];
  /** Where the designs' results differ, though they must not: one line each. */
  readonly differences: readonly string[];
}

/** Puts the runs side by side. @throws PvmError `bad-profile` when the profile does not know a design */
export function compare(
  command: readonly string[],
  runs: ReadonlyMap<DesignName, DesignRun>,
  operations: number | undefined,
  profile: CostProfile | undefined,
): Comparison {
  const designs = [...runs].map(([design, { report, console }]): ComparedDesign => {
    const { bytes, sha256 } = console;
    const base = { design, title: designInfo(design).title, console: { bytes, sha256 }, report };
    if (profile === undefined) return base;
    const { run, intervals } = modelRun(profile, report);
    return { ...base, modelled: run, modelledIntervals: intervals };
  });
  return {
    schema: COMPARE_SCHEMA,
    command,
    ...(operations === undefined ? {} : { operations }),
    ...(profile === undefined ? {} : { profile: { name: profile.name, source: profile.source } }),
    designs,
    differences: differences(runs),
  };
}

/** Every design must give the guest's answers: each is held against the first. */
function differences(runs: ReadonlyMap<string, DesignRun>): string[] {
  const [first, ...others] = runs;
  if (first === undefined) return [];
  const [name, expected] = first;
  return others.flatMap(([other, run]) => {
    const found: string[] = [];
    const [a, b] = [expected.report, run.report];
    if (a.stopReason !== b.stopReason) found.push(`${name} stopped with ${a.stopReason}, ${other} with ${b.stopReason}`);
    if (a.exitCode !== b.exitCode) found.push(`the exit code is ${a.exitCode} under ${name}, ${b.exitCode} under ${other}`);
    if (a.intervals.length !== b.intervals.length) found.push(`${a.intervals.length} intervals under ${name}, ${b.intervals.length} under ${other}`);
    if (expected.console.sha256 !== run.console.sha256) found.push(consoleDifference(name, expected.console.text, other, run.console.text));
    return found;
  });
}

function consoleDifference(a: string, textA: string, b: string, textB: string): string {
  const [linesA, linesB] = [textA.split('\n'), textB.split('\n')];
  const at = linesA.findIndex((line, i) => line !== linesB[i]);
  const line = at < 0 ? linesA.length : at;
  const show = (lines: readonly string[]) => (lines[line] === undefined ? 'nothing' : JSON.stringify(lines[line].slice(0, 80)));
  return `console output differs from line ${line + 1} on: ${a} ${show(linesA)}, ${b} ${show(linesB)}`;
}
