/** PVM: run a program in a guest whose every exit is counted. Start with `createVm`. */

export { CPU_LEVELS, type CpuLevel, LEFT_NAMES, LONG_STALL_MS, makeFolders, STALL_CAUSES, type StallCause } from '@pvm/cpu-jit';
export { buildCpio, type CpioEntry, cpioPieces, fileProblem, MachineError, type MachineErrorCode, type TextRow } from '@pvm/machine';
export type { AbiChoice } from './abi/pvm-vcpu.ts';
export { ABI_REVISIONS, type AbiRevision } from './abi/revision.ts';
export {
  type CostCounters,
  type CostPart,
  CostProfile,
  counted,
  type ModelledCost,
  PROFILE_SCHEMA,
  type Price,
  type ProfileDocument,
  parseCostProfile,
} from './cost/cost-profile.ts';
export { intervalCounters, runCounters } from './cost/counters.ts';
export { type Equation, fitPrices, relativeError } from './cost/fit.ts';
export { PRIMITIVE_NAMES, PRIMITIVES, type Primitive, type Steps } from './cost/primitives.ts';
export type { PublishedFigures } from './cost/published.ts';
export { loadCostProfile, PROFILE_NAMES, publishedFigures } from './cost/shipped.ts';
export { createVm } from './create-vm.ts';
export type { Debugger, DebugStop } from './debug/debugger.ts';
export type { DesignInfo, DirtyTracking, StopReason } from './designs/design.ts';
export { DESIGN_NAMES, type DesignName, designInfo } from './designs/index.ts';
export { OPTIMISATIONS, type Optimisation } from './designs/optimisations.ts';
export { PvmError, type PvmErrorCode, VmError } from './errors.ts';
export { type GdbServer, serveGdb } from './gdb/index.ts';
export { EMBEDDED_KERNEL } from './guest-image.ts';
export { readInputFile } from './input-file.ts';
export { type ExitStats, log2Histogram, mergeRows, percentiles, type RowLevel } from './ledger/exit-row.ts';
export { type Bucket, octaves, PERCENTILE_ERROR_PERCENT } from './ledger/histogram.ts';
export { type ExitJson, type ExitRowJson, type LedgerJson, ledgerJson, mergeJson } from './ledger/ledger-json.ts';
export { errorClass, exitClass, PAGE_FAULT } from './ledger/sub-reasons.ts';
export { type TraceHeader, type TraceLine, toPerfetto, traceLines } from './ledger/trace-export.ts';
export { ExitLedger, type LedgerTiming, type RecentExit, type WorldSwitches } from './ledger.ts';
export { nearest, parseSize } from './option-checks.ts';
export { STOCK_CHOICES, type StockChoice, type VmOptions } from './options.ts';
export type { HostSockets } from './pc/host-sockets.ts';
export { type ConsolePort, type PcOptions, type RestartCause, VIRTIO_TRANSPORTS, type VirtioTransport } from './pc/options.ts';
export { EXIT_PANIC } from './pc/panic.ts';
export type { PcDevices } from './pc/pc-devices.ts';
export type { PlatformKind } from './platform/index.ts';
export { formatExits, formatLedger, formatTable, type TableOptions, wrapLine } from './report.ts';
export {
  type HotExit,
  type IntervalJson,
  intervalJson,
  type ModelledRun,
  modelRun,
  parseRunReport,
  type RunReport,
  renameHotExits,
  runReport,
} from './run-report.ts';
export { type SnapshotInfo, snapshotInfo, snapshotPlatform } from './snapshot/info.ts';
export type { SaveOptions } from './snapshot/save-queue.ts';
export { type Input, type Output, type OutputHandler, outputHandler } from './streams.ts';
export { type Interval, isLevel, type PageTableCounters, type Summary, type TlbCounters } from './summary.ts';
export { type LoadAddresses, loadSymbols, Symboliser } from './symbols/symboliser.ts';
export { type Result, Vm } from './vm.ts';
