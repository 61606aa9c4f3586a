import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { InterruptSink } from '@pvm/machine';

/** Interrupts of a board without an interrupt controller: the highest vector first (SDM vol. 3, 11.8.3.1). */
export class InterruptQueue implements InterruptSink, Saveable {
  private readonly vectors = new Set<number>();
  private nmi = false;
  /** Kept, and without effect. */
  taskPriority = 0;

  add(vector: number): void {
    this.vectors.add(vector);
  }
  addNmi(): void {
    this.nmi = true;
  }
  pendingVector(): number {
    return this.vectors.size === 0 ? -1 : Math.max(...this.vectors);
  }
  acknowledge(): number {
    const vector = this.pendingVector();
    this.vectors.delete(vector);
    return vector;
  }
  hasNmi(): boolean {
    return this.nmi;
  }
  takeNmi(): boolean {
    const waits = this.nmi;
    this.nmi = false;
    return waits;
  }
  hasReset(): boolean {
    return false;
  }
  takeInit(): boolean {
    return false;
  }
  takeSipi(): number {
    return -1;
  }
  heldClass(): number {
    return 0;
  }
  hasWork(): boolean {
    return this.nmi || this.vectors.size > 0;
  }

  state(s: StateIo): void {
    s.fields(this, ['vectors', 'nmi', 'taskPriority']);
  }
}
