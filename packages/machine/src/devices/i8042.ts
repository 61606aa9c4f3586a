import type { StateIo } from '@pvm/cpu-jit';
import type { PortDevice, PortSize } from './port-device.ts';
import { type KeyEvent, keysFor, scanCode } from './ps2-keys.ts';

// IBM PS/2 Technical Reference, "Keyboard and Auxiliary Device Controller".
const DATA = 0x60;
const COMMAND = 0x64;
/** System control port A: A20 and fast reset. */
const PORT_A = 0x92;
const STATUS_OUTPUT_FULL = 0x01;
const STATUS_SYSTEM = 0x04;
const STATUS_COMMAND = 0x08;
const STATUS_UNLOCKED = 0x10;
const STATUS_AUX = 0x20;
const CONFIG_KEYBOARD_IRQ = 0x01;
const CONFIG_AUX_IRQ = 0x02;
const CONFIG_KEYBOARD_OFF = 0x10;
const CONFIG_TRANSLATE = 0x40;
/** As a PC's firmware leaves it: keyboard with interrupts and translated to set 1, no mouse. */
const CONFIG_AT_BOOT = 0x65;
const ACK = 0xfa;
const SELF_TEST_PASSED = 0xaa;
const MAX_QUEUE = 16;
/** Key events that wait for room in the controller's buffer. */
const MAX_TYPED = 4096;

/** Keyboard controller: a keyboard on which the host types, no mouse; gates A20, resets the machine. */
export class I8042 implements PortDevice {
  readonly name = 'i8042';
  readonly ports = [
    { first: DATA, last: DATA },
    { first: COMMAND, last: COMMAND },
    { first: PORT_A, last: PORT_A },
  ];
  private readonly keyboardIrq: (level: boolean) => void;
  private readonly auxIrq: (level: boolean) => void;
  private readonly onReset: () => void;
  private queue: { byte: number; aux: boolean }[] = [];
  private typed: KeyEvent[] = [];
  private config = 0;
  private command = 0;
  private lastWasCommand = false;
  private portA = 0x02;

  constructor(keyboardIrq: (level: boolean) => void, auxIrq: (level: boolean) => void, onReset: () => void) {
    this.keyboardIrq = keyboardIrq;
    this.auxIrq = auxIrq;
    this.onReset = onReset;
    this.reset();
  }

  reset(): void {
    this.queue = [];
    this.typed = [];
    this.config = CONFIG_AT_BOOT;
    this.command = 0;
    this.portA = 0x02;
    this.update();
  }

  /** Types `text`, as `keysFor` understands it; what does not fit into the buffer waits. */
  type(text: string): void {
    this.typed.push(...keysFor(text).slice(0, MAX_TYPED - this.typed.length));
    this.update();
  }

  read(port: number): number {
    if (port === PORT_A) return this.portA;
    if (port === COMMAND) {
      const head = this.queue[0];
      const full = head === undefined ? 0 : STATUS_OUTPUT_FULL | (head.aux ? STATUS_AUX : 0);
      return STATUS_UNLOCKED | STATUS_SYSTEM | full | (this.lastWasCommand ? STATUS_COMMAND : 0);
    }
    const byte = this.queue.shift()?.byte ?? 0;
    // A line that stayed up would announce no second byte to an edge-triggered input.
    this.keyboardIrq(false);
    this.auxIrq(false);
    this.update();
    return byte;
  }

  write(port: number, _size: PortSize, value: number): undefined {
    const byte = value & 0xff;
    if (port === PORT_A) {
      this.portA = byte & 0xfe;
      if ((byte & 1) !== 0) this.onReset();
    } else if (port === COMMAND) {
      this.lastWasCommand = true;
      this.controllerCommand(byte);
    } else {
      this.lastWasCommand = false;
      this.data(byte);
    }
    this.update();
  }

  private controllerCommand(byte: number): void {
    this.command = 0;
    switch (byte) {
      case 0x20:
        this.put(this.config);
        return;
      case 0x60: // write configuration
      case 0xd1: // write output port
      case 0xd2: // echo as keyboard
      case 0xd3: // echo as mouse
      case 0xd4: // to the mouse
        this.command = byte;
        return;
      case 0xa7:
        this.config |= 0x20;
        return;
      case 0xa8:
        this.config &= ~0x20;
        return;
      case 0xa9:
      case 0xab:
        this.put(0);
        return;
      case 0xaa:
        this.put(0x55);
        return;
      case 0xad:
        this.config |= CONFIG_KEYBOARD_OFF;
        return;
      case 0xae:
        this.config &= ~CONFIG_KEYBOARD_OFF;
        return;
      case 0xd0:
        this.put(0x01 | (this.portA & 2));
        return;
      default:
        // 0xf0-0xff pulse output lines; line 0 is the processor's reset.
        if (byte >= 0xf0 && (byte & 1) === 0) this.onReset();
    }
  }

  private data(byte: number): void {
    const { command } = this;
    this.command = 0;
    switch (command) {
      case 0x60:
        this.config = byte;
        return;
      case 0xd1:
        if ((byte & 1) === 0) this.onReset();
        this.portA = (this.portA & ~2) | (byte & 2);
        return;
      case 0xd2:
        this.put(byte);
        return;
      case 0xd3:
        this.put(byte, true);
        return;
      case 0xd4:
        return; // no mouse: no answer
      default:
        this.keyboard(byte);
    }
  }

  private keyboard(byte: number): void {
    this.put(ACK);
    if (byte === 0xff) this.put(SELF_TEST_PASSED);
    else if (byte === 0xf2) {
      this.put(0xab);
      this.put(0x83);
    }
  }

  private put(byte: number, aux = false): void {
    if (this.queue.length < MAX_QUEUE) this.queue.push({ byte, aux });
  }

  private update(): void {
    // An event's bytes (3 at most) stay together.
    while ((this.config & CONFIG_KEYBOARD_OFF) === 0 && this.queue.length <= MAX_QUEUE - 3) {
      const event = this.typed.shift();
      if (event === undefined) break;
      for (const byte of scanCode(event, (this.config & CONFIG_TRANSLATE) !== 0 ? 1 : 2)) this.put(byte);
    }
    const head = this.queue[0];
    this.keyboardIrq(head !== undefined && !head.aux && (this.config & CONFIG_KEYBOARD_IRQ) !== 0);
    this.auxIrq(head?.aux === true && (this.config & CONFIG_AUX_IRQ) !== 0);
  }

  state(s: StateIo): void {
    s.fields(this, ['queue', 'typed', 'config', 'command', 'lastWasCommand', 'portA']);
  }
}
