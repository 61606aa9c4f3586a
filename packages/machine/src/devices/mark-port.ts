import type { PortDevice, PortSize } from './port-device.ts';

/** Port of 32 bits with which a program in a stock kernel marks measured intervals; the program needs `ioperm`. */
export const MARK_PORT = 0x508;
/** Bits of a mark that say how many operations the interval has; the interval's number is above them. */
const OPERATIONS_BITS = 24;

/** Writing `id << 24 | operations` begins interval `id`, which has so many operations; with 0 operations it ends. */
export class MarkPort implements PortDevice {
  readonly name = 'mark';
  readonly ports = [{ first: MARK_PORT, last: MARK_PORT + 3 }];
  private readonly onMark: (operations: number, id: number) => Promise<void> | undefined;

  constructor(onMark: (operations: number, id: number) => Promise<void> | undefined) {
    this.onMark = onMark;
  }

  read(_port: number, size: PortSize): number {
    return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
  }

  write(port: number, size: PortSize, value: number): Promise<void> | undefined {
    return size === 4 && port === MARK_PORT ? this.onMark(value & ((1 << OPERATIONS_BITS) - 1), value >>> OPERATIONS_BITS) : undefined;
  }

  state(): void {}
}
