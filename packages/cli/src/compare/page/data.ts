/** What the page's script draws: the figures of the tables, by reason. */
export interface PageDesign {
  readonly name: string;
  /** Counts by reason, page faults also by kind; the same names everywhere below. */
  readonly exits: Readonly<Record<string, number>>;
  readonly switches: Readonly<Record<string, number>>;
  readonly exitMs: Readonly<Record<string, number>>;
  readonly guestMs: number;
  /** By reason, element `i`: exits of [2^i, 2^(i+1)) ns. */
  readonly latencies: Readonly<Record<string, readonly number[]>>;
  readonly timeline: { readonly widthInstructions: number; readonly counts: Readonly<Record<string, readonly number[]>> };
  readonly instructions: number;
  readonly modelledMs: Readonly<Record<string, number>>;
}

export interface PageData {
  readonly designs: readonly PageDesign[];
  readonly hasModel: boolean;
}
