import { type ConsolePort, type Output, outputHandler, PvmError, type Vm, type VmOptions } from '@pvm/pvm';
import type { SnapshotArgs } from '../commands/snapshot-options.ts';

/** Where Ctrl-A S puts a snapshot without `--save`. */
const DEFAULT_FILE = 'pvm.pvmsnap';

/** Takes the snapshots of a run: at a number of instructions, when the guest says something, by a key. */
export class Saver {
  private readonly args: SnapshotArgs;
  private readonly note: (line: string) => void;
  private vm: Vm | undefined;
  private heard = '';
  /** What `--save-at` or `--save-on` asked for. */
  private wanted: Promise<void> | undefined;
  private busy = false;

  /** @param note tells people something */
  constructor(args: SnapshotArgs, note: (line: string) => void) {
    this.args = args;
    this.note = note;
  }

  /** The same settings, with outputs that are listened to for `--save-on`. */
  listen(settings: Partial<VmOptions>): Partial<VmOptions> {
    if (this.args.saveOn === undefined) return settings;
    const tap = (output: Output | undefined): Output => {
      const handler = outputHandler(output);
      return (chunk) => {
        this.look(chunk);
        return handler(chunk);
      };
    };
    const port = (p: ConsolePort): ConsolePort => ({ ...p, output: tap(p.output) });
    const { consolePorts } = settings;
    return {
      ...settings,
      onConsole: tap(settings.onConsole),
      onSerial: tap(settings.onSerial),
      ...(consolePorts === undefined ? {} : { consolePorts: consolePorts.map(port) }),
    };
  }

  /** The machine is there and does not run yet. */
  attach(vm: Vm): void {
    this.vm = vm;
    const { save, saveAt } = this.args;
    if (save !== undefined && saveAt !== undefined) this.wanted = this.take(save, saveAt);
    // Its error is told at the end.
    this.wanted?.catch(() => undefined);
  }

  /** Takes one now, for a key; what goes wrong is told at once, and the machine goes on. */
  now(): void {
    if (this.busy) return;
    this.busy = true;
    this.take(this.args.save ?? DEFAULT_FILE)
      .catch((e: unknown) => this.note(e instanceof Error ? e.message : String(e)))
      .finally(() => {
        this.busy = false;
      });
  }

  /** After the run. @throws PvmError when a snapshot that was asked for was not taken */
  async done(): Promise<void> {
    await this.wanted;
    const { saveOn } = this.args;
    if (saveOn !== undefined && this.wanted === undefined)
      throw new PvmError('wrong-state', `the guest never said ${JSON.stringify(saveOn)}: no snapshot was taken`);
  }

  private look(chunk: Uint8Array): void {
    const { saveOn = '', save = DEFAULT_FILE } = this.args;
    if (this.wanted !== undefined) return;
    this.heard += Buffer.from(chunk).toString('utf8');
    if (this.heard.includes(saveOn)) {
      this.wanted = this.take(save);
      this.wanted.catch(() => undefined);
    }
    this.heard = this.heard.slice(-saveOn.length);
  }

  private async take(file: string, at = 0): Promise<void> {
    const { vm } = this;
    if (vm === undefined) return;
    await vm.saveTo(file, { at, stop: this.args.saveExit });
    this.note(`snapshot written to ${file}`);
  }
}
