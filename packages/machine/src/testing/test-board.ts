import { Board, type BoardOptions } from '../board/board.ts';
import { GuestRam } from '../ram.ts';

/** A board with a clock the test sets and records of what it asked the machine for. */
export interface TestBoard {
  readonly board: Board;
  readonly ram: GuestRam;
  readonly events: string[];
  /** Let `ns` pass, firing timers at their times. */
  advance(ns: number): void;
  serial(): string;
}

export function testBoard(options: Partial<BoardOptions> = {}, ramSize = 16 << 20): TestBoard {
  const ram = new GuestRam(new ArrayBuffer(ramSize), 0, ramSize);
  const events: string[] = [];
  let now = 0;
  let output = '';
  const board = new Board({
    ram,
    now: () => now,
    wallClock: () => 1_700_000_000_000_000_000n + BigInt(Math.floor(now)),
    serialOutput: (data) => {
      output += new TextDecoder().decode(data);
    },
    onReset: () => events.push('reset'),
    onPowerOff: () => events.push('power-off'),
    onDebugExit: (code) => events.push(`exit ${code}`),
    ...options,
  });
  return {
    board,
    ram,
    events,
    advance: (ns) => {
      const end = now + ns;
      while (board.nextDeadline() <= end) {
        now = Math.max(now, board.nextDeadline());
        board.runTimers();
      }
      now = end;
    },
    serial: () => {
      board.flushSerial();
      return output;
    },
  };
}

/** Deterministic random numbers for fuzz tests: xorshift32, unsigned. */
export function xorshift(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}
