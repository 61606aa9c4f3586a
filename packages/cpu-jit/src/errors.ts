/** What went wrong in `@pvm/cpu-jit`, by `code`. */
export type CpuErrorCode =
  /** An option of `CpuCore.create` is out of range. */
  | 'bad-option'
  /** A call of `Cpu` with an address, range, permission or register that does not fit. */
  | 'bad-argument'
  /** `Cpu.map` wants more memory than there is. */
  | 'out-of-memory'
  /** The package was not built: a file of `build/` is missing. */
  | 'not-built'
  /** This process cannot provide what is needed (Node too old, address space exhausted). */
  | 'unsupported';

/** Error thrown by `@pvm/cpu-jit` for wrong use or a missing environment; guests never cause one. */
export class CpuError extends Error {
  readonly code: CpuErrorCode;
  constructor(code: CpuErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CpuError';
    this.code = code;
  }
}
