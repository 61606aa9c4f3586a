import { constants, createWriteStream, openSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';
import { UsageError } from '../errors.ts';

/** Between two looks whether a pipe has a reader, ms. */
const LOOK_AGAIN = 50;

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : error;
}

/** A file or a pipe that a console writes into. */
export class ConsoleFile {
  readonly stream: Writable;
  private readonly done: Promise<void>;

  private constructor(what: string, stream: Writable) {
    this.stream = stream;
    this.done = finished(stream, { readable: false }).catch((cause: unknown) => {
      throw new UsageError(`${what}: cannot be written (${codeOf(cause)})`);
    });
    // Told by `close`.
    this.done.catch(() => undefined);
  }

  /**
   * @param option how messages call it
   * @param signal ends waiting for the reader of a pipe
   * @throws UsageError; the reason of `signal`
   */
  static async open(option: string, path: string, signal: AbortSignal): Promise<ConsoleFile> {
    const what = `${option} file:${path}`;
    try {
      const isPipe = statSync(path, { throwIfNoEntry: false })?.isFIFO() === true;
      return new ConsoleFile(what, isPipe ? await openPipe(path, signal) : createWriteStream(path, { fd: openSync(path, 'w') }));
    } catch (e) {
      signal.throwIfAborted();
      throw new UsageError(`${what}: cannot be written (${codeOf(e)})`);
    }
  }

  /** The file has everything when this resolves. @throws UsageError when it could not be written */
  async close(): Promise<void> {
    this.stream.end();
    await this.done;
  }
}

/** A call that waits for the reader would do so where no signal ends it. */
async function openPipe(path: string, signal: AbortSignal): Promise<Socket> {
  for (;;) {
    try {
      return new Socket({ fd: openSync(path, constants.O_WRONLY | constants.O_NONBLOCK), readable: false });
    } catch (e) {
      if (codeOf(e) !== 'ENXIO') throw e;
    }
    await setTimeout(LOOK_AGAIN, undefined, { signal });
  }
}
