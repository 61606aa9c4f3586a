import { MachineError } from '../errors.ts';
import type { GuestRam } from '../ram.ts';
import { parseElf64 } from './elf64.ts';
import { BOOT_GDT_GPA, type EntryState, protectedModeEntry } from './entry-state.ts';
import type { KernelImage } from './linux-elf.ts';
import { COMMAND_LINE_GPA, loadSegments, placeHigh, START_INFO_END, START_INFO_GPA, writeCommandLine } from './placement.ts';

// ELF-64: program header and note layout. Xen: xen/include/public/elfnote.h.
const E_PHOFF = 32;
const E_PHNUM = 56;
const PHDR_SIZE = 56;
const PT_NOTE = 4;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;

// Xen: xen/include/public/arch-x86/hvm/start_info.h.
const START_MAGIC = 0x336e_c578;
const START_INFO_SIZE = 56;
const MODULE_SIZE = 32;
const MEMMAP_ENTRY_SIZE = 24;

/** The 32-bit PVH entry point that the image's notes name, undefined without one. Never throws on a malformed image. */
export function findPvhEntry(image: Uint8Array): number | undefined {
  if (image.length < 64) return undefined;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const phoff = view.getBigUint64(E_PHOFF, true);
  const phnum = view.getUint16(E_PHNUM, true);
  for (let i = 0; i < phnum; i++) {
    const at = phoff + BigInt(i * PHDR_SIZE);
    if (at + BigInt(PHDR_SIZE) > BigInt(image.length)) return undefined;
    const header = Number(at);
    if (view.getUint32(header, true) !== PT_NOTE) continue;
    const offset = view.getBigUint64(header + 8, true);
    const size = view.getBigUint64(header + 32, true);
    if (offset + size > BigInt(image.length)) continue;
    const entry = findNote(view, Number(offset), Number(offset + size));
    if (entry !== undefined) return entry;
  }
  return undefined;
}

/** Notes: name size, descriptor size, type, then both padded to 4 bytes. */
function findNote(view: DataView, start: number, end: number): number | undefined {
  for (let at = start; at + 12 <= end; ) {
    const nameSize = view.getUint32(at, true);
    const size = view.getUint32(at + 4, true);
    const descriptor = at + 12 + pad(nameSize);
    const next = descriptor + pad(size);
    if (next > end) return undefined;
    const isXen = nameSize === 4 && view.getUint32(at + 12, true) === 0x006e_6558;
    if (isXen && view.getUint32(at + 8, true) === XEN_ELFNOTE_PHYS32_ENTRY && size >= 4) return view.getUint32(descriptor, true);
    at = next;
  }
  return undefined;
}

function pad(n: number): number {
  return Math.ceil(n / 4) * 4;
}

/**
 * Load an ELF64 with a PVH note: 32-bit protected mode, EBX = hvm_start_info with command line, memory map, the RAM disk as
 * first module and the ACPI root pointer.
 *
 * @throws MachineError `no-pvh-note`, `memory-too-small`, `command-line-too-long`, and what `parseElf64` throws
 */
export function loadPvh(ram: GuestRam, image: KernelImage): EntryState {
  const elf = parseElf64(image.kernel, 'kernel');
  const entry = findPvhEntry(image.kernel);
  if (entry === undefined) throw new MachineError('no-pvh-note', 'kernel: ELF without a PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)');
  const kernelEnd = loadSegments(ram, elf, image.kernel, BOOT_GDT_GPA);
  writeCommandLine(ram, image.commandLine);
  const initrd = image.initrd ?? new Uint8Array(0);
  const ramdisk = placeHigh(ram, initrd, kernelEnd);
  const e820 = ram.e820();
  const modules = START_INFO_GPA + 64;
  const memmap = modules + MODULE_SIZE;
  if (memmap + e820.length * MEMMAP_ENTRY_SIZE > START_INFO_END) throw new RangeError('PVH memory map does not fit');
  ram.clear(START_INFO_GPA, START_INFO_END - START_INFO_GPA);
  const { view } = ram;
  view.setUint32(START_INFO_GPA, START_MAGIC, true);
  view.setUint32(START_INFO_GPA + 4, 1, true); // version: with memory map
  view.setUint32(START_INFO_GPA + 12, initrd.length > 0 ? 1 : 0, true); // nr_modules
  view.setBigUint64(START_INFO_GPA + 16, BigInt(initrd.length > 0 ? modules : 0), true);
  view.setBigUint64(START_INFO_GPA + 24, BigInt(COMMAND_LINE_GPA), true);
  view.setBigUint64(START_INFO_GPA + 32, BigInt(image.rsdp ?? 0), true);
  view.setBigUint64(START_INFO_GPA + 40, BigInt(memmap), true);
  view.setUint32(START_INFO_GPA + 48, e820.length, true);
  view.setBigUint64(modules, BigInt(ramdisk), true);
  view.setBigUint64(modules + 8, BigInt(initrd.length), true);
  e820.forEach((line, i) => {
    const at = memmap + i * MEMMAP_ENTRY_SIZE;
    view.setBigUint64(at, BigInt(line.address), true);
    view.setBigUint64(at + 8, BigInt(line.size), true);
    view.setUint32(at + 16, line.type, true);
  });
  ram.written(START_INFO_GPA, START_INFO_SIZE);
  return protectedModeEntry(ram, { protocol: 'pvh', rip: BigInt(entry), registers: { rbx: BigInt(START_INFO_GPA) } });
}
