import { once } from 'node:events';

/** Writes guest output to a stream of the process and lets the guest wait when the reader is slow. */
export function writeTo(stream: NodeJS.WriteStream): (chunk: Uint8Array) => void | Promise<void> {
  return (chunk) => {
    if (stream.destroyed || stream.write(chunk)) return;
    return once(stream, 'drain').then(() => undefined);
  };
}
