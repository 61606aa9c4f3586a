/** Name of the function that enters region `i` of a module at its start (0) or at its entry `entry` - 1. */
export function functionName(i: number, entry: number): string {
  return entry === 0 ? `r${i}` : `r${i}_${entry}`;
}

/** Name of the i32 of a module that says where region `i` counts its entries: the address of the descriptor of its first block. */
export function counterName(i: number): string {
  return `c${i}`;
}
