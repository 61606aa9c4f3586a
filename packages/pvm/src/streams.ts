import { finished } from 'node:stream';

/** A chunk of output; the receiver may keep it. Returning a promise holds the guest until it settles. */
export type OutputHandler = (chunk: Uint8Array) => void | Promise<void>;
/** Where output goes: a function, or a stream of the Web or of Node. Streams are neither ended nor closed; one that is slow holds the guest. */
export type Output = OutputHandler | WritableStream<Uint8Array> | NodeJS.WritableStream;
/** Where input comes from; readable streams of the Web and of Node are async iterables. */
export type Input = string | Uint8Array | AsyncIterable<Uint8Array>;

export function isOutput(value: unknown): boolean {
  return (
    typeof value === 'function' ||
    value instanceof WritableStream ||
    (typeof value === 'object' && value !== null && 'write' in value && typeof value.write === 'function')
  );
}

export function isInput(value: unknown): boolean {
  return typeof value === 'string' || value instanceof Uint8Array || (typeof value === 'object' && value !== null && Symbol.asyncIterator in value);
}

/** One function for all kinds of output; none drops it. */
export function outputHandler(output: Output | undefined): OutputHandler {
  if (output === undefined) return () => undefined;
  if (typeof output === 'function') {
    // Functions that return something else, as arrow functions often do, hold nothing.
    return (chunk) => {
      const held: unknown = output(chunk);
      return held instanceof Promise ? held : undefined;
    };
  }
  return output instanceof WritableStream ? webOutput(output) : nodeOutput(output);
}

/** What `output` throws or rejects with goes to `failed`, and it gets no more: it may be called where nobody could catch that. */
export function guardedOutput(output: OutputHandler, failed: (error: unknown) => void): OutputHandler {
  let hasFailed = false;
  const fail = (error: unknown) => {
    hasFailed = true;
    failed(error);
  };
  return (chunk) => {
    if (hasFailed) return undefined;
    try {
      return output(chunk)?.catch(fail);
    } catch (error) {
      fail(error);
      return undefined;
    }
  };
}

/** Takes the stream's lock only for the moment of a write, so that its owner can close it. */
function webOutput(stream: WritableStream<Uint8Array>): OutputHandler {
  return (chunk) => {
    const writer = stream.getWriter();
    const written = writer.write(chunk);
    writer.releaseLock();
    return written;
  };
}

function nodeOutput(stream: NodeJS.WritableStream): OutputHandler {
  return (chunk) => {
    // A reader that went away is the business of the stream's owner.
    if (!stream.writable || stream.write(chunk)) return;
    return new Promise((resolve) => {
      const settle = () => {
        stream.off('drain', settle);
        stop();
        resolve();
      };
      const stop = finished(stream, settle);
      stream.once('drain', settle);
    });
  };
}
