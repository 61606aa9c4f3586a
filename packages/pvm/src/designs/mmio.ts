import { ACCESS_WRITE, S_EXIT_ACCESS, S_EXIT_SIZE, S_EXIT_VALUE } from '@pvm/cpu-jit/layout';
import type { MmioSize } from '@pvm/machine';
import type { Platform } from '../platform/index.ts';
import type { VcpuState } from '../vcpu-state.ts';

const ALL_ONES_32 = 0xffff_ffffn;

/**
 * Do the access that the CPU's hook left in `S_EXIT_*` (size and direction; value, up to 32 bytes) at guest-physical address `gpa`, which is
 * not RAM. Devices know accesses of 1, 2 and 4 bytes.
 */
export function accessMmio(platform: Pick<Platform, 'readMmio' | 'writeMmio'>, vcpu: VcpuState, gpa: number): void {
  const total = vcpu.get32(S_EXIT_SIZE);
  const isWrite = (vcpu.get32(S_EXIT_ACCESS) & 3) === ACCESS_WRITE;
  for (let at = 0; at < total; at += 4) {
    const size = mmioSize(total - at);
    const shift = BigInt(8 * (at & 4));
    const field = S_EXIT_VALUE + (at & ~7);
    if (isWrite) {
      const value = Number((vcpu.get64(field) >> shift) & ALL_ONES_32);
      platform.writeMmio(vcpu.index, gpa + at, size, size === 4 ? value : value & ((1 << (8 * size)) - 1));
    } else {
      if ((at & 7) === 0) vcpu.set64(field, 0n);
      vcpu.set64(field, vcpu.get64(field) | ((BigInt(platform.readMmio(vcpu.index, gpa + at, size)) & ALL_ONES_32) << shift));
    }
  }
}

function mmioSize(left: number): MmioSize {
  return left === 1 || left === 2 ? left : 4;
}
