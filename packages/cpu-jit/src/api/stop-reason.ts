/**
 * Why `Cpu.run` returned. RIP is at the instruction that could not be done ('exception', 'memory', 'hook' before an access or an instruction, 'until'),
 * or after the one that was ('hlt', 'syscall', 'interrupt', 'hook' of a port), so that another `run` goes on in either case.
 */
export type StopReason =
  /** HLT was executed. */
  | { readonly kind: 'hlt' }
  /** The address asked for is the next instruction's. */
  | { readonly kind: 'until'; readonly address: bigint }
  /** As many instructions as asked for have retired. */
  | { readonly kind: 'limit' }
  /** The signal was aborted (`runAsync`). */
  | { readonly kind: 'aborted' }
  /** The instruction at `rip` raises `vector`, and nothing in the guest takes it. `error`: its error code or 0; `address`: of a page fault, else 0. */
  | { readonly kind: 'exception'; readonly vector: number; readonly error: number; readonly address: bigint; readonly rip: bigint }
  /** The instruction at `rip` accesses memory that is not mapped, or not for that. */
  | {
      readonly kind: 'memory';
      readonly access: 'read' | 'write' | 'execute';
      readonly address: bigint;
      /** Bytes, of the part in one page. */
      readonly size: number;
      readonly why: 'unmapped' | 'protected';
      readonly rip: bigint;
    }
  /** A hook said 'stop'. */
  | { readonly kind: 'hook'; readonly hook: 'memory' | 'code' | 'port' | 'syscall' | 'interrupt'; readonly rip: bigint }
  /** SYSCALL at `rip` that no hook takes. */
  | { readonly kind: 'syscall'; readonly rip: bigint }
  /** INT n, INT3, INTO or INT1 at `rip` that no hook takes. */
  | { readonly kind: 'interrupt'; readonly vector: number; readonly rip: bigint }
  /** An exception could not be delivered, nor the double fault after it (`exceptions: 'deliver'`). */
  | { readonly kind: 'shutdown' };
