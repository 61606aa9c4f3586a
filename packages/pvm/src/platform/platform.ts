import type { Saveable } from '@pvm/cpu-jit';
import type { EntryState, InterruptSink, MmioSize, PortSize } from '@pvm/machine';
import type { GuestImage } from '../guest-image.ts';
import type { KvmHost } from '../kvm-pv/hypercalls.ts';
import type { PcDevices } from '../pc/pc-devices.ts';
import type { MachineClock } from './machine-clock.ts';

/** `program`: our own kernel runs one program (`ProgramBoard`); `pc`: a stock kernel boots (`StockPc`). */
export type PlatformKind = 'program' | 'pc';

/** Timers of the devices, on the clock of their machine. */
export interface PlatformTimers {
  readonly clock: MachineClock;
  /** Earliest time at which a device does something by itself, ns on `clock`; Infinity: never. */
  nextDeadline(): number;
  /** Let everything happen that is due. */
  runDue(): void;
}

/** The machine around the vCPUs: devices, interrupts, timers. The designs are the same on all of them. */
export interface Platform extends Saveable {
  readonly kind: PlatformKind;
  /** Undefined: nothing on this board ever happens by itself. */
  readonly timers: PlatformTimers | undefined;
  /** Puts kernel and RAM disk into guest RAM. @returns what the boot protocol asks of the boot vCPU. @throws MachineError */
  load(image: GuestImage, commandLine: string): EntryState;

  readPort(port: number, size: PortSize): number;
  /** A returned promise suspends the vCPU until it settles. */
  writePort(port: number, size: PortSize, value: number): Promise<void> | undefined;
  /** Guest-physical addresses outside RAM; where there is nothing, reads give all ones. Values of 4 bytes are unsigned. */
  readMmio(vcpu: number, gpa: number, size: MmioSize): number;
  writeMmio(vcpu: number, gpa: number, size: MmioSize, value: number): Promise<void> | undefined;
  /** MSRs of devices (local APIC, its timer). Undefined: #GP. */
  readMsr(vcpu: number, msr: number): bigint | undefined;
  /** False: #GP. */
  writeMsr(vcpu: number, msr: number, value: bigint): boolean;

  /** KVM's paravirtual interface; absent: the guest is offered none. */
  readonly kvm?: KvmHost;

  /** Guest-physical address of the vCPU's local APIC registers, -1: they are not in memory. */
  apicPage(vcpu: number): number;
  /** Where a vCPU asks for external interrupts. */
  interrupts(vcpu: number): InterruptSink;
  /** External interrupt and NMI from the host. */
  sendInterrupt(vcpu: number, vector: number): void;
  sendNmi(vcpu: number): void;

  /** Carries the machine's input to its devices until it ends or `closeInput` is called; absent when the program reads it by itself. Rejects with what a source throws. */
  runInput?(): Promise<void>;
  /** Lets go of the sources of input. */
  closeInput?(): Promise<void>;
  /** What a program can do with the devices of the PC; absent: there are none. */
  readonly devices?: PcDevices;
  /** Power-on state of every device; absent: the machine never restarts. `load` follows. */
  reset?(): void;
  /** The guest has written nothing to a console since power-on or the last reset; absent: it is not known. */
  readonly isSilent?: boolean;
  /** Hand over output that waits to be handed over in larger pieces. */
  flush(): void;
  /** After a restore, when all of the machine is in place. @returns what the boot vCPU waits for, undefined: it can run */
  resume(): Promise<void> | undefined;
  dispose(): void;
}
