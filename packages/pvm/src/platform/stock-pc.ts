import { randomFillSync } from 'node:crypto';
import { S_RANDOM } from '@pvm/cpu-jit/layout';
import { Board, type EntryState, type InterruptSink, loadKernel, type MmioSize, type PortSize } from '@pvm/machine';
import type { GuestImage } from '../guest-image.ts';
import { CountMachineClock, HostMachineClock, type MachineClock } from './machine-clock.ts';
import type { Platform, PlatformTimers } from './platform.ts';
import type { PlatformServices } from './services.ts';

/** A PC for kernels that know nothing of us: the board with all its devices, and its clock. */
export class StockPc implements Platform {
  readonly kind = 'pc';
  readonly board: Board;
  readonly timers: PlatformTimers;
  readonly serialInput = (data: Uint8Array): void => this.board.serialInput(data);
  private readonly services: PlatformServices;

  /** @throws MachineError `bad-disk` */
  constructor(services: PlatformServices) {
    this.services = services;
    const { core, ram, options, time } = services;
    const isHost = options.clock === 'host';
    const clock: MachineClock = isHost ? new HostMachineClock(core, 0) : new CountMachineClock(core, 0);
    if (isHost) core.u64[(core.cpuAddress(0) + S_RANDOM) >>> 3] = randomFillSync(new BigUint64Array(1))[0] ?? 0n;
    this.board = new Board({
      ram,
      now: () => clock.now(),
      wallClock: () => time.wallClock(),
      tscToNs: (_vcpu, tsc) => clock.tscToNs(tsc),
      serialOutput: (data) => {
        const wait = options.onSerial(data);
        if (wait !== undefined) services.hold(wait);
      },
      onPowerOff: () => services.stop('poweroff', 0, 0),
      onReset: () => services.stop('reset', 0, 0),
      onDebugExit: (exitCode) => services.stop('debug-exit', exitCode & 0xff, 0),
      drives: options.drives,
      random: (buffer) => services.random(buffer),
      kick: () => services.kick(),
      onDeadlineChange: () => services.deadlineMoved(),
    });
    const { board } = this;
    this.timers = {
      clock,
      nextDeadline: () => board.nextDeadline(),
      runDue: () => {
        if (clock.now() >= board.nextDeadline()) board.runTimers();
      },
    };
  }

  /** Loads a kernel of any format that the board knows. @throws MachineError */
  load({ kernel, initrd }: GuestImage, commandLine: string): EntryState {
    const rsdp = this.board.writeFirmwareTables();
    return loadKernel(this.services.ram, { kernel, commandLine, rsdp, ...(initrd.length > 0 ? { initrd } : {}) });
  }

  readPort(port: number, size: PortSize): number {
    return this.board.readPort(port, size);
  }
  writePort(port: number, size: PortSize, value: number): Promise<void> | undefined {
    return this.board.writePort(port, size, value);
  }
  readMmio(vcpu: number, gpa: number, size: MmioSize): number {
    return this.board.readMmio(vcpu, gpa, size);
  }
  writeMmio(vcpu: number, gpa: number, size: MmioSize, value: number): Promise<void> | undefined {
    return this.board.writeMmio(vcpu, gpa, size, value);
  }
  readMsr(vcpu: number, msr: number): bigint | undefined {
    return this.board.ownsMsr(msr) ? this.board.readMsr(vcpu, msr) : undefined;
  }
  writeMsr(vcpu: number, msr: number, value: bigint): boolean {
    return this.board.ownsMsr(msr) && this.board.writeMsr(vcpu, msr, value);
  }

  apicPage(vcpu: number): number {
    return this.board.apics.apics[vcpu]?.mmioBase ?? -1;
  }
  interrupts(vcpu: number): InterruptSink {
    const sink = this.board.interrupts[vcpu];
    if (sink === undefined) throw new RangeError(`no vCPU ${vcpu}`);
    return sink;
  }
  sendInterrupt(_vcpu: number, vector: number): void {
    // As a message of a device would come: fixed delivery, edge, to APIC 0.
    this.board.sendMsi(0xfee0_0000, vector);
  }
  sendNmi(vcpu: number): void {
    this.board.injectNmi(vcpu);
  }

  flush(): void {
    this.board.flushSerial();
  }
  dispose(): void {
    this.board.flushSerial();
    this.board.dispose();
  }
}
