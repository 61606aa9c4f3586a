import type { CpuCore } from '@pvm/cpu-jit';
import { ACCESS_EXEC, CS, PAGING_SHADOW, S_CODE_SIZE, S_CPL, S_RIP, S_SEG, SEG_BASE, SEG_STRIDE, V_PAGING } from '@pvm/cpu-jit/layout';
import { ShadowMmu } from '@pvm/shadow-mmu';

/**
 * When a guest first changes, by a store, the translation of the page that it runs in. Until it invalidates that or serialises, a processor may go on with the old
 * translation or take the new one at any instruction (SDM vol. 3, 4.10.2.1 and 4.10.5), and tiers differ in when they do.
 */
export class OwnCodeWatch implements Disposable {
  /** Instructions retired before; undefined: it has not. */
  changedAt: number | undefined;
  private readonly original = ShadowMmu.prototype.emulateWrite;

  /** @param instructions retired so far, at least those before the current block */
  constructor(core: CpuCore, instructions: () => bigint) {
    const { original } = this;
    const note = () => {
      this.changedAt ??= Number(instructions());
    };
    ShadowMmu.prototype.emulateWrite = function (hpa, size, source) {
      const before = pages(core, this);
      original.call(this, hpa, size, source);
      if (pages(core, this).some((page, vcpu) => page !== before[vcpu])) note();
    };
  }

  [Symbol.dispose](): void {
    ShadowMmu.prototype.emulateWrite = this.original;
  }
}

/** Where each vCPU runs in RAM, as the guest's tables say now; negative: nowhere. */
function pages(core: CpuCore, mmu: ShadowMmu): number[] {
  return Array.from({ length: core.vcpus }, (_, vcpu) => {
    const cpu = core.cpuAddress(vcpu);
    if (core.u32[(cpu + V_PAGING) >>> 2] !== PAGING_SHADOW) return -1;
    const base = core.u32[(cpu + S_CODE_SIZE) >>> 2] === 64 ? 0n : (core.u64[(cpu + S_SEG + CS * SEG_STRIDE + SEG_BASE) >>> 3] ?? 0n);
    const address = base + (core.u64[(cpu + S_RIP) >>> 3] ?? 0n);
    const user = core.u32[(cpu + S_CPL) >>> 2] === 3 ? 1 : 0;
    return mmu.translate(vcpu, user, Number(address & 0xffff_f000n), Number((address >> 32n) & 0xffff_ffffn), ACCESS_EXEC);
  });
}
