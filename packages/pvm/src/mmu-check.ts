import { BrokenMmu, type Design } from './designs/design.ts';
import { PvmError } from './errors.ts';

/** Checks the page tables that a design keeps, at every so many exits. */
export class MmuCheck {
  private readonly check: () => void;
  private readonly every: number;
  private exits = 0;

  /** @throws PvmError `bad-option` when the design keeps no page tables */
  constructor(design: Design, every: number) {
    if (design.checkMmu === undefined) throw new PvmError('bad-option', `checkMmu: design ${design.name} keeps no page tables that could be checked`);
    this.check = () => design.checkMmu?.();
    this.every = every;
  }

  /** An exit was handled. @throws BrokenMmu */
  exitDone(): void {
    if (++this.exits % this.every !== 0) return;
    try {
      this.check();
    } catch (cause) {
      throw new BrokenMmu(`at exit ${this.exits}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }
}
