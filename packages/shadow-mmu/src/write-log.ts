import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * Dirty log over shadow tables: which frames of a guest-physical range were written. There are no dirty bits to look at (shadow leaves have them set), so frames are
 * write-protected until they are written, as page tables are; the range is mapped by 4 KiB leaves only.
 */
import { checkPages } from './arguments.ts';
import { LOG_CLEAN, LOG_DIRTY, LOG_OFF, type ShadowPages } from './shadow-pages.ts';

export class WriteLog implements Saveable {
  private gpa = 0;
  /** Length of the range, 0: no log is on. */
  private bytes = 0;
  private readonly pages: ShadowPages;
  private readonly gpaToHpa: (gpa: number) => number;

  constructor(pages: ShadowPages, gpaToHpa: (gpa: number) => number) {
    this.pages = pages;
    this.gpaToHpa = gpaToHpa;
  }

  /** In place of an earlier log; nothing is dirty yet. */
  start(gpa: number, bytes: number): void {
    checkPages(gpa, bytes);
    this.stop();
    this.gpa = gpa;
    this.bytes = bytes;
    const { pages } = this;
    for (let page = 0; page < bytes / 4096; page++) {
      const frame = this.frame(page);
      if (frame < 0) continue;
      pages.blockLogged[frame >>> 9] = 1;
      pages.dropLarge(frame >>> 9);
      this.clean(frame);
    }
  }

  stop(): void {
    this.bytes = 0;
    this.pages.logged.fill(LOG_OFF);
    this.pages.blockLogged.fill(0);
  }

  /** Bit n of word w is page w * 32 + n of the range. @throws Error when no log is on */
  take(): Uint32Array {
    if (this.bytes === 0) throw new Error('no dirty log is on: start one first');
    const count = this.bytes / 4096;
    const bits = new Uint32Array(Math.ceil(count / 32));
    for (let page = 0; page < count; page++) {
      const frame = this.frame(page);
      if (frame < 0 || this.pages.logged[frame] !== LOG_DIRTY) continue;
      bits[page >>> 5] = (bits[page >>> 5] as number) | (1 << (page & 31));
      this.clean(frame);
    }
    return bits;
  }

  /** The bytes [hpa, hpa + length) were written by something that no shadow table stood before. */
  mark(hpa: number, length: number): void {
    if (this.bytes === 0) return;
    const { ramBase, ramFrames } = this.pages;
    const last = Math.min(((hpa + length - 1) >>> 12) - ramBase, ramFrames - 1);
    for (let frame = Math.max((hpa >>> 12) - ramBase, 0); frame <= last; frame++) this.pages.written(frame);
  }

  /** The guest ran where its writes were not seen. */
  markAll(): void {
    const { logged } = this.pages;
    if (this.bytes !== 0) for (let frame = 0; frame < logged.length; frame++) this.pages.written(frame);
  }

  /** Number of the RAM frame of a page of the range, -1: it is not RAM. */
  private frame(page: number): number {
    const hpa = this.gpaToHpa(this.gpa + page * 4096);
    return hpa < 0 ? -1 : (hpa >>> 12) - this.pages.ramBase;
  }

  private clean(frame: number): void {
    this.pages.logged[frame] = LOG_CLEAN;
    this.pages.removeWrites(frame);
  }

  state(s: StateIo): void {
    s.fields(this, ['gpa', 'bytes']);
  }
}
