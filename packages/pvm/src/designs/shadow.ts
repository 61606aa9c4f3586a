import type { CpuCore } from '@pvm/cpu-jit';
import { ACCESS_RMW, S_EXIT_SIZE, S_EXIT_VALUE } from '@pvm/cpu-jit/layout';
import { ShadowMmu, type ShadowMmuOptions } from '@pvm/shadow-mmu';
import { PvmError } from '../errors.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { DirtyTracking } from './design.ts';

/** A shadow MMU over the frame pool and the RAM of a machine, wired to its TLBs. */
export function createShadowMmu(core: CpuCore, more: Partial<ShadowMmuOptions> = {}): ShadowMmu {
  return new ShadowMmu({
    memory: core.memory.buffer,
    framePoolBase: core.framePoolBase,
    framePoolFrames: core.framePoolFrames,
    ramBase: core.ramBase,
    ramBytes: core.ramBytes,
    gpaToHpa: (gpa) => (gpa < core.ramBytes ? core.ramBase + gpa : -1),
    vcpus: core.vcpus,
    flush: {
      flushArray: (vcpu, array) => core.tlbFlushArray(vcpu, array),
      invlpg: (vcpu, array, low, high) => core.tlbInvlpg(vcpu, array, (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)),
      flushAll: (vcpu) => core.tlbFlushAll(vcpu),
    },
    ...more,
  });
}

/**
 * The dirty log of a machine with shadow tables, which have no dirty bits to look at.
 *
 * @param others called before pages are taken: marks what is written past the tables
 */
export function shadowDirtyLog(mmu: ShadowMmu, others: () => void = () => undefined): DirtyTracking {
  return {
    start: (gpa, bytes, kind = 'write-protect') => {
      if (kind !== 'write-protect') throw new PvmError('bad-option', `shadow tables log writes by write protection only, not by ${kind}`);
      mmu.startDirtyLog(gpa, bytes);
    },
    take: () => {
      others();
      return mmu.takeDirty();
    },
    stop: () => mmu.stopDirtyLog(),
  };
}

/**
 * After FAULT_TRACKED: the access to a guest page table that the CPU could not do. @returns whether it was the store; the read of a read-modify-write
 * gets the old value, and its store comes as an access of its own.
 */
export function accessTable(mmu: ShadowMmu, vcpu: VcpuState, access: number): boolean {
  const { core } = vcpu;
  const size = vcpu.get32(S_EXIT_SIZE);
  const hpa = mmu.faultHpa;
  const value = vcpu.base + S_EXIT_VALUE;
  if (access === ACCESS_RMW) {
    core.u8.copyWithin(value, hpa, hpa + size);
    return false;
  }
  mmu.emulateWrite(hpa, size, value);
  core.dirtyCode(hpa, size);
  return true;
}
