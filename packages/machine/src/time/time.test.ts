import { describe, expect, it } from 'vitest';
import { testBoard } from '../testing/test-board.ts';
import { TimerQueue } from './timer-queue.ts';

describe('timer queue', () => {
  it('fires in the order of deadlines and reports an earlier one', () => {
    let now = 0;
    let earlier = 0;
    const log: string[] = [];
    const queue = new TimerQueue(
      () => now,
      () => earlier++,
    );
    const a = queue.timer((at) => log.push(`a${at}`));
    const b = queue.timer((at) => log.push(`b${at}`));
    a.arm(20);
    b.arm(10);
    expect(queue.nextDeadline()).toBe(10);
    expect(earlier).toBe(2);
    now = 30;
    queue.run();
    expect(log).toEqual(['b10', 'a20']);
    expect(queue.nextDeadline()).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('i8254', () => {
  it('raises IRQ 0 at the rate it is set to', () => {
    const { board, advance } = testBoard();
    const sink = board.interrupts[0];
    for (const [port, value] of [
      [0x20, 0x11],
      [0x21, 0x20],
      [0x21, 4],
      [0x21, 3],
      [0x21, 0],
    ] as const)
      board.writePort(port, 1, value);
    board.writePort(0x43, 1, 0x34);
    board.writePort(0x40, 1, 11932 & 0xff);
    board.writePort(0x40, 1, 11932 >> 8);
    let ticks = 0;
    for (let i = 0; i < 1000; i++) {
      advance(1_000_000);
      if (sink?.pendingVector() === 0x20) {
        sink.acknowledge();
        ticks++;
      }
    }
    expect(ticks).toBe(99);
  });

  it('lets a kernel calibrate with counter 2 and the speaker gate', () => {
    const { board, advance } = testBoard();
    board.writePort(0x61, 1, 1);
    board.writePort(0x43, 1, 0xb0);
    board.writePort(0x42, 1, 0xff);
    board.writePort(0x42, 1, 0xff);
    expect(board.readPort(0x61, 1) & 0x20).toBe(0);
    advance(10_000_000);
    const low = board.readPort(0x42, 1);
    const count = low | (board.readPort(0x42, 1) << 8);
    expect(0xffff - count).toBe(11931);
    advance(46_000_000);
    expect(board.readPort(0x61, 1) & 0x20).toBe(0x20);
  });
});

describe('RTC', () => {
  const read = (board: ReturnType<typeof testBoard>['board'], index: number) => {
    board.writePort(0x70, 1, index);
    return board.readPort(0x71, 1);
  };

  it('shows the wall time in BCD and keeps what the guest sets', () => {
    const { board, advance } = testBoard();
    expect([9, 8, 7, 4, 2, 0].map((r) => read(board, r).toString(16))).toEqual(['23', '11', '14', '22', '13', '20']);
    board.writePort(0x70, 1, 0x0b);
    board.writePort(0x71, 1, 0x82);
    board.writePort(0x70, 1, 0x09);
    board.writePort(0x71, 1, 0x30);
    board.writePort(0x70, 1, 0x0b);
    board.writePort(0x71, 1, 0x02);
    advance(1e9);
    expect([9, 8, 7, 0].map((r) => read(board, r).toString(16))).toEqual(['30', '11', '14', '21']);
  });

  it('sets update-in-progress only shortly before the second ends', () => {
    const { board, advance } = testBoard();
    expect(read(board, 0x0a) & 0x80).toBe(0);
    advance(999_900_000);
    expect(read(board, 0x0a) & 0x80).toBe(0x80);
    advance(100_000);
    expect(read(board, 0x0a) & 0x80).toBe(0);
  });

  it('interrupts periodically until register C is read', () => {
    const { board, advance } = testBoard();
    board.writePort(0x70, 1, 0x0b);
    board.writePort(0x71, 1, 0x42);
    advance(1_000_000);
    expect(read(board, 0x0c)).toBe(0xc0);
    expect(read(board, 0x0c)).toBe(0);
  });
});

describe('ACPI fixed hardware', () => {
  it('counts the timer at 3.579545 MHz', () => {
    const { board, advance } = testBoard();
    advance(1e9);
    expect(board.readPort(0x608, 4)).toBe(3_579_545);
  });

  it('powers off on S5 and resets through the reset register', () => {
    const { board, events } = testBoard();
    board.writePort(0x604, 2, (5 << 10) | (1 << 13));
    board.writePort(0xcf9, 1, 0x06);
    board.writePort(0x64, 1, 0xfe);
    board.writePort(0xf4, 4, 3);
    expect(events).toEqual(['power-off', 'reset', 'reset', 'exit 7']);
  });

  it('announces the power button on the SCI until the guest clears it', () => {
    const { board } = testBoard();
    board.writePort(0x602, 2, 0x100);
    board.pressPowerButton();
    expect(board.readPort(0x600, 2)).toBe(0x100);
    board.writePort(0x600, 2, 0x100);
    expect(board.readPort(0x600, 2)).toBe(0);
  });
});
