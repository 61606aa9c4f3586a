/** Where guest RAM of the all-modes tests is: 6 MiB at 0 and 2 MiB at 4 GiB. Anything else is device memory. */
import { FRAME_POOL_BASE } from '@pvm/cpu-jit/layout';

export const POOL_FRAMES = 512;
export const RAM_BASE = FRAME_POOL_BASE + POOL_FRAMES * 4096;
export const RAM_LOW = 0x60_0000;
export const RAM_HIGH = 0x20_0000;
const FOUR_GIB = 0x1_0000_0000;

export function gpaToHpa(gpa: number): number {
  if (gpa < RAM_LOW) return RAM_BASE + gpa;
  if (gpa >= FOUR_GIB && gpa < FOUR_GIB + RAM_HIGH) return RAM_BASE + RAM_LOW + (gpa - FOUR_GIB);
  return -1;
}

/** Frames that serve as tables and as data, in turn; few, so that they are shared, nested in each other and reused all the time. */
export const TABLES = [...Array.from({ length: 14 }, (_, i) => 0x1000 * (i + 1)), FOUR_GIB, 0x20_1000];
export const DATA = [...Array.from({ length: 8 }, (_, i) => 0x40_0000 + i * 0x1000), FOUR_GIB + 0x1000];
/** PAE's page-directory pointers: no other tables, since the accessed bit that a walk would set there is reserved in them. */
export const POINTERS = [0x40_8000, 0x40_9000];
/** Tables of the writer: they map all of RAM and nothing changes them. */
export const WRITER_ROOT = 0x5f_0000;
