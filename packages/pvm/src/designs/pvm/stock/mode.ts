import type { CpuCore } from '@pvm/cpu-jit';
import {
  INTERCEPT_CR,
  INTERCEPT_CR3_LOAD,
  INTERCEPT_CR8,
  INTERCEPT_ENTRY,
  INTERCEPT_INVLPG,
  INTERCEPT_MSR,
  INTERCEPT_PRIVILEGED,
  INTERCEPT_RETURN,
  INTERCEPT_SENSITIVE,
  MAXPHYADDR,
  P_KERNEL_ROOT,
  P_KERNEL_TLB,
  P_USER_ROOT,
  P_USER_TLB,
  PAGING_GUEST,
  PAGING_SHADOW,
  S_CR0,
  S_CR3,
  S_CR4,
  S_EFER,
  TLB_ARRAY_SIZE,
  TLB_BASE,
  TLB_CPU_SIZE,
  V_CR0_MASK,
  V_CR4_MASK,
  V_DEPRIVILEGED,
  V_EXC_BITMAP,
  V_INTERCEPTS,
  V_LEVELS,
  V_PAGING,
} from '@pvm/cpu-jit/layout';
import { MODE_LA57, MODE_NO_WP, MODE_NX, MODE_SMEP, type ShadowMmu } from '@pvm/shadow-mmu';
import type { StockChoice } from '../../../options.ts';
import type { VcpuState } from '../../../vcpu-state.ts';
import { createShadowMmu } from '../../shadow.ts';

// SDM vol. 3, 2.5 and 2.2.1.
const CR0_PG = 0x8000_0000;
const CR0_WP = 1n << 16n;
const CR3_ADDRESS = 0x000f_ffff_ffff_f000n;
const CR3_NO_FLUSH = 1n << 63n;
const CR4_LA57 = 1n << 12n;
const CR4_PCIDE = 1n << 17n;
const CR4_SMEP = 1n << 20n;
/** SMAP and PKE: accesses at privilege level 3 know no such checks, and CPUID does not offer them. */
const CR4_REFUSED = (1n << 21n) | (1n << 22n);
const EFER_LMA = 1n << 10n;
const EFER_NXE = 1n << 11n;

/** What leaves in both forms; `trap` adds what kernels do all the time. */
const INTERCEPTS_AUTO = INTERCEPT_PRIVILEGED | INTERCEPT_INVLPG | INTERCEPT_MSR | INTERCEPT_CR3_LOAD | INTERCEPT_CR8 | INTERCEPT_ENTRY;
const INTERCEPTS_TRAP = INTERCEPTS_AUTO | INTERCEPT_CR | INTERCEPT_SENSITIVE | INTERCEPT_RETURN;

/** The shadow MMU of a machine, and the modes of its vCPUs. */
export class StockShadow {
  readonly mmu: ShadowMmu;
  private readonly modes: StockMode[] = [];

  constructor(core: CpuCore) {
    this.mmu = createShadowMmu(core);
  }

  add(mode: StockMode): void {
    this.modes.push(mode);
  }

  /** All vCPUs that run are on shadow tables. */
  get isComplete(): boolean {
    return this.modes.every((mode) => mode.isDeprivileged || !mode.isStarted());
  }

  /** `mode` was on a plain CPU, where what the guest wrote to its tables was not seen: shadowing starts anew, for all vCPUs. */
  restart(mode: StockMode): void {
    this.mmu.reset();
    for (const other of this.modes) if (other !== mode && other.isDeprivileged) other.loadTables();
  }
}

/**
 * The two modes of an unmodified guest: deprivileged on shadow tables while it is in long mode, and on a plain CPU otherwise ("non-PVM mode"). Programs the
 * control block for them, and loads page tables.
 */
export class StockMode {
  readonly mmu: ShadowMmu;
  private readonly shadow: StockShadow;
  private readonly core: CpuCore;
  private readonly vcpu: VcpuState;
  private readonly intercepts: number;
  readonly isStarted: () => boolean;

  /** @param isStarted the vCPU does not wait for another to start it */
  constructor(core: CpuCore, vcpu: VcpuState, form: StockChoice, shadow: StockShadow, isStarted: () => boolean) {
    this.core = core;
    this.vcpu = vcpu;
    this.intercepts = form === 'trap' ? INTERCEPTS_TRAP : INTERCEPTS_AUTO;
    this.mmu = shadow.mmu;
    this.isStarted = isStarted;
    this.shadow = shadow;
    shadow.add(this);
  }

  get isDeprivileged(): boolean {
    return this.vcpu.get32(V_DEPRIVILEGED) !== 0;
  }

  /** After CR0, CR4 or EFER changed. */
  update(): void {
    const { vcpu } = this;
    if ((vcpu.get64(S_EFER) & EFER_LMA) !== 0n) this.deprivilege();
    else if (this.isDeprivileged || vcpu.get32(V_CR0_MASK) === 0) this.release();
  }

  private deprivilege(): void {
    const { vcpu } = this;
    if (!this.isDeprivileged) {
      this.shadow.restart(this);
      vcpu.set32(V_DEPRIVILEGED, 1);
      vcpu.set32(V_PAGING, PAGING_SHADOW);
      vcpu.set32(V_EXC_BITMAP, -1);
      vcpu.set32(V_INTERCEPTS, this.intercepts);
      vcpu.set32(V_CR0_MASK, -1);
      vcpu.set32(V_CR4_MASK, -1);
    }
    this.loadTables();
  }

  private release(): void {
    const { vcpu } = this;
    vcpu.set32(V_DEPRIVILEGED, 0);
    vcpu.set32(V_PAGING, PAGING_GUEST);
    vcpu.set32(V_EXC_BITMAP, 0);
    vcpu.set32(V_INTERCEPTS, INTERCEPT_CR8);
    vcpu.set32(V_CR0_MASK, CR0_PG);
    vcpu.set32(V_CR4_MASK, 0);
    this.core.modeChanged(vcpu.index);
  }

  /** MOV to CR3. @returns false for #GP(0) */
  loadCr3(value: bigint): boolean {
    const { vcpu } = this;
    const wanted = (vcpu.get64(S_CR4) & CR4_PCIDE) !== 0n ? value & ~CR3_NO_FLUSH : value;
    if (wanted >> BigInt(MAXPHYADDR) !== 0n) return false;
    vcpu.set64(S_CR3, wanted);
    this.loadTables();
    return true;
  }

  /** Whether a MOV to CR4 asks for nothing that this guest cannot have. */
  permitsCr4(value: bigint): boolean {
    return !this.isDeprivileged || (value & CR4_REFUSED) === 0n;
  }

  /** A root already shadowed is only switched to; PCIDs and cache bits of CR3 do not name another table. */
  loadTables(): void {
    const { vcpu, mmu } = this;
    const cr4 = vcpu.get64(S_CR4);
    const mode =
      ((cr4 & CR4_LA57) !== 0n ? MODE_LA57 : 0) |
      ((vcpu.get64(S_EFER) & EFER_NXE) !== 0n ? MODE_NX : 0) |
      ((cr4 & CR4_SMEP) !== 0n ? MODE_SMEP : 0) |
      ((vcpu.get64(S_CR0) & CR0_WP) === 0n ? MODE_NO_WP : 0);
    const root = Number(vcpu.get64(S_CR3) & CR3_ADDRESS);
    const slot = mmu.load(vcpu.index, root, root, mode, true);
    vcpu.set32(V_LEVELS, mmu.levels(vcpu.index));
    vcpu.set32(P_KERNEL_ROOT, mmu.kernelRoot(vcpu.index));
    vcpu.set32(P_USER_ROOT, mmu.userRoot(vcpu.index));
    const arrays = TLB_BASE + TLB_CPU_SIZE * vcpu.index;
    vcpu.set32(P_KERNEL_TLB, arrays + 2 * slot * TLB_ARRAY_SIZE);
    vcpu.set32(P_USER_TLB, arrays + (2 * slot + 1) * TLB_ARRAY_SIZE);
    this.core.selectSlot(vcpu.index, slot);
  }

  /** Whether returns to user mode come to the hypervisor: an event waits, or there is work to do on the way. */
  interceptReturns(on: boolean): void {
    if (this.isDeprivileged) this.vcpu.set32(V_INTERCEPTS, on ? this.intercepts | INTERCEPT_RETURN : this.intercepts);
  }

  describe(): string {
    const { vcpu } = this;
    return this.isDeprivileged ? `deprivileged, cr3 ${vcpu.get64(S_CR3).toString(16)}` : `non-PVM mode, cr0 ${vcpu.get64(S_CR0).toString(16)}`;
  }
}
