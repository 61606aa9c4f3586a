import type { Vm, VmOptions } from '@pvm/pvm';
import type { RunArgs } from '../commands/run-arguments.ts';
import { Consoles, consolePlan } from './consoles.ts';
import { Display } from './display.ts';
import type { Ending } from './ending.ts';
import { Keyboard } from './keyboard.ts';
import { bridgeVsock, vsockPlan } from './vsock-bridge.ts';

/** What a run is connected with: this process's streams, files, sockets, signals. */
export interface RunHost {
  /** @throws UsageError */
  settings(): Promise<Partial<VmOptions>>;
  /** The machine is there and does not run yet. @throws UsageError */
  attach(vm: Vm): Promise<void>;
  /** The terminal is as it was. */
  restore(): void;
  /** After the machine was disposed of. */
  close(): Promise<void>;
}

/** One line for people, on a terminal that may be raw. */
export function note(line: string): void {
  process.stderr.write(`pvm: ${line}${process.stderr.isTTY ? '\r\n' : '\n'}`);
}

/** A program has this process's standard streams. */
export class ProgramHost implements RunHost {
  private readonly debugConsole: boolean;

  constructor(a: RunArgs) {
    this.debugConsole = a.debugConsole;
  }

  async settings(): Promise<Partial<VmOptions>> {
    return {
      stdin: process.stdin,
      terminals: (process.stdin.isTTY ? 1 : 0) | (process.stdout.isTTY ? 2 : 0) | (process.stderr.isTTY ? 4 : 0),
      onConsole: process.stdout,
      onStderr: process.stderr,
      ...(this.debugConsole ? { onSerial: process.stderr } : {}),
    };
  }

  async attach(): Promise<void> {}
  restore(): void {}
  async close(): Promise<void> {}
}

/** The PC of a stock kernel: a console on the standard streams, others in files and sockets, keys and signals that do something to it. */
export class PcHost implements RunHost {
  private readonly plan: ReturnType<typeof consolePlan>;
  private readonly vsock: ReturnType<typeof vsockPlan>;
  private readonly end: Ending;
  private readonly save: () => void;
  private keyboard: Keyboard | undefined;
  private consoles: Consoles | undefined;
  private display: Display | undefined;
  private vm: Vm | undefined;
  private stopBridge: (() => void) | undefined;
  private readonly onResize = () => this.vm?.devices?.resizeConsole(process.stdout.columns, process.stdout.rows);
  private readonly onPower = () => this.vm?.devices?.pressPowerButton();

  /** @throws UsageError */
  constructor(a: RunArgs, end: Ending, save: () => void) {
    this.plan = consolePlan(a);
    this.vsock = vsockPlan(a);
    this.end = end;
    this.save = save;
  }

  async settings(): Promise<Partial<VmOptions>> {
    const hasKeyboard = this.plan.serial === 'stdio' || this.plan.virtio === 'stdio' || this.plan.hasScreen;
    if (hasKeyboard) this.keyboard = this.openKeyboard();
    this.consoles = await Consoles.open(this.plan, { input: this.keyboard?.input() ?? process.stdin, output: process.stdout }, this.end.signal);
    return {
      ...this.consoles.settings,
      onRestart: (cause) => {
        if (cause === 'triple-fault') note('the guest triple-faulted; restarted');
      },
    };
  }

  async attach(vm: Vm): Promise<void> {
    this.vm = vm;
    process.on('SIGPWR', this.onPower);
    if (this.plan.hasScreen) this.display = new Display(vm, process.stdout, this.keyboard?.input() ?? process.stdin);
    if (this.plan.virtio === 'stdio' && process.stdout.isTTY) {
      this.onResize();
      process.stdout.on('resize', this.onResize);
    }
    if (vm.devices?.vsock !== undefined) this.stopBridge = await bridgeVsock(this.vsock, vm.devices.vsock, note);
  }

  restore(): void {
    this.display?.close();
    this.keyboard?.restore();
  }

  async close(): Promise<void> {
    process.off('SIGPWR', this.onPower);
    process.stdout.off('resize', this.onResize);
    this.stopBridge?.();
    await this.consoles?.close();
  }

  private openKeyboard(): Keyboard {
    const keyboard: Keyboard = new Keyboard(process.stdin, {
      h: { what: 'shows this help', run: () => void process.stderr.write(keyboard.help()) },
      x: { what: 'ends the machine', run: () => this.end.end(0) },
      p: { what: 'presses the power button', run: this.onPower },
      s: { what: 'saves a snapshot (--save FILE, or pvm.pvmsnap)', run: this.save },
    });
    return keyboard;
  }
}
