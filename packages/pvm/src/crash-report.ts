import type { CpuCore } from '@pvm/cpu-jit';
import { FS, GS, S_CR2, S_CR3, S_CR4, S_EFER, S_SEG, SEG_BASE, SEG_STRIDE } from '@pvm/cpu-jit/layout';
import { BrokenMmu, type Design, FailedEntry, TripleFault } from './designs/design.ts';
import { VmError } from './errors.ts';
import type { ExitLedger } from './ledger.ts';

const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8 ', 'r9 ', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];

/** Errors that end a guest, their codes and what they are called. */
const DEATHS = [
  [TripleFault, 'triple-fault', 'triple fault'],
  [FailedEntry, 'failed-vmentry', 'failed VM entry'],
  [BrokenMmu, 'broken-mmu', 'broken page tables'],
] as const;

/** What the user gets to see of an error that ends a guest; undefined: `error` is another one. */
export function guestDeath(error: Error, core: CpuCore, vcpu: number, design: Design, ledger: ExitLedger): VmError | undefined {
  const death = DEATHS.find(([kind]) => error instanceof kind);
  if (death === undefined) return undefined;
  const [, code, what] = death;
  const message = `${what}: ${error.message}`;
  return new VmError(code, message, crashReport(message, core, vcpu, design, ledger));
}

/** Registers and last exits of a guest that cannot go on. */
function crashReport(message: string, core: CpuCore, vcpu: number, design: Design, ledger: ExitLedger): string {
  const hex = (n: bigint) => n.toString(16).padStart(16, '0');
  const field = (offset: number) => core.u64[(core.cpuAddress(vcpu) + offset) >>> 3] ?? 0n;
  const base = (segment: number) => hex(field(S_SEG + segment * SEG_STRIDE + SEG_BASE));
  const lines = [message, `rip ${hex(core.getRip(vcpu))}  rflags ${core.getRflags(vcpu).toString(16)}`];
  for (let n = 0; n < 16; n += 4) {
    lines.push([0, 1, 2, 3].map((i) => `${NAMES[n + i]} ${hex(core.getReg(vcpu, n + i))}`).join('  '));
  }
  lines.push(`cr2 ${hex(field(S_CR2))}  cr3 ${hex(field(S_CR3))}  cr4 ${hex(field(S_CR4))}  efer ${hex(field(S_EFER))}`);
  lines.push(`fs  ${base(FS)}  gs  ${base(GS)}`);
  lines.push(...design.describe(vcpu), 'last exits, newest first:');
  for (const e of ledger.recent().reverse().slice(0, 16)) lines.push(`  ${hex(e.rip)}  ${e.reason}${e.sub === '' ? '' : ` ${e.sub}`}`);
  return lines.join('\n');
}
