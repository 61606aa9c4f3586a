import type { StateIo } from '@pvm/cpu-jit';
import type { EntryState } from '@pvm/machine';
import type { PageTableCounters } from '../summary.ts';
import type { Design, DesignContext, DirectSwitches, DirtyTracking, ExitOutcome } from './design.ts';

/**
 * The design of a machine whose objects each drive one vCPU.
 * @param make the object of a vCPU; `first` is that of the boot vCPU, which has what is the machine's
 */
export function perVcpu<D extends Design>({ core }: DesignContext, make: (index: number, first?: D) => D): Design {
  const first = make(0);
  if (core.vcpus === 1) return first;
  return new PerVcpuDesign([first, ...Array.from({ length: core.vcpus - 1 }, (_, i) => make(i + 1, first))]);
}

/** Passes on to the object of a vCPU what concerns it, and to that of the boot vCPU what concerns the machine. */
class PerVcpuDesign implements Design {
  readonly name: string;
  readonly form?: string;
  readonly interruptRow: number;
  readonly timerRow: number;
  readonly pageTables?: () => PageTableCounters;
  readonly checkMmu?: () => void;
  readonly dirtyLog?: DirtyTracking;
  private readonly first: Design;
  private readonly vcpus: readonly Design[];

  constructor(vcpus: readonly [Design, ...Design[]]) {
    const [first] = vcpus;
    this.first = first;
    this.vcpus = vcpus;
    this.name = first.name;
    if (first.form !== undefined) this.form = first.form;
    this.interruptRow = first.interruptRow;
    this.timerRow = first.timerRow;
    if (first.pageTables !== undefined) this.pageTables = () => first.pageTables?.() ?? {};
    if (first.dirtyLog !== undefined) this.dirtyLog = first.dirtyLog;
    if (first.checkMmu !== undefined) this.checkMmu = () => first.checkMmu?.();
  }

  private of(vcpu: number): Design {
    const design = this.vcpus[vcpu];
    if (design === undefined) throw new RangeError(`no vCPU ${vcpu}`);
    return design;
  }

  boot(entry: EntryState): void {
    this.first.boot(entry);
  }
  prepareEntry(vcpu: number): boolean {
    return this.of(vcpu).prepareEntry(vcpu);
  }
  enter(vcpu: number): number {
    return this.of(vcpu).enter(vcpu);
  }
  handleExit(vcpu: number, reason: number, outcome: ExitOutcome): void {
    this.of(vcpu).handleExit(vcpu, reason, outcome);
  }
  mmuFault(vcpu: number): 0 | 1 | 2 | 3 {
    return this.of(vcpu).mmuFault(vcpu);
  }
  mmio(vcpu: number): 1 | 2 {
    return this.of(vcpu).mmio(vcpu);
  }
  hostWrote(gpa: number, length: number): void {
    this.first.hostWrote(gpa, length);
  }
  exitStart(vcpu: number, reason: number): number {
    return this.of(vcpu).exitStart(vcpu, reason);
  }
  injectInterrupt(vcpu: number, vector: number): void {
    this.of(vcpu).injectInterrupt(vcpu, vector);
  }
  injectNmi(vcpu: number): void {
    this.of(vcpu).injectNmi(vcpu);
  }
  halted(vcpu: number): 'no' | 'wakeable' | 'dead' {
    return this.of(vcpu).halted(vcpu);
  }
  turnBegins(vcpu: number, ns: number): void {
    this.of(vcpu).turnBegins?.(vcpu, ns);
  }
  turnEnds(vcpu: number): void {
    this.of(vcpu).turnEnds?.(vcpu);
  }
  describe(vcpu: number): string[] {
    return this.of(vcpu).describe(vcpu);
  }
  directSwitches(): DirectSwitches {
    const all = this.vcpus.map((design) => design.directSwitches());
    const sum = (count: (switches: DirectSwitches) => number) => all.reduce((n, switches) => n + count(switches), 0);
    return { syscalls: sum((s) => s.syscalls), returns: sum((s) => s.returns) };
  }
  shadowPagesBuilt(): number {
    return this.first.shadowPagesBuilt();
  }

  state(s: StateIo): void {
    s.fields(this, ['vcpus']);
  }
}
