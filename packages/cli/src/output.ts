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
