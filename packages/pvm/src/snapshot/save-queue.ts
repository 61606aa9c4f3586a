import { PvmError } from '../errors.ts';

/** When a snapshot is taken, and what becomes of the machine. */
export interface SaveOptions {
  /** As soon as so many instructions have been retired since the machine was made (exact to the next taken backward or indirect branch). Default: now. */
  readonly at?: number;
  /** The run ends afterwards with `saved`. Default: it goes on. */
  readonly stop?: boolean;
}

interface SaveRequest {
  readonly at: number;
  readonly stop: boolean;
  /** Writes the snapshot and settles the promise that was given for it. */
  serve(): void;
  fail(error: PvmError): void;
}

/** Snapshots that were asked for and wait until the machine stands still. */
export class SaveQueue {
  private requests: SaveRequest[] = [];

  /** @returns settles when the snapshot is written */
  add({ at = 0, stop = false }: SaveOptions, write: () => void): Promise<void> {
    if (!Number.isSafeInteger(at) || at < 0) throw new PvmError('bad-option', `option at: expected a number of instructions, got ${at}`);
    return new Promise((resolve, reject) => {
      const serve = () => {
        try {
          write();
          resolve();
        } catch (e) {
          reject(e);
        }
      };
      this.requests.push({ at, stop, serve, fail: reject });
    });
  }

  /** Least number of instructions at which one is due; Infinity: none waits. */
  get next(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...this.requests.map((r) => r.at));
  }

  /** Those that are due. */
  take(instructions: number): readonly SaveRequest[] {
    if (this.requests.length === 0) return this.requests;
    const due = this.requests.filter((r) => r.at <= instructions);
    this.requests = this.requests.filter((r) => r.at > instructions);
    return due;
  }

  /** Fails those that wait still. */
  end(): void {
    for (const request of this.requests) request.fail(new PvmError('wrong-state', 'the machine ended before the snapshot was due'));
    this.requests = [];
  }
}
