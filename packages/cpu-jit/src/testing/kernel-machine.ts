/** A CPU at the first instruction of a flat 64-bit kernel, for tests of what leaves the guest. */
import { CpuCore } from '../cpu.ts';
import { S_EFER, S_HOT_THRESHOLD } from '../layout.ts';

export const CODE = 0x8000;
export const GDT = 0x9000;
export const STACK = 0xa000;
export const PML4 = 0x1000;
export const HLT = 0xf4;
/** Kernel and user code and data of 64 bits: selectors 8, 0x10, 0x18, 0x20. */
const DESCRIPTORS = [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00cf_f300_0000_ffffn, 0x00af_fb00_0000_ffffn];

export class KernelMachine {
  readonly core: CpuCore;
  private readonly base: number;

  private constructor(core: CpuCore) {
    this.core = core;
    this.base = core.cpuAddress(0);
  }

  /** CPL 0 with RSP at a stack that holds an IRET frame to the HLT after the code, at CPL 0; 2 MiB are mapped at their own addresses. */
  static async create(code: readonly number[], jit: 'off' | 'sync' = 'off'): Promise<KernelMachine> {
    const core = await CpuCore.create({ ramBytes: 8 << 20, jit });
    const machine = new KernelMachine(core);
    machine.put(PML4, 0x2007n);
    machine.put(0x2000, 0x3007n);
    machine.put(0x3000, 0x87n);
    DESCRIPTORS.forEach((d, i) => {
      machine.put(GDT + 8 * i, d);
    });
    core.u8.set([...code, HLT], core.ramBase + CODE);
    core.enterFlat(0, 'long', {
      rip: BigInt(CODE),
      rsp: BigInt(STACK),
      cr3: BigInt(PML4),
      codeSelector: 8,
      dataSelector: 0x10,
      gdt: { base: BigInt(GDT), limit: 39 },
    });
    machine.field(S_EFER, machine.field(S_EFER) | 1);
    if (jit === 'sync') machine.field(S_HOT_THRESHOLD, 1);
    [BigInt(CODE + code.length), 8n, 2n, BigInt(STACK), 0x10n].forEach((word, i) => {
      machine.put(STACK + 8 * i, word);
    });
    return machine;
  }

  /** Guest memory. */
  put(at: number, value: bigint): void {
    this.core.view.setBigUint64(this.core.ramBase + at, value, true);
  }
  /** 32 bits of the vCPU's state block, set first when `value` is given. */
  field(offset: number, value?: number): number {
    if (value !== undefined) this.core.u32[(this.base + offset) >>> 2] = value;
    return this.core.u32[(this.base + offset) >>> 2] ?? 0;
  }
}
