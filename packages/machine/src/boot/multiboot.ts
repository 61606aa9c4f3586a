import { MachineError } from '../errors.ts';
import type { GuestRam } from '../ram.ts';
import { isElf32, parseElf32 } from './elf32.ts';
import { type ElfImage, parseElf64 } from './elf64.ts';
import { BOOT_GDT_GPA, type EntryState, protectedModeEntry } from './entry-state.ts';
import type { KernelImage } from './linux-elf.ts';
import { COMMAND_LINE_GPA, LOW_MEMORY_END, loadSegments, placeHigh, START_INFO_END, START_INFO_GPA, writeCommandLine } from './placement.ts';

// Multiboot Specification 0.6.96, sections 3.1 to 3.3.
const HEADER_SEARCH = 8192;
const HEADER_MAGIC = 0x1bad_b002;
const BOOTLOADER_MAGIC = 0x2bad_b002;
/** Header flags the loader understands: page-aligned modules, memory information, address fields; the video request is ignored. */
const KNOWN_REQUIRED = 0x0007;
const HAS_ADDRESSES = 1 << 16;
const INFO_MEMORY = 1 << 0;
const INFO_COMMAND_LINE = 1 << 2;
const INFO_MODULES = 1 << 3;
const INFO_MEMORY_MAP = 1 << 6;
const INFO_LOADER_NAME = 1 << 9;
const INFO_SIZE = 120;
const LOADER_NAME = 'pvm\0';
const HIGH_MEMORY = 0x10_0000;

/** File offset of the multiboot header, undefined without a valid one. */
export function findMultibootHeader(image: Uint8Array): number | undefined {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  for (let at = 0; at + 12 <= Math.min(image.length, HEADER_SEARCH); at += 4) {
    if (view.getUint32(at, true) !== HEADER_MAGIC) continue;
    const sum = HEADER_MAGIC + view.getUint32(at + 4, true) + view.getUint32(at + 8, true);
    if (sum % 2 ** 32 === 0) return at;
  }
  return undefined;
}

/**
 * Load a multiboot 1 kernel (ELF or with address fields): 32-bit protected mode, EAX = magic, EBX = information structure with
 * memory sizes and map, command line, and the RAM disk as its only module.
 *
 * @throws MachineError `not-multiboot`, `multiboot-malformed`, `memory-too-small`, `command-line-too-long`, and what the ELF parsers throw
 */
export function loadMultiboot(ram: GuestRam, image: KernelImage): EntryState {
  const header = findMultibootHeader(image.kernel);
  if (header === undefined) throw new MachineError('not-multiboot', 'kernel: no multiboot 1 header in the first 8 KiB');
  const view = new DataView(image.kernel.buffer, image.kernel.byteOffset, image.kernel.byteLength);
  const flags = view.getUint32(header + 4, true);
  if ((flags & 0xffff & ~KNOWN_REQUIRED) !== 0) {
    throw new MachineError('multiboot-malformed', `kernel: multiboot header requires unknown features (flags 0x${flags.toString(16)})`);
  }
  const elf =
    (flags & HAS_ADDRESSES) !== 0
      ? addressFields(image.kernel, view, header)
      : isElf32(image.kernel)
        ? parseElf32(image.kernel, 'kernel')
        : parseElf64(image.kernel, 'kernel');
  const kernelEnd = loadSegments(ram, elf, image.kernel, BOOT_GDT_GPA);
  writeCommandLine(ram, image.commandLine);
  const initrd = image.initrd ?? new Uint8Array(0);
  const module = placeHigh(ram, initrd, Math.max(kernelEnd, HIGH_MEMORY));

  const info = START_INFO_GPA;
  const moduleList = info + 128;
  const loaderName = moduleList + 16;
  const memoryMap = loaderName + 16;
  const e820 = ram.e820();
  if (memoryMap + e820.length * 24 > START_INFO_END) throw new RangeError('multiboot memory map does not fit');
  ram.clear(info, START_INFO_END - info);
  const set = (at: number, value: number): void => ram.view.setUint32(at, value, true);
  set(info, INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME | (initrd.length > 0 ? INFO_MODULES : 0));
  set(info + 4, LOW_MEMORY_END >> 10); // mem_lower, KiB
  set(info + 8, (ram.size - HIGH_MEMORY) / 1024); // mem_upper, KiB from 1 MiB
  set(info + 16, COMMAND_LINE_GPA);
  set(info + 20, initrd.length > 0 ? 1 : 0);
  set(info + 24, moduleList);
  set(info + 44, e820.length * 24);
  set(info + 48, memoryMap);
  set(info + 64, loaderName);
  set(moduleList, module);
  set(moduleList + 4, module + initrd.length);
  set(moduleList + 8, COMMAND_LINE_GPA);
  ram.write(loaderName, new TextEncoder().encode(LOADER_NAME));
  e820.forEach((line, i) => {
    const at = memoryMap + i * 24;
    set(at, 20); // size of the rest of the entry
    ram.view.setBigUint64(at + 4, BigInt(line.address), true);
    ram.view.setBigUint64(at + 12, BigInt(line.size), true);
    set(at + 20, line.type);
  });
  ram.written(info, INFO_SIZE);
  const rip = elf.segments.find((s) => elf.entry >= s.vaddr && elf.entry < s.vaddr + BigInt(s.memSize) && elf.entry >= 0x1_0000_0000n);
  return protectedModeEntry(ram, {
    protocol: 'multiboot',
    rip: rip === undefined ? elf.entry : elf.entry - rip.vaddr + rip.paddr,
    registers: { rax: BigInt(BOOTLOADER_MAGIC), rbx: BigInt(info) },
  });
}

/** The image's own addresses, used where the kernel is not an ELF (3.1.3). */
function addressFields(image: Uint8Array, view: DataView, header: number): ElfImage {
  const malformed = (what: string): MachineError => new MachineError('multiboot-malformed', `kernel: multiboot header: ${what}`);
  if (header + 32 > image.length) throw malformed('address fields are cut off');
  const [headerAddress, load, loadEnd, bssEnd, entry] = [12, 16, 20, 24, 28].map((at) => view.getUint32(header + at, true)) as [
    number,
    number,
    number,
    number,
    number,
  ];
  if (load > headerAddress || headerAddress - load > header) throw malformed(`load address 0x${load.toString(16)} does not fit the header's place in the file`);
  const offset = header - (headerAddress - load);
  const fileSize = loadEnd === 0 ? image.length - offset : loadEnd - load;
  if (fileSize < 0 || offset + fileSize > image.length) throw malformed(`load end 0x${loadEnd.toString(16)} is beyond the file`);
  const memSize = bssEnd === 0 ? fileSize : bssEnd - load;
  if (memSize < fileSize) throw malformed(`bss end 0x${bssEnd.toString(16)} is below the load end`);
  const address = BigInt(load);
  return { entry: BigInt(entry), positionIndependent: false, segments: [{ offset, vaddr: address, paddr: address, fileSize, memSize, flags: 7 }] };
}
