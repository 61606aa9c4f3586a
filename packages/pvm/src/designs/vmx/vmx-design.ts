import type { EventKind } from '@pvm/cpu-jit';
import {
  EXIT_CPUID,
  EXIT_EXCEPTION,
  EXIT_PAUSE,
  EXIT_PRIVILEGED,
  EXIT_SOFT_INT,
  EXIT_VMCALL,
  S_CPL,
  S_CR0,
  S_CR4,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_VALUE,
  V_CR0_FLIP,
  V_CR4_FLIP,
} from '@pvm/cpu-jit/layout';
import { DEBUG_FAULT } from '../../abi/constants.ts';
import { hypercallName } from '../../abi/hypercalls.ts';
import { vectorName } from '../../abi/vectors.ts';
import { kvmHypercall } from '../../kvm-pv/hypercalls.ts';
import { RAX } from '../../vcpu-state.ts';
import { type DesignContext, type ExitOutcome, TripleFault } from '../design.ts';
import { NativeDesign } from '../native/native-design.ts';
import { programControls } from './controls.ts';

const VECTOR_DB = 1;
const VECTOR_UD = 6;
const VECTOR_GP = 13;
/** Bits that a VMX host keeps set whatever its guest wants (SDM vol. 3, 24.8): CR0.NE and, while Linux runs on the host, CR4.MCE. */
const CR0_NE = 1n << 5n;
const CR4_MCE = 1n << 6n;
const CR0_TS = 1n << 3n;

/**
 * Base of the designs that are a KVM on VMX: the exits of a host that virtualises neither APIC registers nor interrupts, by the names
 * of Linux' vmx.h. How the guest's memory is translated is up to the design.
 */
export abstract class VmxDesign extends NativeDesign {
  readonly interruptRow: number;
  readonly timerRow: number;
  /** Bits of CR4 that this host cannot give its guest, nor does CPUID offer what they are for. */
  protected readonly refusedCr4: bigint = 0n;
  private readonly hypercalls = new Map<number, number>();
  private readonly row: (reason: string, sub?: string) => number;

  constructor(context: DesignContext, index = 0) {
    super(context, undefined, index);
    this.row = (reason, sub = '') => this.ledger.row(reason, sub);
    this.interruptRow = this.row('EXTERNAL_INTERRUPT');
    this.timerRow = this.row('EXTERNAL_INTERRUPT', 'timer');
  }

  protected override programControls(): void {
    const { core, vcpu } = this;
    programControls(core, vcpu);
    this.setFixed(S_CR0, V_CR0_FLIP, CR0_NE, vcpu.get64(S_CR0));
    this.setFixed(S_CR4, V_CR4_FLIP, CR4_MCE, vcpu.get64(S_CR4));
  }

  /** A control register with a bit that the host keeps set, and its read shadow. */
  private setFixed(register: number, flip: number, fixed: bigint, visible: bigint): void {
    this.vcpu.set64(register, visible | fixed);
    this.vcpu.set32(flip, Number(fixed & ~visible));
  }

  protected override designExit(reason: number, outcome: ExitOutcome): void {
    switch (reason) {
      case EXIT_CPUID:
        outcome.row = this.numberedRow(['CPUID', ''], this.vcpu.reg32(RAX));
        this.core.cpuid(this.index);
        return;
      case EXIT_VMCALL:
        outcome.row = this.hypercall();
        return;
      case EXIT_PRIVILEGED:
        outcome.row = this.privileged();
        return;
      case EXIT_EXCEPTION:
        outcome.row = this.exception();
        return;
      case EXIT_SOFT_INT:
        // Of those only INT1 is an exception of the bitmap.
        outcome.row = this.reflect(VECTOR_DB, 'icebp', 0);
        return;
      case EXIT_PAUSE:
        outcome.row = this.row('PAUSE_INSTRUCTION');
        return;
      default:
        super.designExit(reason, outcome);
    }
  }

  protected override cpuDoesMsr(reason: number): boolean {
    return this.core.doMsr(this.index, reason);
  }

  /** An exception of the bitmap goes back to the guest. @throws TripleFault */
  private exception(): number {
    const { vcpu } = this;
    const vector = vcpu.get32(S_EXC) - 1;
    const error = vcpu.get32(S_EXC_ERROR);
    return this.reflect(vector, vector === VECTOR_DB && error !== DEBUG_FAULT ? 'trap' : 'fault', error);
  }

  /** @throws TripleFault */
  private reflect(vector: number, kind: EventKind, error: number): number {
    if (!this.core.inject(this.index, vector, kind, error))
      throw new TripleFault(`${vectorName(vector)} could not be delivered, nor the double fault after it`);
    return this.row('EXCEPTION_NMI', vectorName(vector));
  }

  /** The instruction at RIP that the controls take away from the guest. @returns its row. @throws TripleFault */
  protected privileged(): number {
    const { vcpu, core } = this;
    const insn = core.decodeAt(this.index, vcpu.rip);
    if (typeof insn === 'string') throw new TripleFault(`exit at an instruction that cannot be decoded (${insn})`);
    const { name } = insn.row;
    switch (name) {
      case 'mov_cr_r':
        this.writeControl(insn.reg, vcpu.get64(S_EXIT_VALUE));
        return this.row('CR_ACCESS', `MOV CR${insn.reg}`);
      case 'lmsw':
        this.writeControl(0, vcpu.get64(S_EXIT_VALUE));
        return this.row('CR_ACCESS', 'LMSW');
      case 'clts':
        this.writeControl(0, (vcpu.get64(S_CR0) ^ BigInt(vcpu.get32(V_CR0_FLIP))) & ~CR0_TS);
        return this.row('CR_ACCESS', 'CLTS');
      case 'xsetbv':
        core.xsetbv(this.index);
        return this.row('XSETBV');
      case 'invd':
      case 'wbinvd':
        core.complete(this.index);
        return this.row(name.toUpperCase());
      case 'monitor':
      case 'mwait':
        return this.monitor(name);
      case 'rdpmc':
        core.raise(this.index, VECTOR_GP);
        return this.row('RDPMC');
      case 'vmmcall':
        // AMD's instruction, which KVM takes as well.
        this.hypercall();
        return this.row('VMCALL', 'VMMCALL');
      default:
        throw new TripleFault(`exit at ${name}, which the CPU should have done itself`);
    }
  }

  /** CR0 or CR4 := `visible`; what the guest may not have becomes #GP, and the read shadow stays. */
  private writeControl(n: number, visible: bigint): void {
    if (n === 4 && (visible & this.refusedCr4) !== 0n) {
      this.core.raise(this.index, VECTOR_GP);
      return;
    }
    const [register, flip, fixed] = n === 0 ? ([S_CR0, V_CR0_FLIP, CR0_NE] as const) : ([S_CR4, V_CR4_FLIP, CR4_MCE] as const);
    this.core.writeControl(this.index, register, visible | fixed);
    if (this.vcpu.get32(S_EXC) === 0) this.vcpu.set32(flip, Number(fixed & ~visible));
  }

  /** CPUID has no MONITOR; KVM does nothing all the same, for guests that do not look. */
  private monitor(name: 'monitor' | 'mwait'): number {
    if (this.vcpu.get32(S_CPL) === 0) this.core.complete(this.index);
    else this.core.raise(this.index, VECTOR_UD);
    return this.row(`${name.toUpperCase()}_INSTRUCTION`);
  }

  /** @returns the row of the hypercall */
  private hypercall(): number {
    const { vcpu, core } = this;
    const number = vcpu.reg32(RAX);
    kvmHypercall(vcpu, this.platform.kvm);
    core.complete(this.index);
    let row = this.hypercalls.get(number);
    if (row === undefined) {
      row = this.row('VMCALL', hypercallName(number));
      if (this.hypercalls.size < 64) this.hypercalls.set(number, row);
    }
    return row;
  }
}
