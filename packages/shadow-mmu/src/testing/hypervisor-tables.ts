/** The tables of a hypervisor over those of the guest, for a machine of two vCPUs whose TLBs are the CPU's. */
import { CPU_BASE, CPU_STRIDE, FRAME_POOL_BASE } from '@pvm/cpu-jit/layout';
import type { HelperExports } from '@pvm/cpu-jit/testing';
import { SecondLevel, ShadowMmu } from '../index.ts';
import { gpaToHpa, RAM_BASE, RAM_HIGH, RAM_LOW } from './guest-ram.ts';

export type Tables = 'guest' | 'second-level' | 'pvm' | 'kvm' | 'kvm-unsync';

export interface WalkerOptions {
  poolFrames?: number;
  prefetch?: number;
  largePages?: boolean;
  cachedRoots?: number;
}

export interface HypervisorTables {
  readonly mmu: ShadowMmu | undefined;
  readonly second: SecondLevel | undefined;
}

export function hypervisorTables(tables: Tables, memory: WebAssembly.Memory, rt: HelperExports, options: WalkerOptions): HypervisorTables {
  const pool = { memory: memory.buffer, framePoolBase: FRAME_POOL_BASE, gpaToHpa };
  const flushAll = (vcpu: number) => rt.tlbFlushAll(cpuOf(vcpu));
  if (tables === 'guest') return { mmu: undefined, second: undefined };
  if (tables === 'second-level') {
    const flush = () => [0, 1].forEach(flushAll);
    return { mmu: undefined, second: new SecondLevel({ ...pool, framePoolFrames: 64, flush }) };
  }
  const mmu = new ShadowMmu({
    ...pool,
    framePoolFrames: options.poolFrames ?? 96,
    ramBase: RAM_BASE,
    ramBytes: RAM_LOW + RAM_HIGH,
    vcpus: 2,
    prefetch: options.prefetch ?? 8,
    largePages: options.largePages ?? true,
    cachedRoots: options.cachedRoots ?? 16,
    flavour: tables === 'pvm' ? 'pvm' : 'kvm',
    unsync: tables === 'kvm-unsync',
    flush: {
      flushArray: (vcpu, array) => rt.tlbFlushArray(cpuOf(vcpu), array),
      invlpg: (vcpu, array, low, high) => rt.tlbInvlpg(cpuOf(vcpu), array, va64(low, high)),
      flushAll,
    },
  });
  return { mmu, second: undefined };
}

/** State block of a vCPU. */
export function cpuOf(vcpu: number): number {
  return CPU_BASE + vcpu * CPU_STRIDE;
}

export function va64(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}
