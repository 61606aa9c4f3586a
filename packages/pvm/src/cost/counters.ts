import type { IntervalJson, RunReport } from '../run-report.ts';
import type { CostCounters } from './cost-profile.ts';

/** What a profile prices of a whole run. */
export function runCounters(report: Pick<RunReport, 'design' | 'instructions' | 'worldSwitches' | 'tlb' | 'ledger'>): CostCounters {
  const { design, instructions, worldSwitches, tlb } = report;
  return { design, instructions, worldSwitches, tlb, exits: report.ledger.exits.map(({ reason, sub, samples }) => ({ reason, sub, count: samples })) };
}

/** What a profile prices of an interval that the guest marked. */
export function intervalCounters(design: string, i: Pick<IntervalJson, 'instructions' | 'worldSwitches' | 'tlb' | 'byReason'>): CostCounters {
  const { instructions, worldSwitches, tlb, byReason } = i;
  return { design, instructions, worldSwitches, tlb, exits: byReason };
}
