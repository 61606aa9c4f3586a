/** A VM exit of a trace. */
export interface TraceEvent {
  readonly row: number;
  readonly vcpu: number;
  /** When the exit began, ns of host time since the ledger was made. */
  readonly startNs: number;
  /** Host time until the guest ran again, ns. */
  readonly durationNs: number;
  readonly rip: bigint;
  /** Guest instructions retired on that vCPU. */
  readonly instructions: number;
}

/** Keeps the last exits of a run one by one: memory for `limit` of them, 36 bytes each; older ones are lost, and counted. */
export class TraceRing {
  private readonly limit: number;
  private readonly row: Uint16Array;
  private readonly vcpu: Uint8Array;
  private readonly rip: Uint32Array;
  private readonly times: Float64Array;
  private seen = 0;

  constructor(limit: number) {
    this.limit = limit;
    this.row = new Uint16Array(limit);
    this.vcpu = new Uint8Array(limit);
    this.rip = new Uint32Array(2 * limit);
    this.times = new Float64Array(3 * limit);
  }

  add(row: number, vcpu: number, startNs: number, durationNs: number, ripLow: number, ripHigh: number, instructions: number): void {
    const at = this.seen++ % this.limit;
    this.row[at] = row;
    this.vcpu[at] = vcpu;
    this.rip[2 * at] = ripLow;
    this.rip[2 * at + 1] = ripHigh;
    this.times[3 * at] = startNs;
    this.times[3 * at + 1] = durationNs;
    this.times[3 * at + 2] = instructions;
  }

  /** Exits that are not in the ring any more. */
  get lost(): number {
    return Math.max(0, this.seen - this.limit);
  }

  /** The exits in it, oldest first. */
  *events(): Generator<TraceEvent, void> {
    const n = Math.min(this.seen, this.limit);
    for (let i = this.seen - n; i < this.seen; i++) {
      const at = i % this.limit;
      yield {
        row: this.row[at] ?? 0,
        vcpu: this.vcpu[at] ?? 0,
        startNs: this.times[3 * at] ?? 0,
        durationNs: this.times[3 * at + 1] ?? 0,
        rip: (BigInt(this.rip[2 * at + 1] ?? 0) << 32n) | BigInt(this.rip[2 * at] ?? 0),
        instructions: this.times[3 * at + 2] ?? 0,
      };
    }
  }

  /** Number of exits in it. */
  get length(): number {
    return Math.min(this.seen, this.limit);
  }
}
