import { EVENT_KINDS, type EventKind } from './cpu-options.ts';
import {
  ACCESS_READ,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  EXIT_SHUTDOWN,
  INTERCEPT_MSR,
  S_EXIT_ACCESS,
  S_EXIT_INSN_LEN,
  S_EXIT_VALUE,
  S_ICOUNT,
  S_RFLAGS,
  S_RIP,
  V_INTERCEPTS,
} from './layout.ts';
import { VcpuState } from './vcpu-state.ts';

const RFLAGS_TF = 1 << 8;

/** What a hypervisor does after an exit: finish the instruction, inject an event. */
export abstract class VcpuExits extends VcpuState {
  /** After an exit with RIP at an instruction that TypeScript has done: RIP after it, and it counts as retired. */
  complete(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.add64(cpu + S_RIP, this.u32[(cpu + S_EXIT_INSN_LEN) >>> 2] ?? 0);
    if (this.codeSize(cpu) !== 64) this.u32[((cpu + S_RIP) >>> 2) + 1] = 0;
    this.add64(cpu + S_ICOUNT, 1);
    if (((this.u32[(cpu + S_RFLAGS) >>> 2] ?? 0) & RFLAGS_TF) !== 0) this.runtime.debug_completed(cpu);
  }

  /** After EXIT_IO: finishes the instruction; `value` is what IN or INS read. */
  completeIo(vcpu: number, value = 0): void {
    const cpu = this.cpuAddress(vcpu);
    if (this.u32[(cpu + S_EXIT_ACCESS) >>> 2] === ACCESS_READ) this.setU64(cpu + S_EXIT_VALUE, BigInt(value >>> 0));
    this.runtime.io_complete(cpu);
  }

  /**
   * Event injection: delivers `vector` through the guest's IDT now, whatever the control block intercepts; what the guest's own tables forbid on the
   * way is delivered instead. `software`: INT n at RIP. @returns false when the guest cannot take it (triple fault)
   */
  inject(vcpu: number, vector: number, kind: EventKind, error = 0): boolean {
    return this.runtime.inject(this.cpuAddress(vcpu), vector, EVENT_KINDS.indexOf(kind), error) >>> 0 !== EXIT_SHUTDOWN;
  }

  /** After EXIT_CPUID: does the instruction with the CPU's own table of answers. */
  cpuid(vcpu: number): void {
    this.runtime.cpuid(this.cpuAddress(vcpu));
    this.complete(vcpu);
  }

  /** After EXIT_PRIVILEGED at a MOV to CR, CLTS or LMSW: finishes it with `value` in S_CR0, S_CR3 or S_CR4; what the CPU refuses becomes #GP. */
  writeControl(vcpu: number, register: number, value: bigint): void {
    this.runtime.write_cr(this.cpuAddress(vcpu), register, value);
  }

  /** After EXIT_MSR_READ or EXIT_MSR_WRITE: lets the CPU do it although it is intercepted. @returns false: it does not know the MSR */
  doMsr(vcpu: number, reason: number): boolean {
    const cpu = this.cpuAddress(vcpu);
    const at = (cpu + V_INTERCEPTS) >>> 2;
    const intercepts = this.u32[at] ?? 0;
    this.u32[at] = intercepts & ~INTERCEPT_MSR;
    const result = (reason === EXIT_MSR_READ ? this.runtime.sys_rdmsr(cpu) : this.runtime.sys_wrmsr(cpu)) >>> 0;
    this.u32[at] = intercepts;
    return result !== EXIT_MSR_READ && result !== EXIT_MSR_WRITE;
  }

  /** After EXIT_PRIVILEGED at XSETBV: does it. */
  xsetbv(vcpu: number): void {
    this.runtime.sys_xsetbv(this.cpuAddress(vcpu));
  }

  /** Does the SYSCALL that left with EXIT_SYSCALL as a CPU by itself does; NEXT_CHECK, or EXIT_EXCEPTION with S_EXC set. */
  syscall(vcpu: number): number {
    return this.runtime.syscall_native(this.cpuAddress(vcpu)) >>> 0;
  }
}
