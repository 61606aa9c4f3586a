import { CpuCore, type StateIo } from '@pvm/cpu-jit';
import { CS, S_CPL, S_CR0, S_CR2, S_CR3, S_CR4, S_EFER, S_HOT_THRESHOLD, S_ICOUNT, S_KERNEL_GS_BASE, S_SEG, SEG_STRIDE, V_TSC_MUL } from '@pvm/cpu-jit/layout';
import { type EntryState, GuestRam, longModeEntry, type MmioSize, type PortSize, protectedModeEntry } from '@pvm/machine';
import type { Design } from '../designs/design.ts';
import { type DesignName, designInfo } from '../designs/index.ts';
import { ExitLedger } from '../ledger.ts';
import { checkOptions } from '../options.ts';
import { GuestTime } from '../platform/guest-time.ts';
import { InterruptQueue } from '../platform/interrupt-queue.ts';
import type { Platform } from '../platform/platform.ts';
import { RunLoop } from '../run-loop.ts';
import { switcherModule } from '../switcher/index.ts';

export interface NativeGuestOptions {
  readonly design: DesignName;
  readonly stock?: 'auto' | 'trap';
  readonly jit?: 'off' | 'sync';
  /** Default 4 MiB. */
  readonly ramBytes?: number;
  readonly directSwitch?: boolean;
  readonly prefault?: boolean;
  readonly unsync?: boolean;
}

const RAM = 4 << 20;
const UNCOUNTED: ReadonlySet<string> = new Set(['HLT', '#GP HLT', 'HYPERCALL IRQ_HALT', '#PF shadow', '#PF table write']);
const [PML4, PDPT, PD, PT] = [0x1000, 0x2000, 0x3000, 0x4000] as const;

/** Where `startKernel` puts things; 2 MiB are mapped one to one. */
export const map = {
  data: 0x5000,
  readOnly: 0x6000,
  setUp: 0x7000,
  code: 0x8000,
  gdt: 0x9000,
  tables: 0x9100,
  msrs: 0x9120,
  tss: 0x9800,
  idt: 0xa000,
  /** 32 bytes a vector. */
  handlers: 0xb000,
  lstar: 0xe000,
  sysenter: 0xe100,
  callGate: 0xe200,
  kernelStack: 0x7_e000,
  stack: 0x7_f000,
  /** The first page that user code may use; 16 of them. */
  user: 0x10_0000,
  userStack: 0x10_f000,
  /** A user page that is not present. */
  absent: 0x11_0000,
  /** A page of a device, at 0xd000_0000. */
  device: 0x1f_f000,
} as const;

const MSRS = [
  [0xc000_0081, (0x18n << 48n) | (8n << 32n)],
  [0xc000_0082, BigInt(map.lstar)],
  [0xc000_0084, 0x200n],
  [0x174, 8n],
  [0x175, BigInt(map.kernelStack)],
  [0x176, BigInt(map.sysenter)],
  [0xc000_0102, 0x5000n],
  [0, 0n],
] as const;
/** A write to it says that the guest has set itself up. */
const PORT_READY = 0xee;
/**
 * lgdt [0x9100]; lidt [0x9110]; DS, ES, SS = 0x10; far return to CS = 8; FS, GS = 0; ltr 0x30; CR4 = PAE | PGE; CR0 = PG | WP | NE | ET | MP | PE; EFER = NXE | LME | SCE;
 * WRMSR of each entry at 0x9120 until one is 0; EAX, EDX, ESI = 0; out 0xee; jump to 0x8000.
 */
const SET_UP =
  '0f011425009100000f011c2510910000b8100000008ed88ec08ed06a08682470000048cb31c08ee08ee866b830000f00d8b8a00000000f22e0b8330001800f22c0' +
  'b9800000c031d2b8010900000f30be209100008b0e67e30d8b46048b56080f3083c60cebee31c031d231f6e6eebb00800000ffe3';

/** A gate of the IDT or GDT to kernel code. */
function gate(target: number, type: bigint): readonly [bigint, bigint] {
  return [(BigInt(target) & 0xffffn) | (8n << 16n) | (type << 40n), 0n];
}

/** A board with recorded ports, memory that reads its own address, and interrupts from the test. */
class TestBoard implements Platform {
  readonly kind = 'pc';
  readonly timers = undefined;
  readonly serialInput = undefined;
  readonly queue = new InterruptQueue();
  readonly writes: [port: number, value: number][] = [];
  readonly mmioWrites: [gpa: number, value: number][] = [];
  /** Called at each port write. */
  onWrite: (port: number, value: number) => void = () => undefined;

  load(): EntryState {
    throw new Error('the test loads the guest itself');
  }
  readPort(port: number): number {
    return port & 0xff;
  }
  writePort(port: number, _size: PortSize, value: number): undefined {
    this.writes.push([port, value]);
    this.onWrite(port, value);
  }
  readMmio(_vcpu: number, gpa: number, size: MmioSize): number {
    return size === 4 ? gpa : gpa & 0xff;
  }
  writeMmio(_vcpu: number, gpa: number, _size: MmioSize, value: number): undefined {
    this.mmioWrites.push([gpa, value]);
  }
  readMsr(): undefined {}
  apicPage(): number {
    return -1;
  }
  writeMsr(): boolean {
    return false;
  }
  interrupts(): InterruptQueue {
    return this.queue;
  }
  sendInterrupt(_vcpu: number, vector: number): void {
    this.queue.add(vector);
  }
  sendNmi(): void {
    this.queue.addNmi();
  }
  flush(): void {}
  dispose(): void {}
  resume(): undefined {}
  state(s: StateIo): void {
    s.fields(this, ['queue']);
  }
}

interface Machine {
  readonly core: CpuCore;
  design: Design | undefined;
}
const machines = new Map<string, Machine>();

async function createMachine(jit: 'off' | 'sync', ramBytes: number): Promise<Machine> {
  const late: { machine?: Machine } = {};
  const core = await CpuCore.create({
    ramBytes,
    framePoolBytes: 2 << 20,
    jit,
    switcher: await switcherModule(),
    hooks: { mmuFault: (vcpu) => late.machine?.design?.mmuFault(vcpu) ?? 1, mmio: (vcpu) => late.machine?.design?.mmio(vcpu) ?? 1 },
  });
  const machine: Machine = { core, design: undefined };
  late.machine = machine;
  return machine;
}

/** A guest with a CPU of its own, as far as it can tell, under a design that runs such guests. */
export class NativeGuest {
  readonly core: CpuCore;
  readonly board: TestBoard;
  readonly design: Design;
  readonly ram: GuestRam;
  readonly ledger: ExitLedger;
  private readonly loop: RunLoop;
  private before: Readonly<Record<string, number>> = {};

  /** A fresh guest, on a CPU that all guests of its kind in the process share. */
  static async create(options: NativeGuestOptions): Promise<NativeGuest> {
    const { ramBytes = RAM, jit = 'off' } = options;
    const key = `${options.design} ${jit} ${ramBytes}`;
    const machine = machines.get(key) ?? (await createMachine(jit, ramBytes));
    machines.set(key, machine);
    const { core } = machine;
    core.reset(0);
    core.clearFramePool();
    core.u8.fill(0, core.ramBase, core.ramBase + ramBytes);
    core.dirtyCode(core.ramBase, ramBytes);
    const guest = new NativeGuest(core, options);
    machine.design = guest.design;
    if (jit === 'sync') core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 2;
    return guest;
  }

  private constructor(core: CpuCore, wanted: NativeGuestOptions) {
    this.core = core;
    this.board = new TestBoard();
    this.ram = new GuestRam(core.memory.buffer, core.ramBase, core.ramBytes);
    this.ledger = new ExitLedger(() => this.design.directSwitches());
    core.u32[(core.cpuAddress(0) + V_TSC_MUL) >>> 2] = 1;
    const switches = { 'direct-switch': wanted.directSwitch, prefault: wanted.prefault, unsync: wanted.unsync };
    const options = checkOptions({
      kernel: new Uint8Array(1),
      design: wanted.design,
      ...(wanted.stock === undefined ? {} : { stock: wanted.stock }),
      optimisations: Object.fromEntries(Object.entries(switches).filter(([, on]) => on !== undefined)),
    });
    this.design = designInfo(wanted.design).create({
      core,
      ram: this.ram,
      ledger: this.ledger,
      platform: this.board,
      time: new GuestTime(core, 'icount'),
      options,
    });
    this.loop = new RunLoop(core, this.design, this.ledger, undefined, {
      stopped: () => false,
      afterExit: () => {
        if (this.board.writes.at(-1)?.[0] === PORT_READY && this.board.writes.length === 1) this.ready();
      },
      maxInstructions: 5_000_000,
    });
  }

  /** What was before does not count. */
  private ready(): void {
    this.before = this.counts();
    this.board.writes.push([PORT_READY, 0]);
  }

  /** Runs until the guest halts and nothing can wake it. @throws TripleFault, or Error after 5 million instructions */
  run(): this {
    for (;;) {
      const end = this.loop.runSlice();
      if (end === 'limit') throw new Error('the guest does not halt');
      if (end === 'halted' && this.loop.idle() !== 'no') return this;
    }
  }

  /** Registers and memory as the guest could see them. */
  state(): Record<string, unknown> {
    const { core } = this;
    const base = core.cpuAddress(0);
    const word = (offset: number) => core.view.getBigUint64(base + offset, true).toString(16);
    const registers = Array.from({ length: 16 }, (_, n) => core.getReg(0, n).toString(16));
    const fields = { S_CPL, S_CR0, S_CR2, S_CR3, S_CR4, S_EFER, S_KERNEL_GS_BASE, S_ICOUNT };
    const segments = Array.from({ length: 8 }, (_, n) =>
      Buffer.from(core.u8.slice(base + S_SEG + n * SEG_STRIDE, base + S_SEG + n * SEG_STRIDE + 20)).toString('hex'),
    );
    return {
      registers,
      rip: core.getRip(0).toString(16),
      rflags: core.getRflags(0).toString(16),
      segments,
      ...Object.fromEntries(Object.entries(fields).map(([name, offset]) => [name, word(offset)])),
      ram: hash(this.ram.bytes),
      ports: this.board.writes,
      mmio: this.board.mmioWrites,
    };
  }

  /** Exits since the guest has set itself up, by `reason sub`, without the last one (HLT) and those that only the shadow tables make. */
  exits(): Record<string, number> {
    const all = Object.entries(this.counts()).map(([name, n]) => [name, n - (this.before[name] ?? 0)] as const);
    return Object.fromEntries(all.filter(([name, n]) => n > 0 && !UNCOUNTED.has(name)));
  }
  private counts(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const e of this.ledger.entries()) {
      const name = `${e.reason} ${e.sub}`.trim();
      counts[name] = (counts[name] ?? 0) + e.count;
    }
    return counts;
  }
  /** Direct switches since then. */
  directSwitches(): { syscalls: number; returns: number } {
    return this.design.directSwitches();
  }

  /** Puts bytes, given in hexadecimal, into RAM. */
  put(at: number, hex: string): this {
    this.ram.bytes.set(Buffer.from(hex, 'hex'), at);
    return this;
  }
  private put64(at: number, ...values: readonly bigint[]): void {
    values.forEach((v, i) => {
      this.ram.view.setBigUint64(at + 8 * i, v, true);
    });
  }

  /**
   * A kernel that has set itself up (segments, page tables, IDT, TSS, MSRs of system calls) and is at `map.code` with interrupts off, its exits not counted so
   * far. Every handler, and what follows the code, is HLT.
   */
  startKernel(code: string): this {
    this.writeTables();
    for (let vector = 0; vector < 256; vector++) {
      this.put64(map.idt + 16 * vector, ...gate(map.handlers + 32 * vector, vector === 0x80 || vector === 3 ? 0xeen : 0x8en));
      this.put(map.handlers + 32 * vector, 'f4');
    }
    for (const at of [map.lstar, map.sysenter, map.callGate]) this.put(at, 'f4');
    this.put(map.setUp, SET_UP).put(map.code, `${code}f4`);
    let at = map.msrs;
    for (const [index, value] of MSRS) {
      this.ram.view.setUint32(at, index, true);
      this.ram.view.setBigUint64(at + 4, value, true);
      at += 12;
    }
    const registers = { rsp: BigInt(map.stack) };
    const entry = longModeEntry(this.ram, { protocol: 'linux64', rip: BigInt(map.setUp), cr3: PML4, registers });
    this.put64(map.readOnly, 0n);
    this.design.boot(entry);
    return this;
  }

  /** Two MiB one to one, and the descriptor tables. */
  private writeTables(): void {
    this.put64(PML4, 0x2007n);
    this.put64(PDPT, 0x3007n);
    this.put64(PD, 0x4007n);
    for (let i = 0; i < 512; i++) {
      const user = i >= map.user >> 12 && i < map.absent >> 12;
      this.put64(PT + 8 * i, BigInt(i << 12) | (user ? 7n : 3n));
    }
    this.put64(PT + 8 * (map.readOnly >> 12), BigInt(map.readOnly) | 1n);
    this.put64(PT + 8 * (map.absent >> 12), BigInt(map.absent) | 6n);
    this.put64(PT + 8 * (map.device >> 12), 0xd000_0003n);
    this.put64(map.gdt, 0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00cf_fb00_0000_ffffn, 0x00cf_f300_0000_ffffn, 0x00af_fb00_0000_ffffn);
    const tss = 0x67n | (BigInt(map.tss) << 16n) | (0x89n << 40n);
    this.put64(map.gdt + 0x30, tss, 0n, tss, 0n, ...gate(map.callGate, 0xecn));
    this.put64(map.tss + 4, BigInt(map.kernelStack));
    // Operands of LGDT and LIDT.
    this.put64(map.tables, 0x5fn | (BigInt(map.gdt) << 16n), 0n, 0xfffn | (BigInt(map.idt) << 16n), 0n);
  }

  /** Starts at 0:`rip` in real mode. */
  startReal(rip: number): this {
    const { core } = this;
    this.design.boot(protectedModeEntry(this.ram, { protocol: 'linux32', rip: 0n, registers: {} }));
    this.ram.bytes.fill(0, 0, 0x8000);
    core.resetToReal(0);
    core.setSegment(0, CS, { selector: 0, base: 0n, limit: 0xffff, attr: 0x9b });
    core.modeChanged(0);
    core.setRip(0, BigInt(rip));
    return this;
  }
}

/** FNV-1a over 32-bit words. */
function hash(bytes: Uint8Array): number {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  let h = 0x811c_9dc5;
  for (const word of words) h = Math.imul(h ^ word, 0x0100_0193);
  return h >>> 0;
}
