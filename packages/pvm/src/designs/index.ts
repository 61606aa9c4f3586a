import { bare } from './bare/bare-design.ts';
import type { DesignInfo } from './design.ts';
import { kvmEpt } from './kvm-ept/index.ts';
import { kvmSpt } from './kvm-spt/index.ts';
import { pvm } from './pvm/index.ts';

/** Every virtualisation design, by the name that selects it. */
export const DESIGNS = { bare, 'kvm-ept': kvmEpt, 'kvm-spt': kvmSpt, pvm } as const satisfies Readonly<Record<string, DesignInfo>>;

export type DesignName = keyof typeof DESIGNS;
export const DESIGN_NAMES = Object.keys(DESIGNS) as readonly DesignName[];

/** The registry's entry. */
export function designInfo(name: DesignName): DesignInfo {
  return DESIGNS[name];
}
