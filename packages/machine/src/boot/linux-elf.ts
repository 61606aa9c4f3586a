import type { GuestRam } from '../ram.ts';
import { BOOT_PARAMS_SIZE, buildBootParams } from './boot-params.ts';
import { parseElf64 } from './elf64.ts';
import { type EntryState, longModeEntry } from './entry-state.ts';
import { identityMapSize, writeIdentityMap } from './identity-map.ts';
import { BOOT_PARAMS_GPA, BOOT_TABLES_GPA, COMMAND_LINE_GPA, loadSegments, placeHigh, writeCommandLine } from './placement.ts';

export interface KernelImage {
  /** The kernel file. */
  readonly kernel: Uint8Array;
  readonly commandLine: string;
  /** Initial RAM disk. */
  readonly initrd?: Uint8Array;
  /** GPA of the ACPI root pointer, when the board has tables. */
  readonly rsdp?: number;
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
  const kernelEnd = loadSegments(ram, elf, image.kernel, BOOT_PARAMS_GPA);
  let rip = elf.entry;
  for (const s of elf.segments) {
    if (elf.entry >= s.vaddr && elf.entry < s.vaddr + BigInt(s.memSize)) rip = elf.entry - s.vaddr + s.paddr;
  }
  const commandLineSize = writeCommandLine(ram, image.commandLine);
  const initrd = image.initrd ?? new Uint8Array(0);
  const ramdisk = placeHigh(ram, initrd, kernelEnd);
  const cr3 = writeBootTables(ram);
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
    }),
  );
  return { rip, rsi: BigInt(BOOT_PARAMS_GPA), cr3: BigInt(cr3) };
}

/** `loadLinuxElf` with the whole entry state. @throws MachineError as there */
export function bootLinuxElf(ram: GuestRam, image: KernelImage): EntryState {
  const { rip, rsi, cr3 } = loadLinuxElf(ram, image);
  return longModeEntry(ram, { protocol: 'linux64', rip, cr3: Number(cr3), registers: { rsi } });
}

/** Identity map of RAM below the command line. @returns CR3 */
export function writeBootTables(ram: GuestRam): number {
  if (BOOT_TABLES_GPA + identityMapSize(ram.size) > COMMAND_LINE_GPA) throw new RangeError('boot page tables reach the command line');
  return writeIdentityMap(ram, BOOT_TABLES_GPA);
}
