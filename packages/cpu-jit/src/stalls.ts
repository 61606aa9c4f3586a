import { PerformanceObserver, performance } from 'node:perf_hooks';

/** What may stop a vCPU's thread: none of it is the guest's work, or the hypervisor's. */
export const STALL_CAUSES = ['decode', 'grow', 'merge', 'receive', 'instantiate', 'link', 'reuse', 'flush', 'collect'] as const;
export type StallCause = (typeof STALL_CAUSES)[number];
/** Those that compiling brings along. */
export const COMPILER_STALLS: readonly StallCause[] = ['grow', 'merge', 'receive', 'instantiate', 'link', 'reuse'];
/** A stall that is longer, in milliseconds, is one that somebody might notice. */
export const LONG_STALL_MS = 2;

/** Time by the clock, so that it includes waiting for a processor. */
export interface StallTime {
  /** Milliseconds in all, and at most at a time. */
  readonly ms: number;
  readonly longestMs: number;
  /** How many were longer than `LONG_STALL_MS`. */
  readonly long: number;
}
/** By cause; `collect`, V8's collection of garbage, is a part of what it interrupts, and zero unless it is observed. */
export type Stalls = Readonly<Record<StallCause, StallTime>>;

/** Measures what stops the vCPU's thread. Nested measurements count once, for the innermost. */
export class StallClock {
  private readonly times = Object.fromEntries(STALL_CAUSES.map((cause) => [cause, { ms: 0, longestMs: 0, long: 0 }])) as Record<
    StallCause,
    { -readonly [K in keyof StallTime]: number }
  >;
  /** Milliseconds of what was measured inside the current measurement. */
  private inner = 0;
  private observer: PerformanceObserver | undefined;

  measure<T>(cause: StallCause, work: () => T): T {
    const before = this.inner;
    this.inner = 0;
    const start = performance.now();
    try {
      return work();
    } finally {
      const ms = performance.now() - start;
      this.add(cause, ms - this.inner);
      this.inner = before + ms;
    }
  }

  private add(cause: StallCause, ms: number): void {
    const time = this.times[cause];
    time.ms += ms;
    if (ms > time.longestMs) time.longestMs = ms;
    if (ms > LONG_STALL_MS) time.long++;
  }

  /** Counts V8's collections on this thread, too, until `dispose`. */
  observeCollections(): void {
    this.observer = new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) this.add('collect', duration);
    });
    this.observer.observe({ entryTypes: ['gc'] });
  }

  counts(): Stalls {
    return structuredClone(this.times);
  }

  dispose(): void {
    this.observer?.disconnect();
  }
}
