import type { E820Entry } from '../ram.ts';

/** Size of the structure, one page ("zero page"). */
export const BOOT_PARAMS_SIZE = 4096;
/** Entries that fit into the e820 table of the structure (Linux: E820_MAX_ENTRIES_ZEROPAGE). */
const E820_MAX_ENTRIES = 128;

export interface BootParams {
  readonly e820: readonly E820Entry[];
  /** GPA of the NUL-terminated command line and its length without the NUL. */
  readonly commandLine: number;
  readonly commandLineSize: number;
  /** GPA and bytes of the initial RAM disk; 0, 0 without one. */
  readonly ramdisk: number;
  readonly ramdiskSize: number;
  /** GPA of the ACPI root pointer; 0: none, the kernel searches. */
  readonly rsdp?: number;
  /** Setup header of the image: file offset 0x1f1 up to its own end; without one a minimal header is made up. */
  readonly setupHeader?: Uint8Array;
}

/** Start of the setup header, in the image and in the structure. */
export const SETUP_HEADER_OFFSET = 0x1f1;

/**
 * Linux `struct boot_params` for the 64-bit boot protocol (Documentation/arch/x86/zero-page.rst and boot.rst),
 * as a boot loader fills it that enters an ELF kernel directly.
 */
export function buildBootParams(p: BootParams): Uint8Array {
  if (p.e820.length > E820_MAX_ENTRIES) throw new RangeError(`${p.e820.length} e820 entries; at most ${E820_MAX_ENTRIES} fit`);
  const page = new Uint8Array(BOOT_PARAMS_SIZE);
  const view = new DataView(page.buffer);
  view.setUint32(0x0c0, high(p.ramdisk), true); // ext_ramdisk_image
  view.setUint32(0x0c4, high(p.ramdiskSize), true); // ext_ramdisk_size
  view.setUint32(0x0c8, high(p.commandLine), true); // ext_cmd_line_ptr
  view.setUint8(0x1e8, p.e820.length); // e820_entries
  view.setBigUint64(0x070, BigInt(p.rsdp ?? 0), true); // acpi_rsdp_addr
  if (p.setupHeader !== undefined) {
    page.set(p.setupHeader, SETUP_HEADER_OFFSET);
  } else {
    view.setUint16(0x1fe, 0xaa55, true); // hdr.boot_flag
    view.setUint32(0x202, 0x5372_6448, true); // hdr.header, "HdrS"
    view.setUint16(0x206, 0x020f, true); // hdr.version
    view.setUint32(0x238, p.commandLineSize, true); // hdr.cmdline_size
  }
  view.setUint8(0x210, 0xff); // hdr.type_of_loader: undefined
  view.setUint8(0x211, view.getUint8(0x211) | 0x01); // hdr.loadflags: LOADED_HIGH
  view.setUint32(0x218, p.ramdisk >>> 0, true); // hdr.ramdisk_image
  view.setUint32(0x21c, p.ramdiskSize >>> 0, true); // hdr.ramdisk_size
  view.setUint32(0x228, p.commandLine >>> 0, true); // hdr.cmd_line_ptr
  p.e820.forEach((entry, i) => {
    const at = 0x2d0 + i * 20;
    view.setBigUint64(at, BigInt(entry.address), true);
    view.setBigUint64(at + 8, BigInt(entry.size), true);
    view.setUint32(at + 16, entry.type, true);
  });
  return page;
}

function high(n: number): number {
  return Math.floor(n / 2 ** 32);
}
