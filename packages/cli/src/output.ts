/** Exit code of a program that SIGPIPE killed. */
const EXIT_BROKEN_PIPE = 141;

function onError(error: NodeJS.ErrnoException): never {
  if (error.code === 'EPIPE') process.exit(EXIT_BROKEN_PIPE);
  throw error;
}

/** When the reader of our output goes away, so do we, as any Unix filter. May be called again. */
export function endOnBrokenPipe(): void {
  for (const stream of [process.stdout, process.stderr]) stream.off('error', onError).on('error', onError);
}
