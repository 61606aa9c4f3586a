import type { StateIo } from '@pvm/cpu-jit';
import { bootLinuxElf, DebugExit, type EntryState, HostChannel, type InterruptSink, PortBus, type PortSize, Uart16550 } from '@pvm/machine';
import type { GuestImage } from '../guest-image.ts';
import { InterruptQueue } from './interrupt-queue.ts';
import type { Platform } from './platform.ts';
import type { PlatformServices } from './services.ts';

/** What the embedded kernel needs to run one program: the channel to the host, a serial port for its log, the debug-exit port. No timers. */
export class ProgramBoard implements Platform {
  readonly kind = 'program';
  readonly timers = undefined;
  private readonly services: PlatformServices;
  private readonly bus = new PortBus();
  private readonly channel: HostChannel;
  private readonly queues: readonly InterruptQueue[];

  constructor(services: PlatformServices) {
    this.services = services;
    const { core, ram, options, time, stdin } = services;
    this.queues = Array.from({ length: core.vcpus }, () => new InterruptQueue());
    this.bus.attach(
      new Uart16550((byte) => {
        const wait = options.onSerial(new Uint8Array([byte]));
        if (wait !== undefined) services.hold(wait);
      }),
    );
    this.bus.attach(new DebugExit((exitCode) => services.stop('debug-exit', exitCode, 0)));
    this.channel = new HostChannel(ram, {
      stdout: (data) => options.onConsole(data) ?? undefined,
      stderr: (data) => options.onStderr(data) ?? undefined,
      stdin: (max) => stdin.read(max),
      powerOff: ({ exitCode, signal }) => services.stop('poweroff', exitCode, signal),
      unknownSyscalls: (calls) => services.unknownSyscalls(calls),
      wallClock: () => time.wallClock(),
      random: (buffer) => services.random(buffer),
      terminals: () => options.terminals,
      mark: (operations, id) => services.mark(operations, id),
      sleep: (ns) => time.sleep(ns),
    });
    this.bus.attach(this.channel);
  }

  load({ kernel, initrd }: GuestImage, commandLine: string): EntryState {
    return bootLinuxElf(this.services.ram, { kernel, initrd, commandLine });
  }

  readPort(port: number, size: PortSize): number {
    return this.bus.read(port, size);
  }
  writePort(port: number, size: PortSize, value: number): Promise<void> | undefined {
    return this.bus.write(port, size, value);
  }
  /** No device has memory. */
  readMmio(): number {
    return 0xffff_ffff;
  }
  writeMmio(): undefined {
    return undefined;
  }
  readMsr(): undefined {
    return undefined;
  }
  writeMsr(): boolean {
    return false;
  }

  apicPage(): number {
    return -1;
  }
  interrupts(vcpu: number): InterruptSink {
    return this.queue(vcpu);
  }
  sendInterrupt(vcpu: number, vector: number): void {
    this.queue(vcpu).add(vector);
    this.services.kick(vcpu);
  }
  sendNmi(vcpu: number): void {
    this.queue(vcpu).addNmi();
    this.services.kick(vcpu);
  }
  private queue(vcpu: number): InterruptQueue {
    const queue = this.queues[vcpu];
    if (queue === undefined) throw new RangeError(`no vCPU ${vcpu}`);
    return queue;
  }

  flush(): void {}
  dispose(): void {}

  state(s: StateIo): void {
    s.fields(this, ['bus', 'queues']);
  }
  resume(): Promise<void> | undefined {
    return this.channel.resume();
  }
}
