import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { TimerQueue } from '../time/timer-queue.ts';
import { LocalApic } from './local-apic.ts';
import { type ApicMessage, DELIVER_LOWEST } from './messages.ts';

const SHORTHAND_SELF = 1;
const SHORTHAND_ALL = 2;
const SHORTHAND_OTHERS = 3;

/** What the bus needs from the machine. */
export interface ApicBusWiring {
  kick(vcpu: number): void;
  tscToNs(vcpu: number, tsc: bigint): number;
}

/** The local APICs of a machine and the messages between them. */
export class ApicBus implements Saveable {
  readonly apics: readonly LocalApic[];
  private readonly eoiListeners: ((vector: number) => void)[] = [];

  constructor(vcpus: number, queue: TimerQueue, wiring: ApicBusWiring) {
    const own = {
      send: (message: ApicMessage, shorthand: number, from: LocalApic) => this.sendIpi(message, shorthand, from),
      broadcastEoi: (vector: number) => {
        for (const listener of this.eoiListeners) listener(vector);
      },
      kick: wiring.kick,
      tscToNs: wiring.tscToNs,
    };
    this.apics = Array.from({ length: vcpus }, (_, id) => new LocalApic(id, queue, own));
  }

  /** Called with the vector of each level-triggered interrupt that was served. */
  onEoi(listener: (vector: number) => void): void {
    this.eoiListeners.push(listener);
  }

  /** Deliver a message from an IOAPIC or a device. */
  send(message: ApicMessage): void {
    this.deliver(
      message,
      this.apics.filter((apic) => apic.matches(message)),
    );
  }

  private sendIpi(message: ApicMessage, shorthand: number, from: LocalApic): void {
    if (shorthand === SHORTHAND_SELF) this.deliver(message, [from]);
    else if (shorthand === SHORTHAND_ALL) this.deliver(message, this.apics);
    else if (shorthand === SHORTHAND_OTHERS)
      this.deliver(
        message,
        this.apics.filter((apic) => apic !== from),
      );
    else this.send(message);
  }

  private deliver(message: ApicMessage, targets: readonly LocalApic[]): void {
    if (message.delivery !== DELIVER_LOWEST) {
      for (const apic of targets) apic.accept(message);
      return;
    }
    let best: LocalApic | undefined;
    for (const apic of targets) {
      if (apic.softwareEnabled && (best === undefined || apic.priority < best.priority)) best = apic;
    }
    best?.accept(message);
  }

  state(s: StateIo): void {
    s.fields(this, ['apics']);
  }
}
