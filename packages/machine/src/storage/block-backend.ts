import { type Saveable, StateError, type StateIo } from '@pvm/cpu-jit';
/** Smallest unit of a disk, bytes. */
export const SECTOR = 512;

/** Where the sectors of a disk are; what the guest wrote is part of its state only where nothing outside the machine holds it. Offsets and lengths are in bytes, multiples of `SECTOR`, inside `size`. */
export interface BlockBackend extends Saveable {
  /** Bytes; a multiple of `SECTOR`. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Fill `buffers` from `offset` on. Throws an `Error` when the medium fails. */
  read(offset: number, buffers: readonly Uint8Array[]): void;
  write(offset: number, buffers: readonly Uint8Array[]): void;
  /** All writes so far survive a crash of the host when this returns. */
  flush(): void;
  /** The range reads as zeros from now on. */
  writeZeroes(offset: number, length: number): void;
  /** The guest no longer needs the range; its content becomes undefined. */
  discard(offset: number, length: number): void;
  close(): void;
}

/** A disk of another size is another disk. @throws StateError */
export function checkSize(s: StateIo, size: number): void {
  const saved = s.value('size', size);
  if (saved !== size) throw new StateError(`a disk has ${size} bytes, in the snapshot it had ${saved}`);
}
