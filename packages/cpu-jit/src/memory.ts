import type { CpuOptions } from './cpu-options.ts';
import { CpuError } from './errors.ts';
import { CPU_BASE, CPU_STRIDE, FRAME_POOL_BASE, MAX_VCPUS } from './layout.ts';

const PAGE = 4096;

/** The memory itself, allocated, and where vCPUs have their state blocks in it. */
export abstract class LinearMemory {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly u64: BigUint64Array;
  readonly view: DataView;
  /** HPA of guest-physical address 0. */
  readonly ramBase: number;
  readonly ramBytes: number;
  readonly framePoolBase = FRAME_POOL_BASE;
  readonly framePoolFrames: number;
  readonly vcpus: number;

  /** @throws CpuError `bad-option` */
  constructor(options: CpuOptions) {
    const { ramBytes, framePoolBytes = 16 << 20, vcpus = 1 } = options;
    if (!Number.isInteger(ramBytes / PAGE) || ramBytes <= 0 || ramBytes > 3.5 * 2 ** 30) {
      throw new CpuError('bad-option', `ramBytes must be a multiple of 4096 up to 3.5 GiB, got ${ramBytes}`);
    }
    if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) throw new CpuError('bad-option', `vcpus must be 1 to ${MAX_VCPUS}, got ${vcpus}`);
    this.vcpus = vcpus;
    this.framePoolFrames = Math.ceil(framePoolBytes / PAGE);
    this.ramBase = FRAME_POOL_BASE + this.framePoolFrames * PAGE;
    this.ramBytes = ramBytes;
    const pages = Math.ceil((this.ramBase + ramBytes) / 65536) + 1;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
    const buffer = this.memory.buffer;
    this.u8 = new Uint8Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.view = new DataView(buffer);
  }

  /** Address of the state block of a vCPU. */
  cpuAddress(vcpu: number): number {
    return CPU_BASE + vcpu * CPU_STRIDE;
  }

  protected setU64(at: number, v: bigint): void {
    this.u64[at >>> 3] = v;
  }

  protected getU64(at: number): bigint {
    return this.u64[at >>> 3] ?? 0n;
  }

  /** Adds a small number to a 64-bit field, without making a bigint. */
  protected add64(at: number, n: number): void {
    const word = at >>> 2;
    const low = (this.u32[word] ?? 0) + n;
    this.u32[word] = low;
    if (low > 0xffff_ffff) this.u32[word + 1] = (this.u32[word + 1] ?? 0) + 1;
  }
}

/** Views of the shared linear memory, and where the variable parts of it begin. */
export type MemoryLayout = Pick<LinearMemory, 'memory' | 'u8' | 'u32' | 'i32' | 'u64' | 'view' | 'ramBase' | 'ramBytes' | 'framePoolBase' | 'framePoolFrames'>;
