export * from './cpu.ts';
export * from './decoder/index.ts';
export type { Insn, MemOperand, OperandForm, Row } from './decoder/types.ts';
export type { FlatEntry, Segment } from './entry-state.ts';
export * from './errors.ts';
export * from './features.ts';
export * from './layout.ts';
export type { MemoryLayout } from './memory.ts';
