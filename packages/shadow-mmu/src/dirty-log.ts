import type { Saveable, StateIo } from '@pvm/cpu-jit';
import { EPT_D, EPT_W } from './second-level-entry.ts';

/** How writes are noticed: the CPU's dirty bits, or an exit at the first write to each page. */
export type DirtyLogKind = 'dirty-bit' | 'write-protect';

/** Which 4 KiB pages of one guest-physical range were written since they were last asked for. */
export class DirtyLog implements Saveable {
  readonly gpa: number;
  readonly end: number;
  /** Pages are read-only until they are written. */
  readonly isProtecting: boolean;
  /** Bits of an entry that say that its page was written. */
  readonly marks: number;
  private readonly bits: Uint32Array;

  constructor(gpa: number, bytes: number, kind: DirtyLogKind) {
    this.gpa = gpa;
    this.end = gpa + bytes;
    this.isProtecting = kind === 'write-protect';
    this.marks = this.isProtecting ? EPT_W | EPT_D : EPT_D;
    this.bits = new Uint32Array(Math.ceil(bytes / 4096 / 32));
  }

  overlaps(gpa: number, bytes: number): boolean {
    return gpa < this.end && gpa + bytes > this.gpa;
  }

  /** Marks the pages of [gpa, gpa + bytes) that are in the range. */
  mark(gpa: number, bytes: number): void {
    const first = Math.max(gpa - (gpa % 4096), this.gpa);
    const end = Math.min(gpa + bytes, this.end);
    for (let at = first; at < end; at += 4096) {
      const page = (at - this.gpa) / 4096;
      this.bits[page >>> 5] = (this.bits[page >>> 5] as number) | (1 << (page & 31));
    }
  }

  /** The marks since the last call: bit n of word w is page w * 32 + n. */
  take(): Uint32Array {
    const taken = this.bits.slice();
    this.bits.fill(0);
    return taken;
  }

  state(s: StateIo): void {
    s.fields(this, ['bits']);
  }
}
