/** What went wrong while the board was built or a guest image was loaded. */
export type MachineErrorCode =
  /** The image does not start with the ELF magic. */
  | 'not-elf'
  /** The image is a 32-bit ELF. */
  | 'elf-32-bit'
  /** The image is an ELF for another machine or byte order. */
  | 'elf-wrong-machine'
  /** The image is not an executable (object file, core file, ...). */
  | 'elf-not-executable'
  /** The image asks for a dynamic loader. */
  | 'elf-dynamic'
  /** A header or segment reaches beyond the end of the image. */
  | 'elf-truncated'
  /** A header field contradicts another. */
  | 'elf-malformed'
  /** Something does not fit into guest RAM. */
  | 'memory-too-small'
  /** Guest RAM size is not one the board can have. */
  | 'bad-memory-size'
  /** The kernel command line is longer than its place in guest RAM. */
  | 'command-line-too-long'
  /** Two devices claim the same I/O port. */
  | 'port-conflict'
  /** A file name that cannot be stored in an initial RAM disk. */
  | 'bad-file-name'
  /** The image carries no Linux setup header. */
  | 'not-bzimage'
  /** A bzImage whose setup header contradicts itself or the file's length. */
  | 'bzimage-malformed'
  /** A bzImage older than boot protocol 2.06. */
  | 'bzimage-too-old'
  /** An ELF without the note that names a PVH entry point. */
  | 'no-pvh-note'
  /** No multiboot header in the first 8 KiB. */
  | 'not-multiboot'
  /** A multiboot header that asks for something impossible. */
  | 'multiboot-malformed'
  /** The kernel is of no format the board can boot. */
  | 'unknown-kernel-format'
  /** A setting of the board is outside what it can do. */
  | 'bad-board-option'
  /** Two devices claim the same guest-physical addresses. */
  | 'mmio-conflict'
  /** The PCI bus or an address window has no room for another device. */
  | 'no-room'
  /** A disk image that cannot be opened or has an unusable size. */
  | 'bad-disk'
  /** A folder that cannot be shared, or a tag the guest could not mount. */
  | 'bad-share';

/** Error of this package: `message` is one line that says what was wrong and what would be right. */
export class MachineError extends Error {
  override readonly name = 'MachineError';
  readonly code: MachineErrorCode;
  constructor(code: MachineErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** What is wrong with a file, in few words, by the error of a call on it. */
export function fileProblem(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
  const known: Readonly<Record<string, string>> = {
    ENOENT: 'no such file',
    EACCES: 'permission denied',
    EPERM: 'not permitted',
    EISDIR: 'is a directory',
    ENOTDIR: 'is not a folder',
    EROFS: 'read-only file system',
  };
  return known[code] ?? `cannot be read (${code})`;
}
