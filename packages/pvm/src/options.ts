import { CPU_LEVELS, type CpuLevel } from '@pvm/cpu-jit';
import type { AbiChoice } from './abi/pvm-vcpu.ts';
import { ABI_REVISIONS } from './abi/revision.ts';
import { DESIGN_NAMES, type DesignName, designInfo } from './designs/index.ts';
import { OPTIMISATIONS, type Optimisation } from './designs/optimisations.ts';
import { PvmError } from './errors.ts';
import type { LedgerTiming } from './ledger.ts';
import { type Check, isBoolean, isBytes, isFunction, isSize, isString, nearest, oneOf, parseSize, record, show } from './option-checks.ts';
import { type CheckedPcOptions, checkedPcOptions, PC_CHECKS, PC_ONLY, type PcOptions } from './pc/options.ts';
import { GUEST_OF, type PlatformKind } from './platform/index.ts';
import { type Input, isInput, isOutput, type Output, type OutputHandler, outputHandler } from './streams.ts';

export const STOCK_CHOICES = ['auto', 'trap'] as const;
export type StockChoice = (typeof STOCK_CHOICES)[number];

/** Everything `createVm` accepts: a `program`, or a stock `kernel` without one. */
export interface VmOptions extends PcOptions {
  /** The static x86-64 Linux ELF to run: a path of the host, or the file's bytes. Without it, `kernel` is a stock kernel. */
  program?: string | Uint8Array;
  /** Arguments after argv[0]. Default none. */
  args?: readonly string[];
  /** argv[0]. Default: the path given as `program`, or `program`. */
  argv0?: string;
  /** Environment of the program. Default `PATH=/usr/bin:/bin` and `HOME=/`. */
  env?: Readonly<Record<string, string>>;
  /** Files for the guest: absolute guest path to a host path or the contents. Default none. */
  files?: Readonly<Record<string, string | Uint8Array>>;
  /** Input of the program, or of a stock kernel's serial port. Default: empty. */
  stdin?: Input;
  /** Guest RAM in bytes, or with a suffix: `64M`, `1G`. 8 MiB to 3.5 GiB. Default 64 MiB, 512 MiB for a stock kernel. */
  memory?: number | string;
  /** Memory for shadow page tables, like `memory`. Default 16 MiB. */
  shadowMemory?: number | string;
  /**
   * Revision of the PVM guest ABI. `auto`: v2 until the guest writes an MSR that only rfc-v1 has, before its first event. Default for a program:
   * `auto`. For a kernel under design `pvm`, the option says that it speaks the ABI by itself.
   */
  abi?: AbiChoice;
  /** Virtualisation design, see `DESIGNS`. Default: `pvm` for a program, `bare` for a stock kernel. */
  design?: DesignName;
  /**
   * How an unmodified kernel runs under design `pvm`: its privileged instructions become hypercalls and direct switches (`auto`), or trap one by one. Default `auto`;
   * with `abi`, the kernel is one that speaks PVM's ABI itself.
   */
  stock?: StockChoice;
  /** Switches of the design to turn on or off, see `OPTIMISATIONS`. Default: what the design has by default. */
  optimisations?: Readonly<Partial<Record<Optimisation, boolean>>>;
  /** The guest's processor: x86-64-v2, or v3 with AVX, AVX2, FMA, F16C, BMI. Default `v2`. */
  cpu?: CpuLevel;
  /** `host`: the guest's clock is the host's; `icount`: it counts retired instructions, and the run is repeatable. Default `host`. */
  clock?: 'host' | 'icount';
  /** `on`: compile hot code in a worker; `sync`: at once on this thread; `off`: interpret only. Default `on`. */
  jit?: 'on' | 'off' | 'sync';
  /** Compiled code that may be in use, bytes of Wasm, like `memory`; machine code comes on top. When there is more, all is dropped. Default 64 MiB. */
  codeMemory?: number | string;
  /**
   * Folder that keeps compiled code from run to run, one file for each program or kernel; made when it is missing. What the file has is linked where the
   * guest's code is the same byte by byte; a damaged one is ignored, with a warning. Only with `jit: 'on'`, without `nameRegion`. Default: none.
   */
  codeCache?: string;
  /** What V8's profiler (`node --cpu-prof`, `perf`) should call compiled guest code that starts at a virtual address. Default: it has no names. */
  nameRegion?: (rip: bigint) => string;
  /** Find out by sampling, on a thread of its own, how guest time divides between interpreter and compiled code. Default false. */
  sampleTiers?: boolean;
  /** The program's standard output and error. Default: dropped. What a function throws, or rejects with, ends the run, which rejects with it. */
  onConsole?: Output;
  onStderr?: Output;
  /** What the kernel writes to its serial port: its log, and everything of a stock kernel with `console=ttyS0`. Default: dropped. */
  onSerial?: Output;
  /** Which of stdin, stdout, stderr the program sees as a terminal (bits 0, 1, 2). Default 0. */
  terminals?: number;
  /** With a program: another kernel to run it, default the embedded one. Without: the kernel to boot: bzImage, ELF64 (PVH or Linux) or multiboot. */
  kernel?: string | Uint8Array;
  /** Kernel command line. Default empty. */
  commandLine?: string;
  /** Stop with `instruction-limit` after so many guest instructions. Default: no limit. */
  maxInstructions?: number;
  /** Check the invariants of shadow and second-level tables at every exit (`true`) or every so many; slow. Refused under `bare`, which has none. Default false. */
  checkMmu?: boolean | number;
  /** Count TLB hits of data accesses (`tlb().hits`); the guest then runs several times slower. Default false. */
  countTlb?: boolean;
  /** What the exit ledger times: `sampled` (default) the first 2,048 exits, then fewer and fewer, from 1 of 16 to 1 of 1,024, `all`, or `off`: it does not even count. */
  ledger?: LedgerTiming;
  /** Keep the last so many exits one by one (`ledger.trace`), 36 bytes each, at most 2^24. Default 0. */
  traceLimit?: number;
  /** Stops the machine with `aborted`. */
  signal?: AbortSignal;
  /** Go on from a snapshot (`Vm.save`): its path, or its bytes. The options that shape the machine come from it; those that are given must agree. */
  restore?: string | Uint8Array;
}

/** Options with defaults filled in and sizes in bytes. */
export interface CheckedOptions extends CheckedPcOptions {
  /** Undefined: not given. */
  readonly abi: AbiChoice | undefined;
  readonly design: DesignName;
  readonly platform: PlatformKind;
  /** Undefined: not an unmodified kernel under design `pvm`. */
  readonly stock: StockChoice | undefined;
  /** All that the design has. */
  readonly optimisations: Readonly<Partial<Record<Optimisation, boolean>>>;
  /** Empty with a stock kernel. */
  readonly program: string | Uint8Array;
  readonly args: readonly string[];
  readonly argv0: string;
  readonly env: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, string | Uint8Array>>;
  readonly stdin: Input;
  readonly memory: number;
  readonly shadowMemory: number;
  readonly cpu: CpuLevel;
  readonly clock: 'host' | 'icount';
  readonly jit: 'on' | 'off' | 'sync';
  readonly codeMemory: number;
  readonly codeCache: string | undefined;
  readonly nameRegion: ((rip: bigint) => string) | undefined;
  readonly sampleTiers: boolean;
  readonly onConsole: OutputHandler;
  readonly onStderr: OutputHandler;
  readonly onSerial: OutputHandler;
  readonly terminals: number;
  readonly kernel: string | Uint8Array | undefined;
  readonly commandLine: string;
  readonly maxInstructions: number | undefined;
  /** Exits from one check of the page tables to the next, 0: none. */
  readonly checkMmu: number;
  readonly countTlb: boolean;
  readonly ledger: LedgerTiming;
  readonly traceLimit: number;
  readonly signal: AbortSignal | undefined;
}

const MIB = 2 ** 20;
const MIN_MEMORY = 8 * MIB;
const MAX_MEMORY = 3.5 * 1024 * MIB;
const MIN_SHADOW = 1 * MIB;
const MIN_CODE = 1 * MIB;
const MAX_CODE = 1024 * MIB;

const isSink: Check = (v) => (isOutput(v) ? undefined : 'a function or a writable stream');

const CHECKS: Readonly<Record<keyof VmOptions, Check>> = {
  ...PC_CHECKS,
  program: isBytes,
  args: (v) => (Array.isArray(v) && v.every((a) => isString(a) === undefined) ? undefined : 'an array of strings without NUL'),
  argv0: isString,
  env: record(isString, 'an object of strings'),
  files: (v) =>
    record(isBytes, '')(v) === undefined && Object.keys(v as object).every((path) => path.startsWith('/') && path !== '/')
      ? undefined
      : 'an object from absolute guest paths to host paths or Uint8Arrays',
  stdin: (v) => (isInput(v) ? undefined : 'a string, a Uint8Array or an async iterable of them'),
  memory: isSize,
  shadowMemory: isSize,
  abi: oneOf('auto', ...ABI_REVISIONS),
  design: oneOf(...DESIGN_NAMES),
  optimisations: (v) =>
    record(isBoolean, '')(v) === undefined && Object.keys(v as object).every((name) => name in OPTIMISATIONS)
      ? undefined
      : `an object from ${Object.keys(OPTIMISATIONS).join(', ')} to true or false`,
  stock: oneOf(...STOCK_CHOICES),
  cpu: oneOf(...CPU_LEVELS),
  clock: oneOf('host', 'icount'),
  jit: oneOf('on', 'off', 'sync'),
  codeMemory: isSize,
  codeCache: (v) => (typeof v === 'string' && v !== '' && !v.includes('\0') ? undefined : 'the path of a folder'),
  nameRegion: isFunction,
  sampleTiers: isBoolean,
  onConsole: isSink,
  onStderr: isSink,
  onSerial: isSink,
  terminals: (v) => (Number.isInteger(v) && Number(v) >= 0 && Number(v) <= 7 ? undefined : 'a number from 0 to 7'),
  kernel: isBytes,
  commandLine: isString,
  maxInstructions: (v) => (Number.isSafeInteger(v) && Number(v) > 0 ? undefined : 'a positive integer'),
  checkMmu: (v) => (typeof v === 'boolean' || (Number.isSafeInteger(v) && Number(v) > 0) ? undefined : 'true, false or a positive number of exits'),
  countTlb: isBoolean,
  ledger: oneOf('sampled', 'all', 'off'),
  traceLimit: (v) => (Number.isInteger(v) && Number(v) >= 0 && Number(v) <= 2 ** 24 ? undefined : 'a whole number up to 16777216'),
  signal: (v) => (v instanceof AbortSignal ? undefined : 'an AbortSignal'),
  restore: isBytes,
};

/** Looks at each option by itself. @throws PvmError `bad-option` that names the option, what came and what was expected */
export function checkGivenOptions(options: VmOptions): void {
  const given = options as unknown as Readonly<Record<string, unknown>>;
  if (typeof given !== 'object' || given === null) throw new PvmError('bad-option', 'createVm expects an object of options');
  for (const [key, value] of Object.entries(given)) {
    const check = Object.hasOwn(CHECKS, key) ? (CHECKS as Readonly<Record<string, Check | undefined>>)[key] : undefined;
    if (check === undefined) throw new PvmError('bad-option', `unknown option "${key}"; did you mean "${nearest(key, Object.keys(CHECKS))}"?`);
    if (value === undefined) continue;
    const expected = check(value);
    if (expected !== undefined) throw new PvmError('bad-option', `option ${key}: expected ${expected}, got ${show(value)}`);
  }
}

/** The same, and all of them together, with defaults. @throws PvmError `bad-option` */
export function checkOptions(options: VmOptions): CheckedOptions {
  checkGivenOptions(options);
  const { design, platform } = chooseMachine(options);
  const memory = size('memory', options.memory ?? (platform === 'pc' ? 512 : 64) * MIB, MIN_MEMORY, MAX_MEMORY, 4096);
  return {
    abi: options.abi,
    design,
    platform,
    optimisations: checkOptimisations(design, options.optimisations ?? {}),
    program: options.program ?? new Uint8Array(0),
    args: options.args ?? [],
    argv0: options.argv0 ?? (typeof options.program === 'string' ? options.program : 'program'),
    env: options.env ?? { PATH: '/usr/bin:/bin', HOME: '/' },
    files: options.files ?? {},
    stdin: options.stdin ?? new Uint8Array(0),
    memory,
    // Guest RAM follows the pool and must begin at a multiple of 2 MiB for large shadow leaves.
    shadowMemory: size('shadowMemory', options.shadowMemory ?? 16 * MIB, MIN_SHADOW, 1024 * MIB, 2 * MIB),
    stock: platform === 'pc' && design === 'pvm' && options.abi === undefined ? (options.stock ?? 'auto') : undefined,
    cpu: options.cpu ?? 'v2',
    clock: options.clock ?? 'host',
    jit: options.jit ?? 'on',
    codeMemory: size('codeMemory', options.codeMemory ?? 64 * MIB, MIN_CODE, MAX_CODE, 1),
    codeCache: checkedCodeCache(options),
    nameRegion: options.nameRegion,
    sampleTiers: options.sampleTiers ?? false,
    onConsole: outputHandler(options.onConsole),
    onStderr: outputHandler(options.onStderr),
    onSerial: outputHandler(options.onSerial),
    terminals: options.terminals ?? 0,
    kernel: options.kernel,
    ...checkedPcOptions(options),
    commandLine: isolatedCommandLine(options, platform),
    maxInstructions: options.maxInstructions,
    checkMmu: Number(options.checkMmu ?? false),
    countTlb: options.countTlb ?? false,
    ledger: options.ledger ?? 'sampled',
    traceLimit: options.traceLimit ?? 0,
    signal: options.signal,
  };
}

/** The same options with another function for each receiver of output. */
export function withOutputs(options: CheckedOptions, map: (output: OutputHandler) => OutputHandler): CheckedOptions {
  const { onConsole, onStderr, onSerial, consolePorts } = options;
  return {
    ...options,
    onConsole: map(onConsole),
    onStderr: map(onStderr),
    onSerial: map(onSerial),
    consolePorts: consolePorts.map((port) => ({ ...port, output: map(port.output) })),
  };
}

/** Only code that another run may make is stored: compiled in the background, without names. @throws PvmError */
function checkedCodeCache({ codeCache, jit = 'on', nameRegion }: VmOptions): string | undefined {
  if (codeCache === undefined) return undefined;
  if (jit !== 'on') throw new PvmError('bad-option', `option codeCache is for jit "on"; with "${jit}" no code is kept`);
  if (nameRegion !== undefined) throw new PvmError('bad-option', 'option codeCache: code with names (nameRegion) is not kept; leave one of them out');
  return codeCache;
}

/** A program needs the program board, a stock kernel the PC; each design says which of them it runs on. @throws PvmError */
function chooseMachine(options: VmOptions): { design: DesignName; platform: PlatformKind } {
  const refuse = (message: string): never => {
    throw new PvmError('bad-option', message);
  };
  const platform: PlatformKind = options.program === undefined ? 'pc' : 'program';
  if (platform === 'pc' && options.kernel === undefined) refuse('option program is missing; or kernel, to boot a stock kernel');
  const foreign = platform === 'pc' ? (['args', 'argv0', 'env', 'files'] as const) : PC_ONLY;
  const unfit = foreign.find((key) => options[key] !== undefined);
  if (unfit !== undefined)
    refuse(`option ${unfit} is for a ${platform === 'pc' ? 'program; this is a stock kernel' : 'stock kernel; leave it out with a program'}`);
  const speaksAbi = platform === 'pc' && options.abi !== undefined;
  const design = options.design ?? (platform === 'pc' && !speaksAbi ? 'bare' : 'pvm');
  if (options.abi !== undefined && !designInfo(design).abiKernels) refuse(`option abi is for design pvm; ${design} has no ABI of its own`);
  if (!speaksAbi && !designInfo(design).platforms.includes(platform)) {
    const able = DESIGN_NAMES.filter((name) => designInfo(name).platforms.includes(platform));
    refuse(`design ${design} does not run ${GUEST_OF[platform]}; ${able.join(', ')} ${able.length === 1 ? 'does' : 'do'}`);
  }
  if (options.stock !== undefined && !(design === 'pvm' && platform === 'pc')) refuse('option stock is for a kernel without a program under design pvm');
  if ((options.vcpus ?? 1) > 1) {
    const able = DESIGN_NAMES.filter((name) => designInfo(name).smp === true);
    if (!able.includes(design)) refuse(`option vcpus: under design ${design} there is one vCPU; ${able.join(', ')} can have more`);
  }
  if (options.stock !== undefined && speaksAbi) refuse("option abi is for kernels that speak PVM's ABI; stock is for those that do not");
  return { design, platform };
}

/** The design's defaults with the wanted changes. @throws PvmError for a switch that it does not have */
function checkOptimisations(design: DesignName, wanted: Readonly<Partial<Record<Optimisation, boolean>>>): Readonly<Partial<Record<Optimisation, boolean>>> {
  const { optimisations } = designInfo(design);
  const unknown = Object.keys(wanted).find((name) => !(name in optimisations));
  if (unknown !== undefined) {
    const names = Object.keys(optimisations);
    throw new PvmError('bad-option', `design ${design} has no optimisation ${unknown}; it has ${names.length === 0 ? 'none' : names.join(', ')}`);
  }
  return { ...optimisations, ...wanted };
}

/** The kernel's command line, which with the switch `kpti` asks it to isolate its page tables. @throws PvmError where the guest has nothing to isolate */
function isolatedCommandLine(options: VmOptions, platform: PlatformKind): string {
  const line = options.commandLine ?? '';
  if (options.optimisations?.kpti !== true) return line;
  if (platform === 'program' || options.abi !== undefined) {
    throw new PvmError('bad-option', "the switch kpti is for unmodified kernels; a guest that speaks PVM's ABI has a user shadow without its kernel anyway");
  }
  // What follows `--`, outside quotes, is for init.
  const end = /^((?:"[^"]*"|[^"])*?(?:^|\s))--(?=\s|$)/.exec(line)?.[1]?.length;
  return end === undefined ? `${line} pti=on`.trimStart() : `${line.slice(0, end)}pti=on ${line.slice(end)}`;
}

function size(name: string, value: number | string, min: number, max: number, multiple: number): number {
  const bytes = Math.ceil((parseSize(value) ?? 0) / multiple) * multiple;
  if (bytes < min || bytes > max) throw new PvmError('bad-option', `option ${name}: expected ${min / MIB}M to ${max / MIB}M, got ${show(value)}`);
  return bytes;
}
