import type { Insn } from '@pvm/cpu-jit';
import type { ExitLedger } from '../../../ledger.ts';
import type { StockChoice } from '../../../options.ts';
import type { ExitNames } from '../../native/native-design.ts';

/** What the report says of them. */
export const FORMS: Readonly<Record<StockChoice, string>> = {
  trap: 'unmodified kernel, its privileged instructions trap one by one (--stock=trap)',
  auto: 'unmodified kernel, its privileged instructions translated into hypercalls and direct switches (--stock=auto)',
};

/** Each instruction with a number of its own is a reason: the ledger bounds the rows of one. */
const COMMON = {
  in: ['#GP IN', ''],
  out: ['#GP OUT', ''],
  taskPriority: ['#GP', 'MOV to CR8'],
  mmioRead: ['#PF', 'mmio read'],
  mmioWrite: ['#PF', 'mmio write'],
} as const;

/** Names of the exits that every native guest has. */
export const EXIT_NAMES: Readonly<Record<StockChoice, ExitNames>> = {
  trap: { ...COMMON, hlt: ['#GP', 'HLT'], window: ['INTERRUPT_WINDOW', ''], readMsr: ['#GP RDMSR', ''], writeMsr: ['#GP WRMSR', ''] },
  auto: { ...COMMON, hlt: ['HYPERCALL', 'IRQ_HALT'], window: ['HYPERCALL', 'IRQ_WIN'], readMsr: ['HYPERCALL', 'RDMSR '], writeMsr: ['HYPERCALL', 'WRMSR '] },
};

/** What an exit at an instruction is called where its decoder row says it badly. */
const MNEMONICS: Readonly<Record<string, string>> = {
  mov_seg_r: 'MOV to segment register',
  pop_seg: 'POP segment register',
  jmpf: 'JMP far',
  callf: 'CALL far',
  retf: 'RET far',
};
function mnemonic(insn: Insn): string {
  const { name } = insn.row;
  switch (name) {
    case 'mov_cr_r':
      return `MOV to CR${insn.reg}`;
    case 'mov_r_cr':
      return `MOV from CR${insn.reg}`;
    case 'mov_dr_r':
      return `MOV to DR${insn.reg}`;
    case 'mov_r_dr':
      return `MOV from DR${insn.reg}`;
    default:
      return MNEMONICS[name] ?? name.toUpperCase();
  }
}

/** Returns to the guest's user mode. */
const RETURNS: ReadonlySet<string> = new Set(['iret', 'retf', 'sysret', 'sysexit']);
/** Hypercall that stands for an instruction, by decoder row; MOV to CR is not so simple. */
const HYPERCALLS: Readonly<Record<string, string>> = { invlpg: 'TLB_INVLPG' };
/** INVPCID by type (SDM vol. 2). */
const INVPCID_CALLS = ['TLB_INVLPG', 'TLB_FLUSH_CURRENT', 'TLB_FLUSH', 'TLB_FLUSH'];

/** Ledger rows of the exits at privileged instructions. */
export class PrivilegedRows {
  private readonly ledger: ExitLedger;
  private readonly form: StockChoice;
  private readonly known = new Map<string, number>();

  constructor(ledger: ExitLedger, form: StockChoice) {
    this.ledger = ledger;
    this.form = form;
  }

  /** @param flushes MOV to CR4 that only clears PGE; `operand` the type of INVPCID */
  of(insn: Insn, flushes: boolean, operand: bigint): number {
    const { name } = insn.row;
    if (this.form === 'auto') {
      if (RETURNS.has(name)) return this.row('ERETU', '');
      if (name === 'sysenter') return this.row('SYSENTER', '');
      const call = name === 'mov_cr_r' ? (insn.reg === 3 ? 'LOAD_PGTBL' : flushes ? 'TLB_FLUSH' : undefined) : HYPERCALLS[name];
      if (call !== undefined) return this.row('HYPERCALL', call);
      if (name === 'invpcid') return this.row('HYPERCALL', INVPCID_CALLS[Number(operand & 3n)] ?? 'TLB_FLUSH');
    }
    return this.row('#GP', mnemonic(insn));
  }

  private row(reason: string, sub: string): number {
    const key = reason + sub;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const row = this.ledger.row(reason, sub);
    this.known.set(key, row);
    return row;
  }
}
