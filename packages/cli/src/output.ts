import { once } from 'node:events';

/** Exit code of a program that SIGPIPE killed. */
const EXIT_BROKEN_PIPE = 141;

/** When the reader of our output goes away, so do we, as any Unix filter. */
export function endOnBrokenPipe(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(EXIT_BROKEN_PIPE);
      throw error;
    });
  }
}

/** Writes guest output to a stream of the process and lets the guest wait when the reader is slow. */
export function writeTo(stream: NodeJS.WriteStream): (chunk: Uint8Array) => void | Promise<void> {
  return (chunk) => {
    if (stream.destroyed || stream.write(chunk)) return;
    return once(stream, 'drain').then(() => undefined);
  };
}
