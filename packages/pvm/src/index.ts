/** PVM: run a program in a guest whose every exit is counted. Start with `createVm`. */

export { MachineError, type MachineErrorCode } from '@pvm/machine';
export type { DesignInfo, StopReason } from './designs/design.ts';
export { DESIGN_NAMES, type DesignName, designInfo } from './designs/index.ts';
export { OPTIMISATIONS, type Optimisation } from './designs/optimisations.ts';
export { PvmError, type PvmErrorCode, VmError } from './errors.ts';
export { ExitLedger, type ExitStats, type RecentExit, type WorldSwitches } from './ledger.ts';
export { nearest, type OutputHandler, parseSize, type VmOptions } from './options.ts';
export type { PlatformKind } from './platform/index.ts';
export { formatLedger, type LedgerJson, ledgerJson } from './report.ts';
export type { Interval, Summary } from './summary.ts';
export { createVm, type Result, Vm } from './vm.ts';
