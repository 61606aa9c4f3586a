import { MachineError } from '../errors.ts';
import type { GuestRam } from '../ram.ts';
import type { ElfImage } from './elf64.ts';

/** Where the loaders put what they hand to a kernel, guest-physical. Page 0 is left to the kernel. */
export const START_INFO_GPA = 0x6100;
export const START_INFO_END = 0x7000;
export const BOOT_PARAMS_GPA = 0x7000;
export const BOOT_TABLES_GPA = 0x9000;
export const COMMAND_LINE_GPA = 0x20000;
/** Longest command line, without the NUL. */
export const COMMAND_LINE_MAX = 0xffff;
/** First byte above what the loaders use below 640 KiB; an ELF segment may not touch [BOOT_GDT_GPA, this). */
export const LOW_MEMORY_END = 0x9fc00;
const PAGE = 4096;

/**
 * Copy the loadable segments of an ELF to their physical addresses.
 *
 * @returns the end of the highest segment, GPA
 * @throws MachineError `memory-too-small`, `elf-malformed` for a segment over the boot structures
 */
export function loadSegments(ram: GuestRam, elf: ElfImage, image: Uint8Array, lowest: number): number {
  let kernelEnd = 0;
  for (const s of elf.segments) {
    if (s.paddr >= BigInt(ram.size) || !ram.contains(Number(s.paddr), s.memSize)) {
      throw new MachineError('memory-too-small', needsMemory(Number(s.paddr) + s.memSize, ram));
    }
    const at = Number(s.paddr);
    const end = at + s.memSize;
    if (at < LOW_MEMORY_END && end > lowest)
      throw new MachineError('elf-malformed', `kernel segment at 0x${at.toString(16)} overlaps the boot structures below 640 KiB`);
    ram.write(at, image.subarray(s.offset, s.offset + s.fileSize));
    ram.clear(at + s.fileSize, s.memSize - s.fileSize);
    kernelEnd = Math.max(kernelEnd, end);
  }
  return kernelEnd;
}

/** The message for a kernel that lies beyond the end of RAM. */
export function needsMemory(end: number, ram: GuestRam): string {
  return `the kernel needs ${Math.ceil(end / 2 ** 20)} MiB of RAM or more, there are ${ram.size >> 20} MiB`;
}

/** Write the NUL-terminated command line. @returns its length @throws MachineError `command-line-too-long` */
export function writeCommandLine(ram: GuestRam, text: string, max = COMMAND_LINE_MAX): number {
  const commandLine = new TextEncoder().encode(text);
  if (commandLine.length > max) throw new MachineError('command-line-too-long', `kernel command line has ${commandLine.length} bytes; at most ${max} fit`);
  ram.write(COMMAND_LINE_GPA, commandLine);
  ram.clear(COMMAND_LINE_GPA + commandLine.length, 1);
  return commandLine.length;
}

/**
 * Put a RAM disk or module as high as possible, page aligned, between the kernel and `limit`.
 *
 * @returns its GPA
 * @throws MachineError `memory-too-small`
 */
export function placeHigh(ram: GuestRam, data: Uint8Array, kernelEnd: number, limit = ram.size): number {
  const at = Math.floor((Math.min(limit, ram.size) - data.length) / PAGE) * PAGE;
  if (at < kernelEnd) {
    throw new MachineError('memory-too-small', `program and files (${data.length} bytes) do not fit beside the kernel in ${ram.size >> 20} MiB of guest RAM`);
  }
  if (data.length > 0) ram.write(at, data);
  return at;
}
