import { MachineError } from '../errors.ts';
import type { GuestRam } from '../ram.ts';
import { isBzImage, loadBzImage } from './bzimage.ts';
import type { EntryState } from './entry-state.ts';
import { bootLinuxElf, type KernelImage } from './linux-elf.ts';
import { findMultibootHeader, loadMultiboot } from './multiboot.ts';
import { findPvhEntry, loadPvh } from './pvh.ts';

/** How a kernel can be entered. */
export type BootProtocol = 'bzimage' | 'pvh' | 'elf' | 'multiboot';

/** What the image itself says, undefined when it is none of the formats. An ELF with a PVH note counts as PVH. */
export function detectProtocol(kernel: Uint8Array): BootProtocol | undefined {
  if (isBzImage(kernel)) return 'bzimage';
  if (findMultibootHeader(kernel) !== undefined) return 'multiboot';
  const elf = kernel[0] === 0x7f && kernel[1] === 0x45 && kernel[2] === 0x4c && kernel[3] === 0x46;
  if (!elf) return undefined;
  return kernel[4] === 2 && findPvhEntry(kernel) !== undefined ? 'pvh' : 'elf';
}

/**
 * Load a kernel by the protocol its image announces, or by `protocol`.
 *
 * @throws MachineError `unknown-kernel-format`, and what the loader of the format throws
 */
export function loadKernel(ram: GuestRam, image: KernelImage, protocol = detectProtocol(image.kernel)): EntryState {
  switch (protocol) {
    case 'bzimage':
      return loadBzImage(ram, image);
    case 'pvh':
      return loadPvh(ram, image);
    case 'multiboot':
      return loadMultiboot(ram, image);
    case 'elf':
      return bootLinuxElf(ram, image);
    case undefined:
      throw new MachineError('unknown-kernel-format', 'kernel: neither a bzImage, an ELF nor a multiboot image');
  }
}
