import { buildCpio, parseElf64 } from '@pvm/machine';
import { PvmError } from './errors.ts';
import { readInputFile } from './input-file.ts';
import type { CheckedOptions } from './options.ts';

/** Our guest kernel. */
export const EMBEDDED_KERNEL = new URL('../../../guests/kernel/kernel.elf', import.meta.url);

type Source = string | URL | Uint8Array;

/** What the boot loader needs: the kernel and the RAM disk, which has the program for our own kernel and is empty when a stock kernel has none. */
export interface GuestImage {
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
}

/**
 * Read and check everything the machine will run.
 *
 * @throws PvmError `unreadable-file`, MachineError for a program that is not a static x86-64 ELF; the reason of the option `signal`
 */
export async function loadGuestImage(options: CheckedOptions): Promise<GuestImage> {
  const load = (source: Source, name: string) => bytesOf(source, name, options.signal);
  if (options.platform === 'pc') {
    return {
      kernel: await load(options.kernel ?? '', named(options.kernel, 'kernel')),
      initrd: options.initrd === undefined ? new Uint8Array(0) : filled(await load(options.initrd, named(options.initrd, 'initrd')), options.initrd),
    };
  }
  const programName = typeof options.program === 'string' ? options.program : 'program';
  const program = await load(options.program, programName);
  parseElf64(program, programName);
  const kernel = options.kernel === undefined ? await load(EMBEDDED_KERNEL, 'the embedded kernel') : await load(options.kernel, 'kernel');
  const files = await Promise.all(Object.entries(options.files).map(async ([path, file]) => ({ name: path.slice(1), data: await load(file, String(file)) })));
  return {
    kernel,
    initrd: buildCpio([
      { name: '.pvm/init', data: program, mode: 0o755 },
      { name: '.pvm/argv', data: strings([options.argv0, ...options.args]) },
      { name: '.pvm/envp', data: strings(Object.entries(options.env).map(([key, value]) => `${key}=${value}`)) },
      ...files,
    ]),
  };
}

/** A kernel would boot as without a RAM disk, and panic for lack of a root file system. @throws PvmError */
function filled(initrd: Uint8Array, source: string | Uint8Array): Uint8Array {
  if (initrd.length === 0) throw new PvmError('unreadable-file', `${named(source, 'initrd')}: is empty; expected a RAM disk`);
  return initrd;
}

/** How messages call a file: its path, or `what` when only its bytes are known. */
function named(source: string | Uint8Array | undefined, what: string): string {
  return typeof source === 'string' ? source : what;
}

async function bytesOf(source: Source, name: string, signal: AbortSignal | undefined): Promise<Uint8Array> {
  return source instanceof Uint8Array ? source : new Uint8Array(await readInputFile(source, name, signal));
}

/** Each string ended by NUL. */
function strings(list: readonly string[]): Uint8Array {
  return new TextEncoder().encode(list.map((s) => `${s}\0`).join(''));
}
