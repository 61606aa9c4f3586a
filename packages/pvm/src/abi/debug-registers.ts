import type { Saveable, StateIo } from '@pvm/cpu-jit';
import { S_DR, S_WATCH, V_LEVELS, WATCH_CODE } from '@pvm/cpu-jit/layout';
import { isLegal } from './address-range.ts';
import * as abi from './constants.ts';
import type { PvmVcpu } from './pvm-vcpu.ts';

// SDM vol. 3, 18.2.3 and 18.2.4. There is no general detect.
const DR6_FIXED = 0xffff_0ff0n;
const DR6_WRITABLE = 0xe00fn;
const DR7_FIXED = 0x400n;
const DR7_WRITABLE = 0xffff_03ffn;
const DR6 = S_DR + 8 * 6;

/** The debug registers of a vCPU of a PVM guest, for which the hypervisor does MOV DR. */
export class DebugRegisters implements Saveable {
  private readonly vcpu: PvmVcpu;
  /** DR7 as the guest wrote it; that of the CPU leaves out what is not armed. */
  private control = 0n;

  constructor(vcpu: PvmVcpu) {
    this.vcpu = vcpu;
  }

  /** INIT. */
  init(): void {
    this.control = 0n;
  }

  /** DR0 to DR3, DR6 or DR7 as the guest sees it. */
  read(n: number): bigint {
    if (n === 6) return this.vcpu.get64(DR6) | DR6_FIXED;
    return n === 7 ? this.control | DR7_FIXED : this.vcpu.get64(S_DR + 8 * n);
  }

  /** Breakpoints outside the legal addresses are kept, and never armed. @returns false for #GP */
  write(n: number, value: bigint): boolean {
    if (n >= 6 && value >> 32n !== 0n) return false;
    if (n === 6) this.vcpu.set64(DR6, value & DR6_WRITABLE);
    else if (n === 7) this.control = value & DR7_WRITABLE;
    else this.vcpu.set64(S_DR + 8 * n, value);
    if (n !== 6) this.arm();
    return true;
  }

  private arm(): void {
    const { vcpu } = this;
    let control = this.control | DR7_FIXED;
    for (let n = 0; n < 4; n++) {
      const address = vcpu.get64(S_DR + 8 * n);
      const isLegalAddress = vcpu.isCanonical(address) && isLegal(vcpu.range, Number(address >> 32n), vcpu.get32(V_LEVELS));
      if (!isLegalAddress) control &= ~(3n << BigInt(2 * n));
    }
    vcpu.set64(S_DR + 8 * 7, control);
    vcpu.core.armBreakpoints(vcpu.index);
  }

  /** The instruction at RIP faulted: run again, it does not stop at the breakpoint that it has passed (SDM vol. 3, 18.3.1.1). */
  setResumeFlag(): void {
    if ((this.vcpu.get32(S_WATCH) & WATCH_CODE) !== 0) this.vcpu.rflags |= abi.RFLAGS_RF;
  }

  /** DR6 says that a single step was the cause. */
  noteStep(): void {
    this.vcpu.set32(DR6, this.vcpu.get32(DR6) | abi.DR6_BS);
  }

  state(s: StateIo): void {
    s.fields(this, ['control']);
  }
}
