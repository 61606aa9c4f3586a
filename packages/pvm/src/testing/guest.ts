import { CpuCore } from '@pvm/cpu-jit';
import { S_ICOUNT, V_TSC_MUL } from '@pvm/cpu-jit/layout';
import { GuestRam } from '@pvm/machine';
import { KvmClock } from '../abi/kvm-clock.ts';
import { writeMsr } from '../abi/msrs.ts';
import type { AbiChoice, PvmVcpu } from '../abi/pvm-vcpu.ts';
import * as rfc from '../abi-rfc-v1/constants.ts';
import * as abi from '../abi-v2/constants.ts';
import { PvmDesign } from '../designs/pvm/pvm-design.ts';
import { ExitLedger } from '../ledger.ts';
import type { Platform } from '../platform/index.ts';
import { InterruptQueue } from '../platform/interrupt-queue.ts';
import { RunLoop, type SliceEnd } from '../run-loop.ts';
import { switcherModule } from '../switcher/index.ts';
import { number, type RegisterName } from './assemble.ts';

const RAM = 4 << 20;
const PML4 = 0x1000;
const PDPT = 0x2000;
const PD = 0x3000;
const PT = 0x4000;
/** The same for the table of umod under rfc-v1, which has only umod's pages. */
const USER_PML4 = 0x5000;
const USER_PDPT = 0x6000;
const USER_PD = 0x7000;
const USER_PT = 0x8000;
const P_RW_U = 7n;
const P_RW = 3n;

/** Where the test guest keeps its things; every page below 2 MiB is mapped at its own address. */
export const map = {
  /** CR3. */
  pml4: PML4,
  pageTable: PT,
  userPml4: USER_PML4,
  smodCode: 0x2_0000,
  umodEvent: 0x2_1000,
  smodEvent: 0x2_1000 + abi.EVENT_ENTRY_SMOD_OFFSET,
  smodException: 0x2_1000 + rfc.EVENT_ENTRY_SMOD_EXCEPTION,
  lstar: 0x2_2000,
  retu: 0x2_3000,
  rets: 0x2_4000,
  pvcs: 0x3_0000,
  smodStack: 0x4_0000,
  /** The first page that umod may use; 16 of them. */
  umodCode: 0x10_0000,
  umodData: 0x10_1000,
  umodStack: 0x10_f000,
  /** The upper-half window maps the same lower 2 MiB: its first PML4 slot. */
  window: 0xffff_d000_0000_0000n,
  kernelGs: 0x1234_5000n,
} as const;

export interface TestGuestOptions {
  abi?: AbiChoice;
  directSwitch?: boolean;
  prefault?: boolean;
  pcidMap?: boolean;
  injectDirect?: boolean;
}

/** A hand-made PVM guest: page tables, PVCS and entry points are in place, code is put in by tests. */
export class TestGuest {
  readonly core: CpuCore;
  readonly design: PvmDesign;
  readonly ledger: ExitLedger;
  readonly vcpu: PvmVcpu;
  readonly ram: GuestRam;
  readonly clock: KvmClock;
  readonly platform: Platform;
  /** Port writes so far, and what port reads answer. */
  readonly portWrites: [port: number, size: number, value: number][] = [];
  portValue = 0;
  private readonly loop: RunLoop;

  constructor(core: CpuCore, ledger: ExitLedger, options: Required<TestGuestOptions>) {
    this.core = core;
    this.ledger = ledger;
    this.ram = new GuestRam(core.memory.buffer, core.ramBase, core.ramBytes);
    const tsc = () => core.u64[(core.cpuAddress(0) + S_ICOUNT) >>> 3] ?? 0n;
    const wallClock = () => 5_000_000_007n;
    const queue = new InterruptQueue();
    this.platform = {
      kind: 'program',
      timers: undefined,
      load: () => {
        throw new Error('tests put code into RAM themselves');
      },
      flush: () => undefined,
      dispose: () => undefined,
      resume: () => undefined,
      state: (s) => s.part('queue', queue),
      readPort: () => this.portValue,
      writePort: (port, size, value) => void this.portWrites.push([port, size, value]),
      readMmio: () => 0xffff_ffff,
      writeMmio: () => undefined,
      readMsr: () => undefined,
      writeMsr: () => false,
      apicPage: () => -1,
      interrupts: () => queue,
      sendInterrupt: (_vcpu, vector) => queue.add(vector),
      sendNmi: () => queue.addNmi(),
    };
    this.design = new PvmDesign({ core, ram: this.ram, ledger, platform: this.platform, tsc, wallClock, ...options });
    this.clock = new KvmClock(this.ram, tsc, wallClock);
    this.vcpu = this.design.vcpu(0);
    this.loop = new RunLoop(core, this.design, ledger, undefined, { stopped: () => false, afterExit: () => undefined, maxInstructions: undefined });
    core.u32[(core.cpuAddress(0) + V_TSC_MUL) >>> 2] = 1;
    this.mapMemory();
    for (const at of [map.umodEvent, map.smodException, map.smodEvent, map.lstar]) this.code(at, [0xf4]);
    for (const at of [map.retu, map.rets]) this.code(at, [0x0f, 0x05]);
    this.vcpu.boot({ rip: BigInt(map.smodCode), registers: [], cr3: BigInt(PML4), codeSelector: 0x10 });
    this.set('rsp', map.smodStack);
  }

  private mapMemory(): void {
    this.ram.bytes.fill(0);
    const { view } = this.ram;
    view.setBigUint64(PML4, BigInt(PDPT) | P_RW_U, true);
    view.setBigUint64(PML4 + 8 * 416, BigInt(PDPT) | P_RW_U, true);
    // Outside the legal window, but in the guest's table.
    view.setBigUint64(PML4 + 8 * 256, BigInt(PDPT) | P_RW_U, true);
    view.setBigUint64(PDPT, BigInt(PD) | P_RW_U, true);
    view.setBigUint64(PD, BigInt(PT) | P_RW_U, true);
    for (let i = 0; i < 512; i++) {
      const user = i >= map.umodCode >> 12 && i < (map.umodCode >> 12) + 16;
      view.setBigUint64(PT + 8 * i, BigInt(i << 12) | (user ? P_RW_U : P_RW), true);
      if (user) view.setBigUint64(USER_PT + 8 * i, BigInt(i << 12) | P_RW_U, true);
    }
    view.setBigUint64(USER_PML4, BigInt(USER_PDPT) | P_RW_U, true);
    view.setBigUint64(USER_PDPT, BigInt(USER_PD) | P_RW_U, true);
    view.setBigUint64(USER_PD, BigInt(USER_PT) | P_RW_U, true);
  }

  /** Set the PVCS and the entry points, as a kernel does once. */
  attach(): this {
    for (const [index, value] of [
      [abi.MSR_PVM_VCPU_STRUCT, BigInt(map.pvcs)],
      [abi.MSR_PVM_EVENT_ENTRY, BigInt(map.umodEvent)],
      [abi.MSR_PVM_RETU_RIP, BigInt(map.retu)],
      [0xc000_0082, BigInt(map.lstar)],
      [0xc000_0102, map.kernelGs],
    ] as const) {
      this.writeMsr(index, value);
    }
    return this;
  }
  /** The same for rfc-v1. The stack of smod begins at `map.smodStack`, with a red zone of 128 bytes below RSP. */
  attachRfcV1(): this {
    this.attach();
    for (const [index, value] of [
      [rfc.MSR_PVM_SWITCH_CR3, BigInt(USER_PML4)],
      [rfc.MSR_PVM_SUPERVISOR_RSP, BigInt(map.smodStack)],
      [rfc.MSR_PVM_SUPERVISOR_REDZONE, 128n],
      [rfc.MSR_PVM_RETS_RIP, BigInt(map.rets)],
    ] as const) {
      this.writeMsr(index, value);
    }
    return this;
  }
  writeMsr(index: number, value: bigint): void {
    if (!writeMsr(this.vcpu, this.clock, this.platform, index, value)) throw new Error(`MSR 0x${index.toString(16)} refused 0x${value.toString(16)}`);
  }

  /** Put machine code (or data) at a guest-physical address. */
  code(at: number, ...parts: readonly (readonly number[])[]): this {
    const all = parts.flat();
    this.ram.bytes.set(all, at);
    this.core.dirtyCode(this.core.ramBase + at, all.length);
    return this;
  }
  /** Code for smod, which is where the guest starts. */
  smod(...parts: readonly (readonly number[])[]): this {
    return this.code(map.smodCode, ...parts);
  }
  /** Code for umod; the guest starts with the ERETU that goes there. */
  umod(...parts: readonly (readonly number[])[]): this {
    this.code(map.umodCode, ...parts);
    this.pvcs32(abi.PVCS_USER_CS, abi.USER_CS_SS);
    const { name, pvcs } = this.vcpu.revision;
    this.pvcs64(pvcs.rip, BigInt(map.umodCode));
    this.pvcs32(pvcs.eflags, 0x202);
    this.vcpu.rip = BigInt(map.retu);
    if (name === 'v2') this.set('rsp', map.umodStack);
    else this.pvcs64(rfc.PVCS_RSP, BigInt(map.umodStack));
    return this;
  }

  set(name: RegisterName, value: bigint | number): this {
    this.vcpu.setReg(number(name), BigInt(value));
    return this;
  }
  reg(name: RegisterName): bigint {
    return this.vcpu.reg(number(name));
  }
  pvcs16(offset: number): number {
    return this.ram.view.getUint16(map.pvcs + offset, true);
  }
  pvcs32(offset: number, value?: number): number {
    if (value !== undefined) this.ram.view.setUint32(map.pvcs + offset, value, true);
    return this.ram.view.getUint32(map.pvcs + offset, true);
  }
  pvcs64(offset: number, value?: bigint): bigint {
    if (value !== undefined) this.ram.view.setBigUint64(map.pvcs + offset, value, true);
    return this.ram.view.getBigUint64(map.pvcs + offset, true);
  }

  /** Run until the guest halts. @throws TripleFault, FailedEntry */
  run(): this {
    for (let slices = 0; slices < 1000; slices++) {
      const end: SliceEnd = this.loop.runSlice();
      if (end === 'halted') return this;
    }
    throw new Error('the guest does not halt');
  }
  /** Run one slice of the run loop. */
  runSlice(): SliceEnd {
    return this.loop.runSlice();
  }
  /** Where the guest halted: address of the HLT. */
  get haltedAt(): number {
    return Number(this.vcpu.rip) - 1;
  }
  /** Exits so far by `reason sub`, without the final HLT and the shadow's own faults. */
  exits(): Record<string, number> {
    const all = this.ledger.entries().map((e) => [`${e.reason} ${e.sub}`.trim(), e.count] as const);
    return Object.fromEntries(all.filter(([name]) => name !== '#GP HLT' && name !== '#PF shadow'));
  }
}

let shared: Promise<CpuCore> | undefined;
const late: { design?: PvmDesign } = {};

/** A fresh guest on a CPU that the tests of a file share. */
export async function testGuest(options: TestGuestOptions = {}): Promise<TestGuest> {
  shared ??= switcherModule().then((switcher) =>
    CpuCore.create({
      ramBytes: RAM,
      framePoolBytes: 2 << 20,
      jit: 'off',
      switcher,
      hooks: { mmuFault: (vcpu) => late.design?.mmuFault(vcpu) ?? 1, mmio: (vcpu) => late.design?.mmio(vcpu) ?? 1 },
    }),
  );
  const core = await shared;
  core.reset(0);
  core.clearFramePool();
  const ledger = new ExitLedger(() => late.design?.directSwitches() ?? { syscalls: 0, returns: 0 });
  const guest = new TestGuest(core, ledger, { abi: 'auto', directSwitch: true, prefault: false, pcidMap: true, injectDirect: false, ...options });
  late.design = guest.design;
  return guest;
}
