import { randomFillSync } from 'node:crypto';
import type { StateIo } from '@pvm/cpu-jit';
import { S_RANDOM } from '@pvm/cpu-jit/layout';
import { Board, type EntryState, type InterruptSink, type LocalApic, loadKernel, type MmioSize, type PortSize, type VirtioConsole } from '@pvm/machine';
import type { GuestImage } from '../guest-image.ts';
import type { KvmHost } from '../kvm-pv/hypercalls.ts';
import { KvmPv } from '../kvm-pv/kvm-pv.ts';
import { InputLine } from '../pc/input-line.ts';
import { EXIT_PANIC, PanicWatch } from '../pc/panic.ts';
import { PcDevices } from '../pc/pc-devices.ts';
import type { OutputHandler } from '../streams.ts';
import { ICOUNT_EPOCH_NS } from './guest-time.ts';
import { CountMachineClock, HostMachineClock, type MachineClock } from './machine-clock.ts';
import type { Platform, PlatformTimers } from './platform.ts';
import type { PlatformServices } from './services.ts';

/** The guest's address among sockets; 0 to 2 are reserved. */
const GUEST_CID = 3;

/** A PC for kernels that know nothing of us: the board with all its devices, and its clock. */
export class StockPc implements Platform {
  readonly kind = 'pc';
  readonly board: Board;
  readonly timers: PlatformTimers;
  readonly devices: PcDevices;
  readonly kvm?: KvmHost;
  /** By vCPU; empty when the guest is offered no such interface. */
  private readonly kvmPv: readonly KvmPv[];
  isSilent = true;
  private readonly panic: PanicWatch;
  private readonly inputs: readonly InputLine[];
  private readonly services: PlatformServices;

  /** @throws MachineError `bad-disk` */
  constructor(services: PlatformServices) {
    this.services = services;
    const { core, ram, options } = services;
    const isHost = options.clock === 'host';
    const clock: MachineClock = isHost ? new HostMachineClock(core) : new CountMachineClock(core);
    for (let v = 0; v < core.vcpus; v++) core.u64[(core.cpuAddress(v) + S_RANDOM) >>> 3] = randomSeed(isHost, v);
    this.board = new Board({
      ram,
      vcpus: core.vcpus,
      now: () => clock.now(),
      wallClock: () => this.wallClock(clock),
      tscToNs: (vcpu, tsc) => clock.tscToNs(vcpu, tsc),
      serialOutput: (data) => this.write(options.onSerial, data),
      onPowerOff: () => services.stop('poweroff', 0, 0),
      onReset: () => this.resetRequested(),
      onDebugExit: (exitCode) => services.stop('debug-exit', exitCode & 0xff, 0),
      debugExitPort: options.debugExitPort,
      virtio: options.virtio,
      onMark: (operations, id) => services.mark(operations, id),
      drives: options.drives,
      shares: options.shares,
      balloon: options.balloon,
      ...(options.vsock ? { vsockCid: GUEST_CID } : {}),
      consolePorts: options.consolePorts.map(({ name, output }) => ({
        ...(name === undefined ? {} : { name }),
        output: (data) => this.write(output, data),
        onTaken: () => this.inputTaken(),
      })),
      random: (buffer) => services.random(buffer),
      kick: (vcpu) => services.kick(vcpu),
      onDeadlineChange: () => services.deadlineMoved(),
    });
    const { board } = this;
    this.panic = new PanicWatch(board.timers, () => services.stop('panic', EXIT_PANIC, 0));
    board.serial.onTaken = () => this.inputTaken();
    this.inputs = [
      new InputLine(services.stdin, { put: (data) => board.serialInput(data), waiting: () => board.serial.waiting }),
      ...this.portInputs(board.console),
    ];
    this.devices = new PcDevices(board);
    this.kvmPv = options.kvmPv ? board.apics.apics.map((apic, v) => this.createKvmPv(apic, v, clock)) : [];
    if (options.kvmPv) this.kvm = this.kvmHost();
    if (options.balloonTarget > 0) this.devices.setBalloon(options.balloonTarget);
    this.timers = {
      clock,
      nextDeadline: () => board.nextDeadline(),
      runDue: () => {
        if (clock.now() >= board.nextDeadline()) board.runTimers();
      },
    };
  }

  /** Nanoseconds since 1970 UTC. */
  private wallClock(clock: MachineClock): bigint {
    const { options, time } = this.services;
    return options.clock === 'host' ? time.wallClock() : ICOUNT_EPOCH_NS + BigInt(Math.floor(clock.now()));
  }

  private createKvmPv(apic: LocalApic, vcpu: number, clock: MachineClock): KvmPv {
    const { ram, time } = this.services;
    return new KvmPv({ ram, apic, tsc: () => time.tsc(vcpu), tscToNs: (tsc) => clock.tscToNs(vcpu, tsc), wallClock: () => this.wallClock(clock) });
  }

  private kvmHost(): KvmHost {
    const { services, board } = this;
    return {
      vcpus: this.kvmPv.length,
      kvmPv: (vcpu) => this.kvmPv[vcpu],
      sendIpi: (vcpu, delivery, vector) => board.apics.apics[vcpu]?.accept({ destination: vcpu, logical: false, wide: true, delivery, vector, level: false }),
      wake: (vcpu) => services.kick(vcpu),
      yieldTo: (vcpu) => services.yieldTo(vcpu),
    };
  }

  /** Loads a kernel of any format that the board knows. @throws MachineError */
  load({ kernel, initrd }: GuestImage, commandLine: string): EntryState {
    const rsdp = this.board.writeFirmwareTables();
    // A kernel that looks for devices in ACPI would find them twice.
    const isTold = /(^|\s)acpi=off(\s|$)/.test(commandLine);
    const line = [commandLine, isTold ? this.board.virtioMmioParameters() : ''].join(' ').trim();
    return loadKernel(this.services.ram, { kernel, commandLine: line, rsdp, ...(initrd.length > 0 ? { initrd } : {}) });
  }

  /** Disks, sockets that listen, and input that waits stay. */
  reset(): void {
    this.flush();
    this.board.reset();
    for (const kvm of this.kvmPv) kvm.reset();
    this.panic.reset();
    this.isSilent = true;
  }

  async runInput(): Promise<void> {
    await Promise.all(this.inputs.map((line) => line.run()));
  }
  async closeInput(): Promise<void> {
    await Promise.all(this.inputs.map((line) => line.close()));
  }

  private portInputs(device: VirtioConsole | undefined): InputLine[] {
    if (device === undefined) return [];
    return this.services.options.consolePorts.flatMap(({ input }, port) =>
      input === undefined ? [] : [new InputLine(input, { put: (data) => void device.receive(data, port), waiting: () => device.waiting(port) })],
    );
  }
  private inputTaken(): void {
    for (const line of this.inputs) line.taken();
  }
  private resetRequested(): void {
    this.flush();
    // A panicked kernel that resets at once (panic=-1) did not run to its end.
    if (this.panic.hasPanicked && !this.services.options.reboot) this.services.stop('panic', EXIT_PANIC, 0);
    else this.services.reset();
  }
  private write(output: OutputHandler, data: Uint8Array): void {
    this.isSilent = false;
    this.panic.see(data);
    const wait = output(data);
    if (wait !== undefined) this.services.hold(wait);
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
    return this.board.ownsMsr(msr) ? this.board.readMsr(vcpu, msr) : this.kvmPv[vcpu]?.readMsr(msr);
  }
  writeMsr(vcpu: number, msr: number, value: bigint): boolean {
    return this.board.ownsMsr(msr) ? this.board.writeMsr(vcpu, msr, value) : (this.kvmPv[vcpu]?.writeMsr(msr, value) ?? false);
  }

  apicPage(vcpu: number): number {
    return this.board.apics.apics[vcpu]?.mmioBase ?? -1;
  }
  interrupts(vcpu: number): InterruptSink {
    const sink = this.board.interrupts[vcpu];
    if (sink === undefined) throw new RangeError(`no vCPU ${vcpu}`);
    return sink;
  }
  sendInterrupt(vcpu: number, vector: number): void {
    // As a message of a device would come: fixed delivery, edge, to the vCPU's APIC.
    this.board.sendMsi(0xfee0_0000 | (vcpu << 12), vector);
  }
  sendNmi(vcpu: number): void {
    this.board.injectNmi(vcpu);
  }

  flush(): void {
    this.board.flushSerial();
  }
  dispose(): void {
    this.devices.dispose();
    this.board.flushSerial();
    this.board.dispose();
  }

  state(s: StateIo): void {
    s.part('clock', this.timers.clock);
    s.fields(this, ['board', 'kvmPv', 'panic', 'isSilent']);
  }
  resume(): undefined {
    this.board.resume();
  }
}

/** State of a vCPU's generator of random numbers; 0: its fixed one. Under the virtual clock each vCPU has another, the same in every run. */
function randomSeed(isHost: boolean, vcpu: number): bigint {
  return isHost ? (randomFillSync(new BigUint64Array(1))[0] ?? 0n) : BigInt(vcpu) * 0x2545_f491_4f6c_dd1dn;
}
