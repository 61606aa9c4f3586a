import { EXIT_USAGE } from './errors.ts';
import { writeProblem } from './output-file.ts';

/** Exit code of a program that SIGPIPE killed. */
const EXIT_BROKEN_PIPE = 141;

/** Whatever is to be put right, such as a raw terminal, is so when the process ends. */
function end(name: string, error: NodeJS.ErrnoException): never {
  if (error.code === 'EPIPE') process.exit(EXIT_BROKEN_PIPE);
  process.stderr.write(`pvm: ${name}: ${writeProblem(error)}\n`);
  process.exit(EXIT_USAGE);
}

const onOutputError = (error: NodeJS.ErrnoException) => end('standard output', error);
const onErrorError = (error: NodeJS.ErrnoException) => end('standard error', error);

const onWarning = ({ message }: Error) => process.stderr.write(`pvm: warning: ${message}\n`);

/** What the library warns of, such as a code cache that is damaged, is said as everything else is; Node's own way has advice for programmers. May be called again. */
export function sayWarnings(): void {
  process.removeAllListeners('warning').on('warning', onWarning);
}

/** When the reader of our output goes away, so do we, as any Unix filter; when it cannot be written, in one line. May be called again. */
export function endOnOutputError(): void {
  process.stdout.off('error', onOutputError).on('error', onOutputError);
  process.stderr.off('error', onErrorError).on('error', onErrorError);
}
