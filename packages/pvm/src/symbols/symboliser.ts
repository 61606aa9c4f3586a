import { readFile } from 'node:fs/promises';
import { PvmError } from '../errors.ts';
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

interface Image {
  readonly table: SymbolTable;
  /** Distance of the program in memory from the addresses in its file. */
  readonly bias: bigint;
}

/** Names guest addresses from any number of symbol files; the first one that knows an address names it. */
export class Symboliser {
  private readonly images: Image[] = [];

  /** @param bias distance of the image in memory from the addresses in the file */
  add(table: SymbolTable, bias = 0n): void {
    this.images.push({ table, bias });
  }

  /** `name+0xoffset`, undefined when no file knows the address. */
  find(address: bigint, { syscallEntry }: LoadAddresses): string | undefined {
    for (const { table, bias } of this.images) {
      const moved = address >= KERNEL_HALF ? kernelBias(table, syscallEntry) : bias;
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

/** @throws PvmError `unreadable-file`, `no-symbols` */
export async function readSymbols(path: string | URL): Promise<SymbolTable> {
  const name = path instanceof URL ? 'the embedded kernel' : path;
  let file: Uint8Array;
  try {
    file = await readFile(path);
  } catch (cause) {
    throw new PvmError('unreadable-file', `${name}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  return parseSymbols(file, name);
}
