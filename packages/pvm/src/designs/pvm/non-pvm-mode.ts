import { EXIT_LIMIT, EXIT_PRIVILEGED, EXIT_SYSCALL, NEXT, NEXT_CHECK, S_CODE_SIZE, S_EFER, V_CR0_MASK } from '@pvm/cpu-jit/layout';
import { EFER_LMA } from '../../abi/pvm-vcpu.ts';
import type { DesignContext, ExitOutcome } from '../design.ts';
import { NativeDesign } from '../native/native-design.ts';

const VECTOR_UD = 6;
const CR0_PG = 0x8000_0000;

/**
 * A vCPU before it has reached 64-bit supervisor mode: the CPU runs it with plain x86 semantics, at privilege level 0 on its own page tables. Only
 * turning paging on is watched: from there it is few instructions to 64-bit code, and they are stepped through.
 */
export class NonPvmMode extends NativeDesign {
  readonly name = 'pvm';
  readonly interruptRow = -1;
  readonly timerRow = -1;
  private readonly pagingRow: number;

  constructor(context: Pick<DesignContext, 'core' | 'ledger' | 'platform'>, index: number) {
    super(context, undefined, index);
    this.pagingRow = this.ledger.row('CR_ACCESS', 'MOV CR0');
  }

  protected override programControls(): void {
    super.programControls();
    this.vcpu.set32(V_CR0_MASK, CR0_PG);
  }

  /** The vCPU is about to execute 64-bit code. */
  get isLongMode(): boolean {
    return this.vcpu.get32(S_CODE_SIZE) === 64;
  }

  /** Runs until an exit, or as EXIT_LIMIT until `isLongMode`. */
  override enter(): number {
    while (this.isPagingLongMode) {
      if (this.isLongMode) return EXIT_LIMIT;
      const reason = this.core.step(this.index);
      if (reason !== NEXT && reason !== NEXT_CHECK) return reason;
    }
    return this.core.run(this.index);
  }

  private get isPagingLongMode(): boolean {
    return (this.vcpu.get64(S_EFER) & EFER_LMA) !== 0n;
  }

  /** PVM mode begins: an interrupt that the CPU was about to take goes back to where it came from. */
  leave(): void {
    const vector = this.core.pendingInterrupt(this.index);
    this.core.setInterrupt(this.index, undefined);
    if (vector !== undefined) this.platform.sendInterrupt(this.index, vector);
  }

  /** The MOV to CR0 that changes PG; what only 64-bit code or a hypervisor below would know is undefined. */
  protected override designExit(reason: number, outcome: ExitOutcome): void {
    const insn = this.core.decodeAt(this.index, this.vcpu.rip);
    if (reason === EXIT_PRIVILEGED && typeof insn !== 'string' && insn.row.name === 'mov_cr_r') {
      outcome.row = this.pagingRow;
      this.vcpu.set32(V_CR0_MASK, 0);
      this.core.step(this.index);
      this.vcpu.set32(V_CR0_MASK, CR0_PG);
      return;
    }
    if (reason !== EXIT_PRIVILEGED && reason !== EXIT_SYSCALL) return super.designExit(reason, outcome);
    outcome.row = this.ledger.row('#UD');
    this.core.raise(this.index, VECTOR_UD);
  }

  /** The walker raises #PF by itself. */
  mmuFault(): 1 {
    return 1;
  }
}
