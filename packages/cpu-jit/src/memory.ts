/** Views of the shared linear memory, and where the variable parts of it begin. */
export interface MemoryLayout {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly u64: BigUint64Array;
  readonly view: DataView;
  /** HPA of guest-physical address 0. */
  readonly ramBase: number;
  readonly ramBytes: number;
  readonly framePoolBase: number;
  readonly framePoolFrames: number;
}
