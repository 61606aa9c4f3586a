import { statSync } from 'node:fs';
import { PvmError } from '../errors.ts';
import { readInputFile } from '../input-file.ts';
import { parseSymbols, type SymbolTable } from './symbol-table.ts';

/** What MSR LSTAR points to: in Linux, in Linux as a PVM guest, in our guest kernel by its layer. */
const SYSCALL_ENTRIES = ['entry_SYSCALL_64_pvm', 'entry_SYSCALL_64', 'native_syscall_entry', 'pvm_v2_syscall_entry', 'pvm_rfc_syscall_entry'];
const KERNEL_HALF = 1n << 63n;
const PAGE_MASK = 0xfffn;

/** Where the guest kernel and program are in memory, as far as the machine knows. */
export interface LoadAddresses {
  /** MSR LSTAR: tells how far the kernel moved itself (KASLR, PVM's address range); 0: not set. */
  readonly syscallEntry: bigint;
}

/** Where our guest kernel puts a position-independent program: PIE_BASE of guests/kernel/layout.h. */
const PROGRAM_BASE = 0x5555_5555_4000n;

/** Names guest addresses from any number of symbol files; the first one that knows an address names it. */
export class Symboliser {
  private readonly tables: SymbolTable[] = [];

  add(table: SymbolTable): void {
    this.tables.push(table);
  }

  /** `name+0xoffset`, undefined when no file knows the address. */
  find(address: bigint, { syscallEntry }: LoadAddresses): string | undefined {
    for (const table of this.tables) {
      const moved = address >= KERNEL_HALF ? kernelBias(table, syscallEntry) : table.positionIndependent ? PROGRAM_BASE : 0n;
      const name = table.find(BigInt.asUintN(64, address - moved));
      if (name !== undefined) return name;
    }
    return undefined;
  }
}

/** How far the kernel with these symbols has moved: where its system call entry is now against where it was linked. */
function kernelBias(table: SymbolTable, syscallEntry: bigint): bigint {
  if (syscallEntry === 0n) return 0n;
  for (const name of SYSCALL_ENTRIES) {
    const linked = table.address(name);
    if (linked !== undefined && ((syscallEntry - linked) & PAGE_MASK) === 0n) return syscallEntry - linked;
  }
  return 0n;
}

/**
 * A symboliser with the symbols in `files`, and those that what runs has by itself: `images` without symbols (stripped, compressed, not there) are passed over.
 *
 * @throws PvmError `unreadable-file`, `no-symbols` about one of `files`
 */
export async function loadSymbols(files: readonly string[], images: readonly string[] = []): Promise<Symboliser> {
  const symbols = new Symboliser();
  for (const path of files) symbols.add(parseSymbols(await readInputFile(path, path), path));
  for (const path of images) {
    try {
      // What a pipe gives once is for the loader.
      if (statSync(path, { throwIfNoEntry: false })?.isFile() === true) symbols.add(parseSymbols(await readInputFile(path, path), path));
    } catch (e) {
      if (!(e instanceof PvmError)) throw e;
    }
  }
  return symbols;
}
