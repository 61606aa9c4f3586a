/**
 * The shadow MMU: page tables a guest never sees, kept in step with the ones it writes.
 *
 * `ShadowMmu` is the whole public interface; see its docstring for the contract with the run loop.
 */
export * from './api.ts';
export type { DirtyLogKind } from './dirty-log.ts';
export { GuestWalk } from './guest-walk.ts';
export * from './second-level.ts';
export { EPT_R, EPT_RWX, EPT_W, EPT_X } from './second-level-entry.ts';
export { ShadowMmu } from './shadow-mmu.ts';
