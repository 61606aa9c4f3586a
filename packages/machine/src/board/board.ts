import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { VirtioMmioPlace } from '../acpi/dsdt.ts';
import { AcpiPm, SCI_IRQ } from '../devices/acpi-pm.ts';
import { DebugExit } from '../devices/debug-exit.ts';
import { FwCfg } from '../devices/fw-cfg.ts';
import { I8042 } from '../devices/i8042.ts';
import { MarkPort } from '../devices/mark-port.ts';
import { PortBus, type PortSize } from '../devices/port-device.ts';
import { PostPort } from '../devices/post-port.ts';
import { Uart16550 } from '../devices/uart16550.ts';
import { type TextRow, textScreen } from '../devices/vga-text.ts';
import { MachineError } from '../errors.ts';
import { ApicBus } from '../interrupts/apic-bus.ts';
import { I8259Pair } from '../interrupts/i8259.ts';
import { IoApic } from '../interrupts/io-apic.ts';
import { msiMessage } from '../interrupts/messages.ts';
import { PCI_FIRST_GSI, PciBus } from '../pci/pci-bus.ts';
import type { GuestRam } from '../ram.ts';
import type { HostFolder } from '../share/host-folder.ts';
import { openShare, type ShareOptions } from '../share/share.ts';
import type { BlockBackend } from '../storage/block-backend.ts';
import { type DriveOptions, openDrive } from '../storage/drive.ts';
import { CmosRtc } from '../time/cmos-rtc.ts';
import { I8254 } from '../time/i8254.ts';
import { TimerQueue } from '../time/timer-queue.ts';
import { VirtioBalloon } from '../virtio/balloon.ts';
import { VirtioBlock } from '../virtio/block.ts';
import { type ConsolePortOptions, VirtioConsole } from '../virtio/console.ts';
import { Virtio9p } from '../virtio/p9.ts';
import { VirtioRng } from '../virtio/rng.ts';
import type { VirtioDevice } from '../virtio/virtio-device.ts';
import { VirtioMmio } from '../virtio/virtio-mmio.ts';
import { VirtioPci } from '../virtio/virtio-pci.ts';
import { VirtioVsock } from '../virtio/vsock.ts';
import { buildTablesFor } from './firmware.ts';
import { LocalApicWindow } from './local-apic-window.ts';
import { MmioBus, type MmioSize } from './mmio-bus.ts';
import { SerialOutput } from './serial-output.ts';
import { VcpuInterrupts } from './vcpu-interrupts.ts';

/** Most vCPUs of a board. */
export const MAX_BOARD_VCPUS = 8;

/** What the machine supplies to its board and wants to hear from it. */
export interface BoardOptions {
  readonly ram: GuestRam;
  /** Number of vCPUs, 1 to 8; default 1. */
  readonly vcpus?: number;
  /** Current time, ns since power-on. Everything on the board that measures time uses it. */
  now(): number;
  /** Nanoseconds since 1970-01-01 UTC. */
  wallClock(): bigint;
  /** When the TSC of a vCPU reaches `tsc`, ns on the clock of `now`. Default: TSC counts nanoseconds. */
  tscToNs?(vcpu: number, tsc: bigint): number;
  /** Output of COM1, as it comes; a copy the receiver may keep. */
  serialOutput?(data: Uint8Array): void;
  /** The guest asks for a reset (ACPI, 0xcf9, keyboard controller). Calls `Board.reset` if it honours it. */
  onReset?(): void;
  /** The guest powered off. */
  onPowerOff?(): void;
  /** The guest wrote the debug-exit port; `code` is `(value << 1) | 1`. */
  onDebugExit?(code: number): void;
  /** A program marked the begin of interval `id` of so many operations; 0: its end. It goes on when the promise settles. */
  onMark?(operations: number, id: number): Promise<void> | undefined;
  /** An interrupt, NMI, INIT or SIPI waits for a vCPU: leave HLT, cut a run short. May be called while the vCPU runs. */
  kick?(vcpu: number): void;
  /** The next deadline moved forward: a run limited to the old one must be cut short. */
  onDeadlineChange?(): void;
  /** First of the debug-exit device's four ports; default 0xf4. `false`: there is none. */
  readonly debugExitPort?: number | false;
  /** Disks, in the order in which the guest finds them (vda, vdb, ...). */
  readonly drives?: readonly DriveOptions[];
  /** Folders of the host that the guest can mount by 9P. */
  readonly shares?: readonly ShareOptions[];
  /** Offer stream sockets to the guest under this context ID, 3 or higher. */
  readonly vsockCid?: number;
  /** Offer a memory balloon; default false. */
  readonly balloon?: boolean;
  /** How virtio devices are attached; default PCI. MMIO devices are announced by ACPI and `Board.virtioMmioParameters`. */
  readonly virtio?: 'pci' | 'mmio';
  /** Fills a buffer with random bytes for the virtio entropy source; without it there is none. */
  random?(buffer: Uint8Array): void;
  /** Ports of a virtio console; without any there is none. */
  readonly consolePorts?: readonly ConsolePortOptions[];
  /** Additional items of the firmware-configuration device. */
  readonly fwCfgFiles?: ReadonlyMap<string, Uint8Array>;
}

/** ISA IRQ 0 arrives at pin 2 of the I/O APIC. */
const TIMER_PIN = 2;
const CASCADE_IRQ = 2;
/** ISA interrupts that PCI lines share for software without I/O APIC: level triggered. */
const PCI_ISA_IRQS = [10, 11] as const;

/** The PC: buses, interrupt controllers, timers, serial port, firmware tables. One per machine, for all designs. */
export class Board implements Saveable {
  readonly ports = new PortBus();
  readonly mmio = new MmioBus();
  readonly timers: TimerQueue;
  readonly apics: ApicBus;
  readonly ioApic: IoApic;
  readonly pic: I8259Pair;
  readonly pci: PciBus;
  readonly serial: Uart16550;
  readonly rtc: CmosRtc;
  readonly pit: I8254;
  readonly acpiPm: AcpiPm;
  readonly post = new PostPort();
  /** Sockets to the guest, undefined without `vsockCid`. */
  readonly vsock: VirtioVsock | undefined;
  /** Memory balloon, undefined without the option. */
  readonly balloon: VirtioBalloon | undefined;
  /** Virtio console, undefined without ports. */
  readonly console: VirtioConsole | undefined;
  /** Interrupt interface of each vCPU. */
  readonly interrupts: readonly VcpuInterrupts[];
  private readonly ram: GuestRam;
  private readonly localApicWindow: LocalApicWindow;
  private readonly i8042: I8042;
  private readonly fwCfg: FwCfg;
  private readonly serialOut: SerialOutput;
  private readonly vcpus: number;
  private readonly pciLines = new Uint8Array(8);
  private readonly disks: BlockBackend[] = [];
  private readonly folders: HostFolder[] = [];
  private readonly virtioMmio: VirtioMmio[] = [];
  private readonly virtioTransport: 'pci' | 'mmio';

  /** @throws MachineError `bad-board-option` */
  constructor(options: BoardOptions) {
    this.ram = options.ram;
    this.vcpus = options.vcpus ?? 1;
    if (!Number.isInteger(this.vcpus) || this.vcpus < 1 || this.vcpus > MAX_BOARD_VCPUS) {
      throw new MachineError('bad-board-option', `a board has 1 to ${MAX_BOARD_VCPUS} vCPUs, got ${this.vcpus}`);
    }
    const kick = (vcpu: number): void => options.kick?.(vcpu);
    const reset = (): void => options.onReset?.();
    this.timers = new TimerQueue(
      () => options.now(),
      () => options.onDeadlineChange?.(),
    );
    this.apics = new ApicBus(this.vcpus, this.timers, {
      kick,
      tscToNs: (vcpu, tsc) => options.tscToNs?.(vcpu, tsc) ?? Number(tsc),
    });
    this.pic = new I8259Pair((level) => {
      this.apics.apics[0]?.lint0(level);
      if (level) kick(0);
    });
    this.ioApic = new IoApic((message) => this.apics.send(message));
    this.apics.onEoi((vector) => this.ioApic.eoi(vector));
    this.interrupts = this.apics.apics.map((apic) => new VcpuInterrupts(apic, this.pic));
    this.localApicWindow = new LocalApicWindow(this.apics.apics);

    this.pit = new I8254(this.timers, (level) => this.setIrq(0, level));
    this.rtc = new CmosRtc(
      this.timers,
      () => options.wallClock(),
      (level) => this.setIrq(8, level),
      this.ram.size,
    );
    this.acpiPm = new AcpiPm(
      this.timers,
      (level) => this.setIrq(SCI_IRQ, level),
      () => options.onPowerOff?.(),
    );
    this.i8042 = new I8042(
      (level) => this.setIrq(1, level),
      (level) => this.setIrq(12, level),
      reset,
    );
    this.serialOut = new SerialOutput((data) => options.serialOutput?.(data));
    this.serial = new Uart16550(
      (byte) => this.serialOut.put(byte),
      0x3f8,
      (level) => this.setIrq(4, level),
    );
    this.fwCfg = new FwCfg(this.ram, this.vcpus, options.fwCfgFiles ?? new Map());
    this.pci = new PciBus(this.mmio, {
      setLine: (line, level) => this.setPciLine(line, level),
      sendMsi: (address, data) => this.sendMsi(address, data),
      reset,
      isaIrq,
    });
    this.mmio.attach(this.ioApic);
    const marks = new MarkPort((operations, id) => options.onMark?.(operations, id));
    for (const device of [this.pic, this.pit, this.rtc, this.acpiPm, this.i8042, this.serial, this.post, this.fwCfg, this.pci, marks])
      this.ports.attach(device);
    const { debugExitPort = 0xf4 } = options;
    if (debugExitPort !== false) this.ports.attach(new DebugExit((code) => options.onDebugExit?.(code), debugExitPort));
    this.setPciTriggers();

    this.virtioTransport = options.virtio ?? 'pci';
    for (const drive of options.drives ?? []) {
      const disk = openDrive(drive);
      this.disks.push(disk);
      this.attachVirtio(new VirtioBlock(this.ram, disk, drive.serial));
    }
    for (const share of options.shares ?? []) {
      const folder = openShare(share);
      this.folders.push(folder);
      this.attachVirtio(new Virtio9p(this.ram, folder, share.tag));
    }
    if (options.vsockCid !== undefined) {
      this.vsock = new VirtioVsock(this.ram, options.vsockCid);
      this.attachVirtio(this.vsock);
    }
    if (options.balloon === true) {
      this.balloon = new VirtioBalloon(this.ram);
      this.attachVirtio(this.balloon);
    }
    const { random, consolePorts = [] } = options;
    if (random !== undefined) this.attachVirtio(new VirtioRng(this.ram, (buffer) => random(buffer)));
    if (consolePorts.length > 0) {
      this.console = new VirtioConsole(this.ram, consolePorts);
      this.attachVirtio(this.console);
    }
  }

  /** Attach a virtio device to the board's transport. Before the guest runs and before the firmware tables are written. @throws MachineError `no-room` */
  attachVirtio(device: VirtioDevice): void {
    if (this.virtioTransport === 'pci') {
      this.pci.plugIn(new VirtioPci(device));
      return;
    }
    const index = this.virtioMmio.length;
    if (index >= VIRTIO_MMIO_IRQS.length) throw new MachineError('no-room', `at most ${VIRTIO_MMIO_IRQS.length} virtio devices fit on MMIO`);
    const gsi = VIRTIO_MMIO_IRQS[index] ?? 5;
    const transport = new VirtioMmio(device, VIRTIO_MMIO_BASE + index * 0x1000, (level) => this.setGsi(gsi, level));
    this.mmio.attach(transport);
    this.virtioMmio.push(transport);
  }

  /** What announces the MMIO devices on a Linux command line; empty without any. For kernels without ACPI. */
  virtioMmioParameters(): string {
    return this.virtioMmioPlaces()
      .map((place) => `virtio_mmio.device=0x${place.size.toString(16)}@0x${place.base.toString(16)}:${place.gsi}`)
      .join(' ');
  }

  /** Close disk images and shared folders. */
  dispose(): void {
    for (const folder of this.folders) folder.close();
    for (const disk of this.disks) disk.close();
  }

  /** Write the ACPI tables into guest RAM, as firmware would. @returns GPA of the root pointer, for the boot loaders */
  writeFirmwareTables(): number {
    return buildTablesFor(this.ram, this.vcpus, this.virtioMmioPlaces());
  }

  /** Power-on state of every device. Guest RAM and firmware tables are the caller's. */
  reset(): void {
    for (const apic of this.apics.apics) apic.reset();
    for (const device of [this.pic, this.ioApic, this.pit, this.rtc, this.acpiPm, this.i8042, this.serial, this.fwCfg, this.pci]) device.reset();
    for (const device of this.virtioMmio) device.reset();
    this.setPciTriggers();
    this.flushSerial();
  }

  // ------------------------------------------------------------ accesses of the guest
  readPort(port: number, size: PortSize): number {
    return this.ports.read(port, size);
  }

  /** A returned promise suspends the vCPU until it settles. */
  writePort(port: number, size: PortSize, value: number): Promise<void> | undefined {
    return this.ports.write(port, size, value);
  }

  /** Load from guest-physical addresses outside RAM; `vcpu` matters for the local APIC. Values of 4 bytes are unsigned. */
  readMmio(vcpu: number, gpa: number, size: MmioSize): number {
    if (this.localApicWindow.contains(vcpu, gpa)) return this.localApicWindow.read(vcpu, gpa, size);
    return this.mmio.read(gpa, size);
  }

  /** Store outside RAM. A returned promise suspends the vCPU until it settles. */
  writeMmio(vcpu: number, gpa: number, size: MmioSize, value: number): Promise<void> | undefined {
    if (this.localApicWindow.contains(vcpu, gpa)) {
      this.localApicWindow.write(vcpu, gpa, value);
      return undefined;
    }
    return this.mmio.write(gpa, size, value);
  }

  /** RDMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range. @returns undefined: not an MSR of the board, or #GP */
  readMsr(vcpu: number, msr: number): bigint | undefined {
    const apic = this.apics.apics[vcpu];
    if (msr === MSR_APIC_BASE) return apic?.apicBase;
    if (msr === MSR_TSC_DEADLINE) return apic?.tscDeadline;
    return apic?.readMsr(msr);
  }

  /** WRMSR of the same. @returns false: not an MSR of the board, or #GP */
  writeMsr(vcpu: number, msr: number, value: bigint): boolean {
    const apic = this.apics.apics[vcpu];
    if (apic === undefined) return false;
    if (msr === MSR_APIC_BASE) return apic.writeApicBase(value);
    if (msr !== MSR_TSC_DEADLINE) return apic.writeMsr(msr, value);
    apic.tscDeadline = value;
    return true;
  }

  /** Whether an MSR belongs to the board. */
  ownsMsr(msr: number): boolean {
    return msr === MSR_APIC_BASE || msr === MSR_TSC_DEADLINE || (msr >= 0x800 && msr <= 0x8ff);
  }

  // ------------------------------------------------------------ time
  /** Earliest time something happens by itself, ns; Infinity: never. */
  nextDeadline(): number {
    return this.timers.nextDeadline();
  }

  /** Let everything happen that is due. */
  runTimers(): void {
    this.timers.run();
  }

  // ------------------------------------------------------------ from outside
  /** Bytes typed at the serial console. */
  serialInput(data: Uint8Array): void {
    this.serial.receive(data);
  }

  /** Hand over serial output that waits to be handed over in larger pieces; call before the machine ends. */
  flushSerial(): void {
    this.serialOut.flush();
  }

  /** Types `text` on the PS/2 keyboard. */
  typeKeys(text: string): void {
    this.i8042.type(text);
  }

  /** What the guest has drawn in VGA's text memory. */
  textScreen(): TextRow[] {
    return textScreen(this.ram);
  }

  pressPowerButton(): void {
    this.acpiPm.pressPowerButton();
  }

  /** Non-maskable interrupt for a vCPU. */
  injectNmi(vcpu: number): void {
    const apic = this.apics.apics[vcpu];
    if (apic !== undefined) apic.accept({ destination: vcpu, logical: false, wide: true, delivery: 4, vector: 0, level: false });
  }

  /** Level of an ISA interrupt line: to the 8259 pair and the I/O APIC alike. */
  setIrq(irq: number, level: boolean): void {
    if (irq !== CASCADE_IRQ) this.pic.setIrq(irq, level);
    this.ioApic.setPin(irq === 0 ? TIMER_PIN : irq, level);
  }

  /** Interrupt message of a device. */
  sendMsi(address: number, data: number): void {
    if (address >>> 20 === 0xfee) this.apics.send(msiMessage(address, data));
  }

  /** Level of a global system interrupt: an ISA line below 16, a pin of the I/O APIC from 16 on. */
  private setGsi(gsi: number, level: boolean): void {
    if (gsi < 16) this.setIrq(gsi, level);
    else this.ioApic.setPin(gsi, level);
  }

  private virtioMmioPlaces(): VirtioMmioPlace[] {
    return this.virtioMmio.map((device, i) => ({ base: device.base, size: device.size, gsi: VIRTIO_MMIO_IRQS[i] ?? 5 }));
  }

  private setPciLine(line: number, level: boolean): void {
    this.pciLines[line] = level ? 1 : 0;
    this.ioApic.setPin(PCI_FIRST_GSI + line, level);
    const irq = isaIrq(line);
    this.pic.setIrq(
      irq,
      this.pciLines.some((on, i) => on !== 0 && isaIrq(i) === irq),
    );
  }

  private setPciTriggers(): void {
    this.pic.write(
      0x4d1,
      1,
      PCI_ISA_IRQS.reduce((bits: number, irq) => bits | (1 << (irq - 8)), 1 << (SCI_IRQ - 8)),
    );
  }

  // ------------------------------------------------------------ snapshots
  /** Of all devices: those on the two buses, the local APICs and the timers. Output that waits is handed over first. */
  state(s: StateIo): void {
    if (!s.restoring) this.flushSerial();
    s.fields(this, ['timers', 'apics', 'pciLines', 'ports', 'mmio']);
  }

  /** After a restore, when all of the machine is in place. */
  resume(): void {
    this.vsock?.resume();
  }
}

/** Where virtio MMIO devices lie: below the I/O APIC, above the PCI window's BARs; and their interrupts. */
const VIRTIO_MMIO_BASE = 0xfeb0_0000;
const VIRTIO_MMIO_IRQS = [16, 17, 18, 19, 20, 21, 22, 23] as const;
const MSR_APIC_BASE = 0x1b;
const MSR_TSC_DEADLINE = 0x6e0;

function isaIrq(line: number): number {
  return PCI_ISA_IRQS[line & 1] ?? PCI_ISA_IRQS[0];
}
