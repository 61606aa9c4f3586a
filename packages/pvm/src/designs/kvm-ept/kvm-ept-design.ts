import type { StateIo } from '@pvm/cpu-jit';
import {
  ACCESS_EXEC,
  ACCESS_IMPLICIT_SUPERVISOR,
  ACCESS_PROBE,
  EPT_QUAL_APIC,
  EPT_QUAL_MISCONFIG,
  EPT_QUAL_PRESENT,
  EPT_QUAL_TABLE,
  PAGING_EPT,
  S_CPL,
  S_EFER,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_QUAL,
  S_EXIT_VA,
  V_APIC_PAGE,
  V_EPT_ROOT,
  V_PAGING,
} from '@pvm/cpu-jit/layout';
import { EPT_R, EPT_W, EPT_X, SECOND_LEVEL_FIXED, SecondLevel } from '@pvm/shadow-mmu';
import type { PageTableCounters } from '../../summary.ts';
import type { DesignContext, DirtyTracking } from '../design.ts';
import { apicAccessPage, VMX_FRAMES } from '../vmx/controls.ts';
import { VmxDesign } from '../vmx/vmx-design.ts';

const PAGE = 4096;
const VECTOR_PF = 14;
/** #PF error code: present, write, user, reserved bit, fetch (SDM vol. 3, 4.7). */
const PF_P = 1;
const PF_W = 2;
const PF_U = 4;
const PF_RSVD = 8;
const PF_I = 16;
const EFER_NXE = 1 << 11;
const APIC_DEFAULT_PAGE = 0xfee0_0000;

/**
 * KVM with two-dimensional paging: the guest keeps its tables, its faults, CR3 and INVLPG to itself, and the CPU translates its physical
 * addresses through a second-level table that EPT violations fill.
 */
export class KvmEptDesign extends VmxDesign {
  readonly name = 'kvm-ept';
  /** The second-level table; its dirty log and statistics are there. */
  readonly table: SecondLevel;
  private readonly exits: ReturnType<KvmEptDesign['internRows']>;

  /** @param shared the second-level table of the machine, made by the object of its first vCPU */
  constructor(context: DesignContext, index = 0, shared?: SecondLevel) {
    super(context, index);
    this.exits = this.internRows();
    this.table = shared ?? secondLevelTable(context);
  }

  private internRows() {
    const row = (reason: string, sub: string) => this.ledger.row(reason, sub);
    return {
      violation: { read: row('EPT_VIOLATION', 'read'), write: row('EPT_VIOLATION', 'write'), fetch: row('EPT_VIOLATION', 'fetch') },
      walk: row('EPT_VIOLATION', 'page walk'),
      mmio: row('EPT_VIOLATION', 'mmio'),
      misconfig: { read: row('EPT_MISCONFIG', 'read'), write: row('EPT_MISCONFIG', 'write'), fetch: row('EPT_MISCONFIG', 'fetch') },
      apic: { read: row('APIC_ACCESS', 'read'), write: row('APIC_ACCESS', 'write'), fetch: row('APIC_ACCESS', 'fetch') },
    };
  }

  protected override programControls(): void {
    super.programControls();
    const { core, vcpu, table } = this;
    vcpu.set32(V_PAGING, PAGING_EPT);
    vcpu.set32(V_EPT_ROOT, table.root);
    vcpu.set32(V_APIC_PAGE, apicAccessPage(core));
    core.tlbFlushAll(this.index);
  }

  /** EPT violation, EPT misconfiguration or APIC access. */
  mmuFault(): 0 | 1 | 2 {
    const start = this.ledger.start();
    const { vcpu, table, exits } = this;
    const access = vcpu.get32(S_EXIT_ACCESS);
    const qualification = vcpu.get32(S_EXIT_QUAL);
    const kind = (access & 3) === ACCESS_EXEC ? 'fetch' : (access & 1) !== 0 ? 'write' : 'read';
    const isTable = (qualification & EPT_QUAL_TABLE) !== 0;
    let row = exits.apic[kind];
    if ((qualification & EPT_QUAL_APIC) === 0) {
      const gpa = Number(vcpu.get64(S_EXIT_GPA));
      const isMisconfig = (qualification & EPT_QUAL_MISCONFIG) !== 0;
      const result = isMisconfig ? table.misconfiguration(gpa) : table.violation(gpa, neededRight(kind, isTable, qualification));
      row = isMisconfig ? exits.misconfig[kind] : isTable ? exits.walk : result === SECOND_LEVEL_FIXED ? exits.violation[kind] : exits.mmio;
      if (result === SECOND_LEVEL_FIXED) {
        this.recordHook(row, start);
        return 0;
      }
    }
    const answer = isTable ? this.raiseTableFault(access) : (access & ACCESS_PROBE) !== 0 ? 2 : this.deviceAccess();
    this.recordHook(row, start);
    return answer;
  }

  /** A paging structure of the guest where there is no RAM reads as all ones: present, with reserved bits. */
  private raiseTableFault(access: number): 1 {
    const { vcpu } = this;
    let error = PF_P | PF_RSVD;
    if ((access & 1) !== 0) error |= PF_W;
    if (vcpu.get32(S_CPL) === 3 && (access & ACCESS_IMPLICIT_SUPERVISOR) === 0) error |= PF_U;
    if ((access & 3) === ACCESS_EXEC && (vcpu.get32(S_EFER) & EFER_NXE) !== 0) error |= PF_I;
    vcpu.set32(S_EXC, VECTOR_PF + 1);
    vcpu.set32(S_EXC_ERROR, error);
    vcpu.copy64(S_EXC_ADDR, S_EXIT_VA);
    return 1;
  }

  /** The APIC page is in the table while the APIC's registers are in memory. */
  protected override writeMsr(): number {
    const before = this.platform.apicPage(this.index);
    const row = super.writeMsr();
    if (this.platform.apicPage(this.index) !== before) this.table.unmap(APIC_DEFAULT_PAGE, PAGE);
    return row;
  }

  override hostWrote(gpa: number, length: number): void {
    this.table.markDirty(gpa, length);
  }

  get dirtyLog(): DirtyTracking {
    const { table } = this;
    return {
      start: (gpa, bytes, kind) => table.startDirtyLog(gpa, bytes, kind),
      take: () => table.takeDirty(),
      stop: () => table.stopDirtyLog(),
    };
  }

  pageTables(): PageTableCounters {
    return { ...this.table.stats() };
  }
  checkMmu(): void {
    this.table.check();
  }
  override shadowPagesBuilt(): number {
    return this.table.stats().tablesBuilt;
  }

  override state(s: StateIo): void {
    super.state(s);
    if (this.index === 0) s.fields(this, ['table']);
  }
}

/** The second-level table of a machine. The APIC page is in it while some vCPU has its APIC registers in memory. */
function secondLevelTable({ core, platform, options }: DesignContext): SecondLevel {
  const apicPage = apicAccessPage(core);
  const vcpus = Array.from({ length: core.vcpus }, (_, v) => v);
  return new SecondLevel({
    memory: core.memory.buffer,
    framePoolBase: core.framePoolBase,
    framePoolFrames: core.framePoolFrames - VMX_FRAMES,
    gpaToHpa: (gpa) => {
      if (gpa < core.ramBytes) return core.ramBase + gpa;
      const isApic = gpa - (gpa % PAGE) === APIC_DEFAULT_PAGE && vcpus.some((v) => platform.apicPage(v) === APIC_DEFAULT_PAGE);
      return isApic ? apicPage : -1;
    },
    flush: () => {
      for (const v of vcpus) core.tlbFlushAll(v);
    },
    largestLevel: options.optimisations['large-pages'] === true ? 3 : 1,
  });
}

/** What the entry lacks. A walk that sets marks in the guest's tables writes them. */
function neededRight(kind: 'read' | 'write' | 'fetch', isTable: boolean, qualification: number): number {
  if (isTable) return (qualification & EPT_QUAL_PRESENT) !== 0 ? EPT_W : EPT_R;
  return kind === 'fetch' ? EPT_X : kind === 'write' ? EPT_W : EPT_R;
}
