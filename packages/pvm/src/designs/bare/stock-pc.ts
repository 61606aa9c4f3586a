import { randomFillSync } from 'node:crypto';
import type { CpuCore } from '@pvm/cpu-jit';
import { S_RANDOM, V_TSC_MUL } from '@pvm/cpu-jit/layout';
import { Board, type DriveOptions, type GuestRam, loadKernel } from '@pvm/machine';
import type { ExitLedger } from '../../ledger.ts';
import { BareDesign } from './bare-design.ts';
import { CountMachineClock, HostMachineClock, type MachineClock } from './machine-clock.ts';

export interface StockPcOptions {
  readonly core: CpuCore;
  readonly ram: GuestRam;
  readonly ledger: ExitLedger;
  readonly clock: 'host' | 'icount';
  readonly drives: readonly DriveOptions[];
  /** Nanoseconds since 1970 UTC. */
  wallClock(): bigint;
  /** Random bytes for the virtio entropy device. */
  random(buffer: Uint8Array): void;
  /** Output of COM1. */
  serialOutput(data: Uint8Array): void;
  onPowerOff(): void;
  onReset(): void;
  onDebugExit(code: number): void;
  /** Something waits for a vCPU that may sleep. */
  wake(): void;
}

/** A PC for kernels that know nothing of us: the board with all its devices, its clock, and the bare design. */
export class StockPc {
  readonly board: Board;
  readonly design: BareDesign;
  private readonly ram: GuestRam;

  /** @throws MachineError `bad-disk` */
  constructor(options: StockPcOptions) {
    const { core, ram, ledger } = options;
    const clock: MachineClock = options.clock === 'host' ? new HostMachineClock(core, 0) : new CountMachineClock(core, 0);
    const base = core.cpuAddress(0);
    core.u32[(base + V_TSC_MUL) >>> 2] = 1;
    if (options.clock === 'host') core.u64[(base + S_RANDOM) >>> 3] = randomFillSync(new BigUint64Array(1))[0] ?? 0n;
    this.ram = ram;
    const late: { design?: BareDesign } = {};
    this.board = new Board({
      ram,
      now: () => clock.now(),
      wallClock: () => options.wallClock(),
      tscToNs: (_vcpu, tsc) => clock.tscToNs(tsc),
      serialOutput: (data) => options.serialOutput(data),
      onPowerOff: () => options.onPowerOff(),
      onReset: () => options.onReset(),
      onDebugExit: (code) => options.onDebugExit(code),
      drives: options.drives,
      random: (buffer) => options.random(buffer),
      kick: () => {
        late.design?.cut();
        options.wake();
      },
      onDeadlineChange: () => late.design?.cut(),
    });
    this.design = new BareDesign({ core, ledger, board: this.board, clock });
    late.design = this.design;
  }

  /** Loads a kernel of any format that the board knows. @throws MachineError */
  load(kernel: Uint8Array, initrd: Uint8Array, commandLine: string): void {
    const rsdp = this.board.writeFirmwareTables();
    this.design.boot(loadKernel(this.ram, { kernel, commandLine, rsdp, ...(initrd.length > 0 ? { initrd } : {}) }));
  }

  dispose(): void {
    this.board.flushSerial();
    this.board.dispose();
  }
}
