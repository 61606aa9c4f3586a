import { createHash } from 'node:crypto';
import type { CpuCore } from '@pvm/cpu-jit';
import {
  S_CR0,
  S_CR2,
  S_CR3,
  S_CR4,
  S_CR8,
  S_DR,
  S_EFER,
  S_GDTR,
  S_HOT_THRESHOLD,
  S_IDTR,
  S_KERNEL_GS_BASE,
  S_LSTAR,
  S_MSR,
  S_PAT,
  S_SEG,
  S_SFMASK,
  S_STAR,
  S_TSC_OFFSET,
  S_X87,
  S_XCR0,
  S_XMM,
  SEG_STRIDE,
} from '@pvm/cpu-jit/layout';
import { VmError } from '../../errors.ts';
import { createVm, type DesignName, type Vm, type VmOptions } from '../../index.ts';
import type { StockPc } from '../../platform/stock-pc.ts';
import { Hostility } from './hostility.ts';
import { violations } from './invariants.ts';
import { hostileKernel } from './kernel.ts';
import { COUNTERS, RAM_BYTES } from './map.ts';
import { OwnCodeWatch } from './own-code.ts';

/** Virtual time between two looks whether the guest goes on, and how often it may not. */
const WATCH_NS = 60_000;
const PATIENCE = 3;
const RESET_PORT = 0xcf9;

/** A machine for hostile guests. */
export interface HostileMachine {
  readonly design: DesignName;
  readonly stock?: 'auto' | 'trap';
  readonly vcpus: number;
  readonly virtio: 'pci' | 'mmio';
  readonly cpu: 'v2' | 'v3';
}

/** Every design, one and two vCPUs. */
export const MACHINES: Readonly<Record<string, HostileMachine>> = {
  bare: { design: 'bare', vcpus: 1, virtio: 'pci', cpu: 'v3' },
  'bare-2': { design: 'bare', vcpus: 2, virtio: 'mmio', cpu: 'v2' },
  'kvm-ept': { design: 'kvm-ept', vcpus: 1, virtio: 'mmio', cpu: 'v3' },
  'kvm-ept-2': { design: 'kvm-ept', vcpus: 2, virtio: 'pci', cpu: 'v2' },
  'kvm-spt': { design: 'kvm-spt', vcpus: 1, virtio: 'pci', cpu: 'v2' },
  'kvm-spt-2': { design: 'kvm-spt', vcpus: 2, virtio: 'mmio', cpu: 'v3' },
  'pvm-trap': { design: 'pvm', stock: 'trap', vcpus: 1, virtio: 'mmio', cpu: 'v2' },
  'pvm-trap-2': { design: 'pvm', stock: 'trap', vcpus: 2, virtio: 'pci', cpu: 'v3' },
  'pvm-auto': { design: 'pvm', stock: 'auto', vcpus: 1, virtio: 'pci', cpu: 'v3' },
  'pvm-auto-2': { design: 'pvm', stock: 'auto', vcpus: 2, virtio: 'mmio', cpu: 'v2' },
};

/** What came of a run, as far as it must be the same in the next. */
export interface HostileEnd {
  readonly end: string;
  readonly restarts: number;
  readonly instructions: string;
  readonly ram: string;
  readonly vcpus: readonly Readonly<Record<string, string>>[];
  /** Instructions after which a run may go another way (see OwnCodeWatch), undefined: none. */
  readonly sureUntil: number | undefined;
}

export interface HostileRun {
  readonly jit: 'off' | 'sync';
  readonly instructions: number;
  /** Check the design's tables every so many exits; 0: never. */
  readonly checkMmu?: number;
  /** Called at the end, with the machine still there. */
  readonly onEnd?: (vm: Vm, core: CpuCore) => void;
}

const SCALARS = { S_CR0, S_CR2, S_CR3, S_CR4, S_CR8, S_EFER, S_XCR0, S_STAR, S_LSTAR, S_SFMASK, S_KERNEL_GS_BASE, S_PAT, S_TSC_OFFSET } as const;

/**
 * Runs the guest of `seed` until it has retired so many instructions, or to its end.
 *
 * @throws Error when the run ends with anything but a result or an error that says that the guest is dead, or when memory that no guest reaches has changed
 */
export async function runHostile(seed: number, machine: HostileMachine, { jit, instructions, checkMmu = 0, onEnd }: HostileRun): Promise<HostileEnd> {
  const { vcpus, virtio } = machine;
  let restarts = 0;
  const options: VmOptions = {
    ...machine,
    kernel: hostileKernel(new Hostility(seed, vcpus, virtio)),
    memory: RAM_BYTES,
    shadowMemory: '2M',
    jit,
    clock: 'icount',
    drives: [{ file: new Uint8Array(1 << 16) }, { file: new Uint8Array(1 << 18), snapshot: true }],
    consolePorts: [{}, { name: 'channel' }],
    vsock: true,
    balloon: true,
    reboot: true,
    onRestart: () => restarts++,
    maxInstructions: instructions,
    ...(checkMmu > 0 && machine.design !== 'bare' ? { checkMmu } : {}),
  };
  const vm = await createVm(options);
  try {
    const { core, platform } = insideOf(vm);
    watchOver(core, platform, vcpus);
    using ownCode = new OwnCodeWatch(core, () => vm.stats().instructions);
    for (let vcpu = 0; vcpu < vcpus && jit === 'sync'; vcpu++) core.u32[(core.cpuAddress(vcpu) + S_HOT_THRESHOLD) >>> 2] = 2;
    const end = await endOf(vm);
    onEnd?.(vm, core);
    const wrong = violations(core);
    if (wrong.length > 0) throw new Error(wrong.join('; '));
    return {
      end,
      restarts,
      instructions: String(vm.stats().instructions),
      ram: digest(core.u8.subarray(core.ramBase, core.ramBase + core.ramBytes)),
      vcpus: Array.from({ length: vcpus }, (_, vcpu) => registers(core, vcpu)),
      sureUntil: ownCode.changedAt,
    };
  } finally {
    await vm.dispose();
  }
}

/** What a `Vm` does not show. */
function insideOf(vm: Vm): { readonly core: CpuCore; readonly platform: StockPc } {
  return vm as unknown as { readonly core: CpuCore; readonly platform: StockPc };
}

/** The same hand as the guest's own watchdog, which it is likely to break: where nothing goes on an NMI, and where that does not help a reset. */
function watchOver(core: CpuCore, { board }: StockPc, vcpus: number): void {
  const counter = (core.ramBase + COUNTERS) >>> 2;
  let last = 0;
  let stuck = 0;
  const timer = board.timers.timer((deadline) => {
    timer.arm(deadline + WATCH_NS);
    const now = (core.u32[counter] ?? 0) + (core.u32[counter + 2] ?? 0);
    stuck = now === last ? stuck + 1 : 0;
    last = now;
    if (stuck === PATIENCE) {
      stuck = 0;
      void board.writePort(RESET_PORT, 1, 2);
      void board.writePort(RESET_PORT, 1, 6);
    } else if (stuck > 0) for (let vcpu = 0; vcpu < vcpus; vcpu++) board.injectNmi(vcpu);
  });
  timer.arm(WATCH_NS);
}

async function endOf(vm: Vm): Promise<string> {
  try {
    return (await vm.run()).stopReason;
  } catch (e) {
    // Tables that are broken are a bug; so is what has no code.
    if (e instanceof VmError && e.code !== 'broken-mmu') return e.code;
    throw e;
  }
}

function digest(bytes: Uint8Array): string {
  return createHash('sha1').update(bytes).digest('hex');
}

function registers(core: CpuCore, vcpu: number): Record<string, string> {
  const base = core.cpuAddress(vcpu);
  const hex = (offset: number) => (core.u64[(base + offset) >>> 3] ?? 0n).toString(16);
  const bytes = (offset: number, length: number) => Buffer.from(core.u8.slice(base + offset, base + offset + length)).toString('hex');
  return {
    ...Object.fromEntries(Array.from({ length: 16 }, (_, n) => [`r${n}`, core.getReg(vcpu, n).toString(16)])),
    rip: core.getRip(vcpu).toString(16),
    rflags: core.getRflags(vcpu).toString(16),
    ...Object.fromEntries(Object.entries(SCALARS).map(([name, offset]) => [name, hex(offset)])),
    ...Object.fromEntries(Array.from({ length: 8 }, (_, n) => [`segment ${n}`, bytes(S_SEG + n * SEG_STRIDE, 20)])),
    tables: `${bytes(S_GDTR, 12)} ${bytes(S_IDTR, 12)}`,
    debug: bytes(S_DR, 64),
    vectors: bytes(S_XMM, 512),
    x87: bytes(S_X87, 0x90),
    msrs: bytes(S_MSR, 31 * 8),
  };
}

/** Runs a guest interpreted and compiled. @returns what differs and must not, empty when nothing does */
export async function tierDifferences(seed: number, machine: HostileMachine, run: Omit<HostileRun, 'jit'>): Promise<string[]> {
  const interpreted = await runHostile(seed, machine, { ...run, jit: 'off' });
  const compiled = await runHostile(seed, machine, { ...run, jit: 'sync' });
  const found = differences(interpreted, compiled);
  const { sureUntil } = interpreted;
  if (found.length === 0 || sureUntil === undefined || sureUntil >= run.instructions) return found;
  return sureUntil === 0 ? [] : tierDifferences(seed, machine, { ...run, instructions: sureUntil });
}

/** What differs between two runs, empty when nothing does. */
function differences(a: HostileEnd, b: HostileEnd): string[] {
  const found: string[] = [];
  for (const key of ['end', 'restarts', 'instructions', 'ram'] as const) if (a[key] !== b[key]) found.push(`${key}: ${a[key]} / ${b[key]}`);
  a.vcpus.forEach((registers, vcpu) => {
    for (const [name, value] of Object.entries(registers)) {
      const other = b.vcpus[vcpu]?.[name];
      if (value !== other) found.push(`vCPU ${vcpu} ${name}: ${value} / ${other}`);
    }
  });
  return found;
}
