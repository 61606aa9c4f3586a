import { MachineError } from '../errors.ts';
import type { GuestRam } from '../ram.ts';
import { BOOT_PARAMS_SIZE, buildBootParams, SETUP_HEADER_OFFSET } from './boot-params.ts';
import { type EntryState, longModeEntry, protectedModeEntry } from './entry-state.ts';
import { type KernelImage, writeBootTables } from './linux-elf.ts';
import { BOOT_PARAMS_GPA, COMMAND_LINE_GPA, needsMemory, placeHigh, writeCommandLine } from './placement.ts';

// Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header": file offsets.
const SETUP_SECTS = 0x1f1;
/** Protected-mode code in units of 16 bytes. */
const SYSSIZE = 0x1f4;
const BOOT_FLAG = 0x1fe;
const HEADER_LENGTH = 0x201;
const HEADER_MAGIC = 0x202;
const VERSION = 0x206;
const LOADFLAGS = 0x211;
const INITRD_ADDR_MAX = 0x22c;
const KERNEL_ALIGNMENT = 0x230;
const RELOCATABLE = 0x234;
const XLOADFLAGS = 0x236;
const CMDLINE_SIZE = 0x238;
const PREF_ADDRESS = 0x258;
const INIT_SIZE = 0x260;
const HDRS = 0x5372_6448;
const LOADED_HIGH = 1;
const XLF_KERNEL_64 = 1;
const XLF_CAN_BE_LOADED_ABOVE_4G = 2;
const SECTOR = 512;
/** Offset of the 64-bit entry point from the start of the protected-mode kernel. */
const ENTRY_64 = 0x200;
const HIGH_MEMORY = 0x10_0000;

/** Whether `image` carries a Linux setup header. */
export function isBzImage(image: Uint8Array): boolean {
  if (image.length < INIT_SIZE + 4) return false;
  const view = viewOf(image);
  return view.getUint16(BOOT_FLAG, true) === 0xaa55 && view.getUint32(HEADER_MAGIC, true) === HDRS;
}

/**
 * Load a bzImage: its protected-mode part where it wants to be, command line, RAM disk and boot_params as the boot
 * protocol says. Entered at its 64-bit entry point when it has one, else at its 32-bit one.
 *
 * @throws MachineError `not-bzimage`, `bzimage-too-old`, `bzimage-malformed`, `memory-too-small`, `command-line-too-long`
 */
export function loadBzImage(ram: GuestRam, image: KernelImage): EntryState {
  const { kernel } = image;
  if (!isBzImage(kernel)) throw new MachineError('not-bzimage', 'kernel: no Linux setup header ("HdrS" at 0x202); expected a bzImage');
  const header = viewOf(kernel);
  const version = header.getUint16(VERSION, true);
  if (version < 0x206) {
    throw new MachineError('bzimage-too-old', `kernel: boot protocol ${version >> 8}.${version & 0xff}; 2.06 (Linux 2.6.22) or later is needed`);
  }
  if ((header.getUint8(LOADFLAGS) & LOADED_HIGH) === 0) throw new MachineError('bzimage-malformed', 'kernel: a zImage (loaded low); expected a bzImage');
  const start = ((header.getUint8(SETUP_SECTS) || 4) + 1) * SECTOR;
  if (start >= kernel.length) throw new MachineError('bzimage-malformed', `kernel: setup code ends at ${start}, the file at ${kernel.length}`);
  const headerEnd = HEADER_MAGIC + header.getUint8(HEADER_LENGTH);
  if (headerEnd > start || headerEnd < 0x230) throw new MachineError('bzimage-malformed', `kernel: setup header ends at 0x${headerEnd.toString(16)}`);

  // Its last 16 bytes need not be all there.
  const wanted = start + header.getUint32(SYSSIZE, true) * 16;
  if (wanted > kernel.length + 15) throw new MachineError('bzimage-malformed', `kernel: cut short: it has ${kernel.length} bytes of ${wanted}`);
  const payload = kernel.subarray(start);
  const loadAddress = choosePlace(header, version);
  const initSize = Math.max(version >= 0x20a ? header.getUint32(INIT_SIZE, true) : payload.length * 3, payload.length);
  const kernelEnd = loadAddress + initSize;
  if (kernelEnd > ram.size) {
    throw new MachineError('memory-too-small', needsMemory(kernelEnd, ram));
  }
  ram.write(loadAddress, payload);

  const maxCommandLine = header.getUint32(CMDLINE_SIZE, true);
  const commandLineSize = writeCommandLine(ram, image.commandLine, Math.min(maxCommandLine === 0 ? 255 : maxCommandLine, 0xffff));
  const initrd = image.initrd ?? new Uint8Array(0);
  const xloadflags = version >= 0x20c ? header.getUint16(XLOADFLAGS, true) : 0;
  const limit = (xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) !== 0 ? ram.size : header.getUint32(INITRD_ADDR_MAX, true) + 1;
  const ramdisk = placeHigh(ram, initrd, kernelEnd, limit);
  ram.clear(BOOT_PARAMS_GPA, BOOT_PARAMS_SIZE);
  ram.write(
    BOOT_PARAMS_GPA,
    buildBootParams({
      e820: ram.e820(),
      commandLine: COMMAND_LINE_GPA,
      commandLineSize,
      ramdisk: initrd.length > 0 ? ramdisk : 0,
      ramdiskSize: initrd.length,
      rsdp: image.rsdp ?? 0,
      setupHeader: kernel.subarray(SETUP_HEADER_OFFSET, headerEnd),
    }),
  );
  ram.view.setUint32(BOOT_PARAMS_GPA + 0x214, loadAddress, true); // hdr.code32_start
  const registers = { rsi: BigInt(BOOT_PARAMS_GPA) };
  if ((xloadflags & XLF_KERNEL_64) === 0) return protectedModeEntry(ram, { protocol: 'linux32', rip: BigInt(loadAddress), registers });
  return longModeEntry(ram, { protocol: 'linux64', rip: BigInt(loadAddress + ENTRY_64), cr3: writeBootTables(ram), registers });
}

/** The preferred address where the header has one that is aligned as it asks, else 1 MiB. */
function choosePlace(header: DataView, version: number): number {
  if (version < 0x20a) return HIGH_MEMORY;
  const preferred = header.getBigUint64(PREF_ADDRESS, true);
  const relocatable = header.getUint8(RELOCATABLE) !== 0;
  const alignment = header.getUint32(KERNEL_ALIGNMENT, true) || 1;
  if (preferred >= 0x1_0000_0000n || preferred < BigInt(HIGH_MEMORY)) {
    if (preferred !== 0n && !relocatable) throw new MachineError('bzimage-malformed', `kernel: cannot be loaded at 0x${preferred.toString(16)}`);
    return Math.ceil(HIGH_MEMORY / alignment) * alignment;
  }
  return Number(preferred);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
