import type { Board, TextRow } from '@pvm/machine';
import { HostSockets } from './host-sockets.ts';

const PAGE = 4096;
const MAX_TERMINAL_SIZE = 0xffff;

/** What a program can do with the devices of a stock kernel's PC while it runs. */
export class PcDevices {
  /** Sockets to the guest; undefined without the option `vsock`. */
  readonly vsock: HostSockets | undefined;
  private readonly board: Board;

  constructor(board: Board) {
    this.board = board;
    this.vsock = board.vsock === undefined ? undefined : new HostSockets(board.vsock);
  }

  /** Press the ACPI power button: most systems shut down. */
  pressPowerButton(): void {
    this.board.pressPowerButton();
  }

  /**
   * The colour text screen (80 x 25) as the guest has drawn it at 0xb8000, for kernels that know no serial port. Stock Linux is not told of a screen.
   */
  screen(): TextRow[] {
    return this.board.textScreen();
  }

  /** Types on the PS/2 keyboard (US layout): characters, and what terminals send for arrows and function keys. */
  typeKeys(text: string): void {
    this.board.typeKeys(text);
  }

  /** The window of the virtio console's terminals has a new size, characters. @throws RangeError */
  resizeConsole(columns: number, rows: number): void {
    for (const n of [columns, rows]) {
      if (!Number.isInteger(n) || n < 1 || n > MAX_TERMINAL_SIZE) throw new RangeError(`a terminal has 1 to ${MAX_TERMINAL_SIZE} columns and rows, got ${n}`);
    }
    this.board.console?.resize(columns, rows);
  }

  /** Bytes that the guest has given back through the balloon; undefined without the option `balloon`. */
  get balloon(): number | undefined {
    return this.board.balloon?.actual;
  }

  /**
   * Ask the guest to give memory back, or take it again, until `bytes` are in the balloon; it may take its time, or refuse.
   *
   * @throws RangeError for a size that is none, or without a balloon
   */
  setBalloon(bytes: number): void {
    const { balloon } = this.board;
    if (balloon === undefined) throw new RangeError('the machine has no balloon; give the option balloon');
    if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes / PAGE >= 2 ** 32) throw new RangeError(`a balloon has 0 bytes or more, got ${bytes}`);
    balloon.setTarget(bytes);
  }

  dispose(): void {
    this.vsock?.dispose();
  }
}
