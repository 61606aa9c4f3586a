import type { BenchKind } from '@pvm/guests';
import {
  counted,
  type DesignName,
  type Equation,
  fitPrices,
  PRIMITIVE_NAMES,
  PROFILE_SCHEMA,
  type Price,
  type Primitive,
  type ProfileDocument,
  relativeError,
} from '@pvm/pvm';
import { type Measured, machinesFor, measureProgram } from './measure.ts';

/** Loops that together determine every primitive. */
const LOOPS: readonly (readonly [kind: BenchKind, iterations: number])[] = [
  ['getpid', 1_000_000],
  ['hypercall', 200_000],
  ['exception', 100_000],
  ['msr-read', 100_000],
  ['cpuid', 200_000],
  ['cpuid-synthetic', 200_000],
  ['pio-in', 100_000],
  ['fault', 96],
];
const DESIGNS: readonly DesignName[] = ['bare', 'kvm-ept', 'pvm'];
/** Without a hypervisor there is nothing of an exit to learn from. */
const BARE_LOOPS: ReadonlySet<BenchKind> = new Set(['getpid', 'fault']);

/** What was measured of one operation, as an equation: what it consisted of, and its time on this host. */
function equation(design: DesignName, kind: BenchKind, m: Measured): Equation {
  const steps: Partial<Record<Primitive, number>> = {};
  const counters = { design, instructions: m.instructions, exits: m.byReason, worldSwitches: m.worldSwitches, tlb: m.tlb };
  for (const part of counted(counters)) {
    for (const [primitive, times] of Object.entries(part.steps) as [Primitive, number][])
      steps[primitive] = (steps[primitive] ?? 0) + (times * part.count) / m.operations;
  }
  return { name: `${kind} ${design}`, steps, ns: m.hostNs };
}

export interface Calibration {
  readonly profile: ProfileDocument;
  /** Round trips that it was fitted on, and what the profile makes of them. */
  readonly residuals: readonly { readonly name: string; readonly hostNs: number; readonly errorPercent: number }[];
}

/**
 * Fits a profile of this host from loops of exits and world switches in machines of our own.
 *
 * @param host how the profile's source calls this host
 * @param scale multiplies the operations of each loop
 */
export async function calibrate(name: string, host: string, scale: number, progress: (what: string) => void): Promise<Calibration> {
  const equations: Equation[] = [];
  for (const [kind, iterations] of LOOPS) {
    progress(kind);
    for (const design of DESIGNS) {
      if (design === 'bare' && !BARE_LOOPS.has(kind)) continue;
      equations.push(equation(design, kind, await measureProgram(design, kind, Math.max(1, Math.round(iterations * scale)), undefined, machinesFor(scale))));
    }
  }
  const prices = fitPrices(equations);
  const primitives: Partial<Record<Primitive, Price>> = {};
  for (const primitive of PRIMITIVE_NAMES) {
    const ns = prices.get(primitive);
    if (ns !== undefined) primitives[primitive] = { ns, basis: 'fitted' };
  }
  const profile: ProfileDocument = {
    schema: PROFILE_SCHEMA,
    name,
    source: `pvm calibrate: ${equations.length} loops measured on ${host}`,
    unit: 'ns',
    primitives,
  };
  const residuals = equations.map((e) => ({ name: e.name, hostNs: e.ns, errorPercent: 100 * relativeError(e, primitives) }));
  return { profile, residuals };
}
