import { S_CR0, S_CR4, S_EFER } from '@pvm/cpu-jit/layout';
import { MODE_32BIT, MODE_LA57, MODE_NO_PAGING, MODE_NO_WP, MODE_NX, MODE_PAE, MODE_PSE, MODE_SMAP, MODE_SMEP } from '@pvm/shadow-mmu';
import type { VcpuState } from '../../vcpu-state.ts';

// SDM vol. 3, 2.5 and 2.2.1.
const CR0_WP = 1 << 16;
const CR0_PG = 1 << 31;
const CR4_PSE = 1 << 4;
const CR4_PAE = 1 << 5;
const CR4_LA57 = 1 << 12;
const CR4_SMEP = 1 << 20;
const CR4_SMAP = 1 << 21;
const EFER_LMA = 1 << 10;
const EFER_NXE = 1 << 11;

/** The guest's paging mode (SDM vol. 3, 5.1) in the terms of the shadow MMU: MODE_*. */
export function pagingMode(vcpu: VcpuState): number {
  const cr0 = vcpu.get32(S_CR0);
  const cr4 = vcpu.get32(S_CR4);
  const efer = vcpu.get32(S_EFER);
  if ((cr0 & CR0_PG) === 0) return MODE_NO_PAGING;
  let mode = (cr0 & CR0_WP) === 0 ? MODE_NO_WP : 0;
  if ((cr4 & CR4_SMEP) !== 0) mode |= MODE_SMEP;
  if ((cr4 & CR4_SMAP) !== 0) mode |= MODE_SMAP;
  if ((cr4 & CR4_PAE) === 0) return mode | MODE_32BIT | ((cr4 & CR4_PSE) !== 0 ? MODE_PSE : 0);
  if ((efer & EFER_NXE) !== 0) mode |= MODE_NX;
  if ((efer & EFER_LMA) === 0) return mode | MODE_PAE;
  return mode | ((cr4 & CR4_LA57) !== 0 ? MODE_LA57 : 0);
}
