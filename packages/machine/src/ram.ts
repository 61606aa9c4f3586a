import { MachineError } from './errors.ts';

/** One line of the firmware's memory map. */
export interface E820Entry {
  /** Guest-physical start, bytes. */
  readonly address: number;
  /** Length in bytes. */
  readonly size: number;
  /** 1 usable RAM, 2 reserved (ACPI specification, "System Address Map Interfaces"). */
  readonly type: 1 | 2;
}

/** Smallest and largest RAM of a board, in bytes. */
export const MIN_RAM = 4 << 20;
export const MAX_RAM = 3.5 * 2 ** 30;
const PAGE = 4096;

/**
 * Guest RAM: a window into the linear memory that all parts of a machine share. Guest-physical addresses
 * (GPA) start at 0 and count bytes; every access is checked against the size.
 */
export class GuestRam {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Size in bytes. */
  readonly size: number;
  private readonly onWrite: (gpa: number, length: number) => void;

  /**
   * @param buffer the shared linear memory
   * @param base byte offset of GPA 0
   * @param size bytes of RAM, a multiple of 4 KiB
   * @param onWrite called after the host wrote `length` bytes at `gpa`: the CPU may hold translated code of it
   */
  constructor(buffer: ArrayBufferLike, base: number, size: number, onWrite: (gpa: number, length: number) => void = () => undefined) {
    if (size < MIN_RAM || size > MAX_RAM || size % PAGE !== 0) {
      throw new MachineError(
        'bad-memory-size',
        `guest RAM must be between ${MIN_RAM >> 20} MiB and ${MAX_RAM / 2 ** 20} MiB in 4 KiB pages, got ${size} bytes`,
      );
    }
    this.bytes = new Uint8Array(buffer, base, size);
    this.view = new DataView(buffer, base, size);
    this.size = size;
    this.onWrite = onWrite;
  }

  /** Whether [gpa, gpa + length) is RAM. */
  contains(gpa: number, length: number): boolean {
    return gpa >= 0 && length >= 0 && gpa + length <= this.size;
  }

  /** The bytes at [gpa, gpa + length), not copied. Throws `RangeError` outside RAM. */
  slice(gpa: number, length: number): Uint8Array {
    this.check(gpa, length);
    return this.bytes.subarray(gpa, gpa + length);
  }

  /** Copy `data` to `gpa`. Throws `RangeError` outside RAM. */
  write(gpa: number, data: Uint8Array): void {
    this.check(gpa, data.length);
    this.bytes.set(data, gpa);
    this.onWrite(gpa, data.length);
  }

  /** Zero [gpa, gpa + length). Throws `RangeError` outside RAM. */
  clear(gpa: number, length: number): void {
    this.check(gpa, length);
    this.bytes.fill(0, gpa, gpa + length);
    this.onWrite(gpa, length);
  }

  /** Tell the CPU that [gpa, gpa + length) was written through `slice` or `view`. */
  written(gpa: number, length: number): void {
    this.onWrite(gpa, length);
  }

  /** The memory map a PC firmware would report for this RAM. */
  e820(): readonly E820Entry[] {
    return [
      { address: 0, size: 0x9fc00, type: 1 },
      { address: 0x9fc00, size: 0x60400, type: 2 },
      { address: 0x100000, size: this.size - 0x100000, type: 1 },
    ];
  }

  private check(gpa: number, length: number): void {
    if (!this.contains(gpa, length)) {
      throw new RangeError(`guest-physical [0x${gpa.toString(16)}, +0x${length.toString(16)}) is outside the ${this.size >> 20} MiB of RAM`);
    }
  }
}
