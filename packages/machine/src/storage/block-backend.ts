/** Smallest unit of a disk, bytes. */
export const SECTOR = 512;

/** Where the sectors of a disk are. Offsets and lengths are in bytes, multiples of `SECTOR`, inside `size`. */
export interface BlockBackend {
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
