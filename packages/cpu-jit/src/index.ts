export * from './cpu.ts';
export * from './decoder/index.ts';
export type { Insn, MemOperand, OperandForm, Row } from './decoder/types.ts';
export * from './errors.ts';
export * from './layout.ts';
export type { MemoryLayout } from './memory.ts';
