import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { MmioSize } from '../board/mmio-bus.ts';
import type { PciBar } from './pci-function.ts';

// PCI Local Bus Specification 3.0, section 6.8.2: MSI-X.
const ENTRY_SIZE = 16;
const VECTOR_MASKED = 1;
/** Offset of the pending-bit array in the BAR. */
export const MSIX_PBA_OFFSET = 0x800;
export const MSIX_CAPABILITY_ID = 0x11;
export const MSIX_ENABLE = 0x8000;
const MSIX_FUNCTION_MASK = 0x4000;

/** Vector table and pending bits of one function, in a BAR of 4 KiB. */
export class MsixTable implements PciBar, Saveable {
  readonly size = 0x1000;
  readonly vectors: number;
  private readonly table: DataView;
  private readonly pending = new Uint32Array(4);
  private readonly send: (address: number, data: number) => void;
  private control = 0;

  /** @param vectors 1 to 128 */
  constructor(vectors: number, send: (address: number, data: number) => void) {
    this.vectors = vectors;
    this.send = send;
    this.table = new DataView(new ArrayBuffer(vectors * ENTRY_SIZE));
    this.reset();
  }

  reset(): void {
    this.control = 0;
    this.pending.fill(0);
    for (let i = 0; i < this.vectors; i++) {
      for (const at of [0, 4, 8]) this.table.setUint32(i * ENTRY_SIZE + at, 0, true);
      this.table.setUint32(i * ENTRY_SIZE + 12, VECTOR_MASKED, true);
    }
  }

  get enabled(): boolean {
    return (this.control & MSIX_ENABLE) !== 0;
  }

  /** Message control as the guest wrote it. */
  setControl(control: number): void {
    this.control = control;
    for (let i = 0; i < this.vectors; i++) this.deliverPending(i);
  }

  /** Send a vector's message, or remember it while it is masked. */
  notify(vector: number): void {
    if (!this.enabled || vector >= this.vectors) return;
    if (this.masked(vector)) {
      this.pending[vector >> 5] = (this.pending[vector >> 5] ?? 0) | (1 << (vector & 31));
      return;
    }
    const at = vector * ENTRY_SIZE;
    // The upper half of the address is zero: all local APICs are below 4 GiB.
    if (this.table.getUint32(at + 4, true) === 0) this.send(this.table.getUint32(at, true), this.table.getUint32(at + 8, true));
  }

  read(offset: number, size: MmioSize): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  write(offset: number, size: MmioSize, value: number): undefined {
    if (size !== 4 || (offset & 3) !== 0 || offset + 4 > this.table.byteLength) return;
    this.table.setUint32(offset, value, true);
    this.deliverPending(Math.floor(offset / ENTRY_SIZE));
  }

  private readByte(at: number): number {
    if (at < this.table.byteLength) return this.table.getUint8(at);
    const bit = at - MSIX_PBA_OFFSET;
    return bit >= 0 && bit < 16 ? ((this.pending[bit >> 2] ?? 0) >>> (8 * (bit & 3))) & 0xff : 0;
  }

  private masked(vector: number): boolean {
    return (this.control & MSIX_FUNCTION_MASK) !== 0 || (this.table.getUint32(vector * ENTRY_SIZE + 12, true) & VECTOR_MASKED) !== 0;
  }

  private deliverPending(vector: number): void {
    const bit = 1 << (vector & 31);
    if (((this.pending[vector >> 5] ?? 0) & bit) === 0 || !this.enabled || this.masked(vector)) return;
    this.pending[vector >> 5] = (this.pending[vector >> 5] ?? 0) & ~bit;
    this.notify(vector);
  }

  state(s: StateIo): void {
    s.fields(this, ['table', 'pending', 'control']);
  }
}
