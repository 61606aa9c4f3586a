import type { Insn } from './decoder/types.ts';
import { SS, STEP_STACK_ALL, STEP_STACK_NONE, STEP_STACK_POINTER } from './layout.ts';

/** Instructions that access the stack without an operand that says so. Far transfers are not among them: their helpers know the stack. */
const IMPLICIT = new Set(['push', 'push_seg', 'pushf', 'pop', 'pop_seg', 'popf', 'call', 'call_ind', 'ret', 'enter', 'leave']);

/** Which memory accesses of the instruction are to the stack segment: STEP_STACK_*. In 64-bit code an override to another flat segment counts for nothing. */
export function stackAccesses(insn: Insn): number {
  const operandIsStack = insn.mem !== null && insn.mem.seg === SS;
  if (!IMPLICIT.has(insn.row.name)) return operandIsStack ? STEP_STACK_ALL : STEP_STACK_NONE;
  return insn.mem === null || operandIsStack ? STEP_STACK_ALL : STEP_STACK_POINTER;
}
