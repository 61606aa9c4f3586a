// Imports from TypeScript, module "host". Arguments travel in the state block (S_EXIT_*).

/** A walk failed in a mode where the hypervisor owns the tables. See the `MMU_*` results. */
@external("host", "mmuFault")
export declare function hostMmuFault(cpu: u32): u32;
/** Access to a guest-physical address that is not RAM. `MMU_RAISED` or `MMU_DONE`. */
@external("host", "mmio")
export declare function hostMmio(cpu: u32): u32;
/** A single-stepped store is about to overwrite decoded code: S_EXIT_BLOCK, S_EXIT_SIZE. */
@external("host", "smc")
export declare function hostSmc(cpu: u32): u32;
/** The block whose descriptor is in S_EXIT_BLOCK was entered S_HOT_THRESHOLD times. */
@external("host", "hot")
export declare function hostHot(cpu: u32): void;
/** TSC ticks of the host clock, an integer below 2^53. */
@external("host", "hostTsc")
export declare function hostTsc(): f64;

/** The hypervisor repaired its table: walk again. */
export const MMU_RETRY: u32 = 0;
/** The hypervisor filled S_EXC, S_EXC_ERROR, S_EXC_ADDR. */
export const MMU_RAISED: u32 = 1;
/** The access has been emulated; a loaded value is in S_EXIT_VALUE. */
export const MMU_DONE: u32 = 2;
/** Leave `run` with EXIT_REQUEST at this instruction. */
export const MMU_LEAVE: u32 = 3;
