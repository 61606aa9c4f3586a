import { ACCESS_READ, ACCESS_WRITE } from '@pvm/cpu-jit/layout';
import type { PvmVcpu } from './abi/pvm-vcpu.ts';

/** An access of the hypervisor on the guest's behalf that the guest's tables forbid: becomes a #PF. */
export class GuestPageFault extends Error {
  override readonly name = 'GuestPageFault';
  readonly va: bigint;
  readonly errorCode: number;
  constructor(va: bigint, errorCode: number) {
    super(`page fault at 0x${va.toString(16)}`);
    this.va = va;
    this.errorCode = errorCode;
  }
}

/** Read `length` bytes at virtual address `va` in the current mode. @throws GuestPageFault */
export function readVirtual(vcpu: PvmVcpu, va: bigint, length: number): DataView {
  const bytes = new Uint8Array(length);
  for (const { hpa, offset, size } of pieces(vcpu, va, length, ACCESS_READ)) bytes.set(vcpu.core.u8.subarray(hpa, hpa + size), offset);
  return new DataView(bytes.buffer);
}

/** Write to virtual address `va` in the current mode; nothing is written when a part of it faults. @throws GuestPageFault */
export function writeVirtual(vcpu: PvmVcpu, va: bigint, data: Uint8Array): void {
  for (const { hpa, offset, size } of pieces(vcpu, va, data.length, ACCESS_WRITE)) {
    vcpu.core.u8.set(data.subarray(offset, offset + size), hpa);
    vcpu.core.dirtyCode(hpa, size);
    vcpu.mmu.guestWrote(hpa, size);
  }
}

/** Raise the #PF that a write there would. @throws GuestPageFault */
export function checkWritable(vcpu: PvmVcpu, va: bigint, length: number): void {
  pieces(vcpu, va, length, ACCESS_WRITE);
}

function pieces(vcpu: PvmVcpu, va: bigint, length: number, access: number): { hpa: number; offset: number; size: number }[] {
  const found: { hpa: number; offset: number; size: number }[] = [];
  for (let offset = 0; offset < length; ) {
    const at = BigInt.asUintN(64, va + BigInt(offset));
    const size = Math.min(length - offset, 4096 - Number(at & 0xfffn));
    const hpa = vcpu.mmu.translate(vcpu.index, vcpu.smod ? 0 : 1, Number(at & 0xffff_ffffn), Number(at >> 32n), access);
    if (hpa < 0) throw new GuestPageFault(at, hpa === -1 ? vcpu.mmu.errorCode : 0);
    found.push({ hpa, offset, size });
    offset += size;
  }
  return found;
}
