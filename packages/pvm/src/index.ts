/** PVM: run a program in a guest whose every exit is counted. Start with `createVm`. */
export { createVm, Vm, type Result } from './vm.ts';
export { nearest, parseSize, type OutputHandler, type VmOptions } from './options.ts';
export { PvmError, type PvmErrorCode, VmError } from './errors.ts';
export { ExitLedger, type ExitStats, type RecentExit, type WorldSwitches } from './ledger.ts';
export { formatLedger, ledgerJson, type LedgerJson } from './report.ts';
export type { Interval, Summary } from './summary.ts';
export type { StopReason } from './designs/design.ts';
export { MachineError, type MachineErrorCode } from '@pvm/machine';
