import { type Saveable, StateError, type StateIo } from '@pvm/cpu-jit';
/** A one-shot timer of a `TimerQueue`; devices keep one each and arm it again and again. */
export interface Timer {
  /** When it fires, ns on the queue's clock; Infinity while it is off. */
  readonly deadline: number;
  /** Fire once at `atNs`, replacing an earlier setting. A time in the past fires at the next `run`. */
  arm(atNs: number): void;
  cancel(): void;
}

class QueuedTimer implements Timer {
  deadline = Number.POSITIVE_INFINITY;
  readonly fire: (deadline: number) => void;
  private readonly queue: TimerQueue;

  constructor(queue: TimerQueue, fire: (deadline: number) => void) {
    this.queue = queue;
    this.fire = fire;
  }

  arm(atNs: number): void {
    this.deadline = atNs;
    this.queue.changed(atNs);
  }

  cancel(): void {
    this.deadline = Number.POSITIVE_INFINITY;
    this.queue.changed(Number.POSITIVE_INFINITY);
  }
}

/**
 * The timers of a board. Time is what `clock` says, in ns; nothing happens between calls of `run`, so that a machine whose clock
 * counts instructions is repeatable: timers fire in the order of deadlines, then of creation.
 */
export class TimerQueue implements Saveable {
  private readonly clock: () => number;
  private readonly onEarlier: () => void;
  private readonly timers: QueuedTimer[] = [];
  private next = Number.POSITIVE_INFINITY;
  private stale = false;

  /**
   * @param clock current time, ns
   * @param onEarlier called when the next deadline moves forward in time, so that a run in progress can be cut short
   */
  constructor(clock: () => number, onEarlier: () => void = () => undefined) {
    this.clock = clock;
    this.onEarlier = onEarlier;
  }

  now(): number {
    return this.clock();
  }

  /** A new timer that is off. `fire` gets the deadline it was armed for, which may lie a little in the past. */
  timer(fire: (deadline: number) => void): Timer {
    const timer = new QueuedTimer(this, fire);
    this.timers.push(timer);
    return timer;
  }

  /** Earliest deadline, ns; Infinity when every timer is off. */
  nextDeadline(): number {
    if (this.stale) {
      this.stale = false;
      this.next = this.timers.reduce((least, t) => Math.min(least, t.deadline), Number.POSITIVE_INFINITY);
    }
    return this.next;
  }

  /** Fire every timer that is due. A timer that arms itself again for the past fires once more, at most a thousand times. */
  run(): void {
    for (let i = 0; i < 1000 && this.nextDeadline() <= this.clock(); i++) {
      const deadline = this.nextDeadline();
      const due = this.timers.find((t) => t.deadline === deadline);
      if (due === undefined) return;
      due.deadline = Number.POSITIVE_INFINITY;
      this.stale = true;
      due.fire(deadline);
    }
  }

  /** Used by timers. */
  changed(deadline: number): void {
    this.stale = true;
    if (deadline < this.next) {
      this.next = deadline;
      this.onEarlier();
    }
  }

  /** When each timer fires. */
  state(s: StateIo): void {
    const deadlines = s.value(
      'deadlines',
      this.timers.map((timer) => timer.deadline),
    );
    if (!s.restoring) return;
    if (deadlines.length !== this.timers.length) throw new StateError(`${deadlines.length} timers, this board has ${this.timers.length}`);
    this.timers.forEach((timer, i) => {
      timer.deadline = deadlines[i] ?? Number.POSITIVE_INFINITY;
    });
    this.next = Math.min(Number.POSITIVE_INFINITY, ...deadlines);
    this.stale = false;
  }
}
