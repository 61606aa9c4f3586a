import { MachineError } from '../errors.ts';
import type { GuestRam } from '../ram.ts';
import { BOOT_PARAMS_SIZE, buildBootParams } from './boot-params.ts';
import { parseElf64 } from './elf64.ts';
import { identityMapSize, writeIdentityMap } from './identity-map.ts';

/** Where the loader puts what it hands to the kernel, guest-physical. */
export const BOOT_PARAMS_GPA = 0x7000;
export const BOOT_TABLES_GPA = 0x9000;
export const COMMAND_LINE_GPA = 0x20000;
/** Longest command line, without the NUL. */
export const COMMAND_LINE_MAX = 0xffff;
const LOW_MEMORY_END = 0x9fc00;
const PAGE = 4096;

export interface KernelImage {
  /** The kernel's ELF64 file. */
  readonly kernel: Uint8Array;
  readonly commandLine: string;
  /** Initial RAM disk. */
  readonly initrd?: Uint8Array;
}

/** State of a vCPU at the first instruction, beside "long mode, flat segments, everything else zero". */
export interface BootState {
  readonly rip: bigint;
  readonly rsi: bigint;
  readonly cr3: bigint;
}

/**
 * Load an ELF64 kernel for entry in long mode with Linux boot_params in RSI (the 64-bit boot protocol).
 *
 * @throws MachineError for a bad image, `memory-too-small` when kernel and RAM disk do not fit, `command-line-too-long`
 */
export function loadLinuxElf(ram: GuestRam, image: KernelImage): BootState {
  const elf = parseElf64(image.kernel, 'kernel');
  let kernelEnd = 0;
  let rip = elf.entry;
  for (const s of elf.segments) {
    if (s.paddr >= BigInt(ram.size) || !ram.contains(Number(s.paddr), s.memSize)) {
      throw new MachineError('memory-too-small', `the kernel needs RAM up to 0x${(s.paddr + BigInt(s.memSize)).toString(16)}, there are ${ram.size >> 20} MiB`);
    }
    const at = Number(s.paddr);
    const end = at + s.memSize;
    if (at < LOW_MEMORY_END && end > BOOT_PARAMS_GPA)
      throw new MachineError('elf-malformed', `kernel segment at 0x${at.toString(16)} overlaps the boot structures below 640 KiB`);
    ram.write(at, image.kernel.subarray(s.offset, s.offset + s.fileSize));
    ram.clear(at + s.fileSize, s.memSize - s.fileSize);
    kernelEnd = Math.max(kernelEnd, end);
    if (elf.entry >= s.vaddr && elf.entry < s.vaddr + BigInt(s.memSize)) rip = elf.entry - s.vaddr + s.paddr;
  }

  const commandLine = new TextEncoder().encode(image.commandLine);
  if (commandLine.length > COMMAND_LINE_MAX)
    throw new MachineError('command-line-too-long', `kernel command line has ${commandLine.length} bytes; at most ${COMMAND_LINE_MAX} fit`);
  ram.write(COMMAND_LINE_GPA, commandLine);
  ram.clear(COMMAND_LINE_GPA + commandLine.length, 1);

  const initrd = image.initrd ?? new Uint8Array(0);
  const ramdisk = Math.floor((ram.size - initrd.length) / PAGE) * PAGE;
  if (ramdisk < kernelEnd) {
    throw new MachineError('memory-too-small', `program and files (${initrd.length} bytes) do not fit beside the kernel in ${ram.size >> 20} MiB of guest RAM`);
  }
  if (initrd.length > 0) ram.write(ramdisk, initrd);

  if (BOOT_TABLES_GPA + identityMapSize(ram.size) > COMMAND_LINE_GPA) throw new RangeError('boot page tables reach the command line');
  const cr3 = writeIdentityMap(ram, BOOT_TABLES_GPA);
  ram.clear(BOOT_PARAMS_GPA, BOOT_PARAMS_SIZE);
  ram.write(
    BOOT_PARAMS_GPA,
    buildBootParams({
      e820: ram.e820(),
      commandLine: COMMAND_LINE_GPA,
      commandLineSize: commandLine.length,
      ramdisk: initrd.length > 0 ? ramdisk : 0,
      ramdiskSize: initrd.length,
    }),
  );
  return { rip, rsi: BigInt(BOOT_PARAMS_GPA), cr3: BigInt(cr3) };
}
