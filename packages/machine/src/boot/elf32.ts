import { MachineError } from '../errors.ts';
import type { ElfImage, ElfSegment } from './elf64.ts';

const EHDR_SIZE = 52;
const PHDR_SIZE = 32;
const ELFCLASS32 = 1;
const EM_386 = 3;
const PT_LOAD = 1;

/** Whether the image is a 32-bit ELF. */
export function isElf32(image: Uint8Array): boolean {
  return image[0] === 0x7f && image[1] === 0x45 && image[2] === 0x4c && image[3] === 0x46 && image[4] === ELFCLASS32;
}

/**
 * Parse the headers of a 32-bit x86 executable, as multiboot kernels are.
 *
 * @throws MachineError `elf-truncated`, `elf-wrong-machine`, `elf-malformed`
 */
export function parseElf32(image: Uint8Array, name: string): ElfImage {
  const fail = (code: ConstructorParameters<typeof MachineError>[0], what: string): MachineError => new MachineError(code, `${name}: ${what}`);
  if (image.length < EHDR_SIZE) throw fail('elf-truncated', `truncated ELF: ${image.length} bytes, the header alone has ${EHDR_SIZE}`);
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const machine = view.getUint16(18, true);
  if (machine !== EM_386) throw fail('elf-wrong-machine', `32-bit ELF for machine ${machine}; expected x86 (3)`);
  const phoff = view.getUint32(28, true);
  const phentsize = view.getUint16(42, true);
  const phnum = view.getUint16(44, true);
  if (phnum === 0 || phentsize !== PHDR_SIZE) throw fail('elf-malformed', `ELF has ${phnum} program headers of ${phentsize} bytes; expected ${PHDR_SIZE}`);
  if (phoff + phnum * PHDR_SIZE > image.length) throw fail('elf-truncated', 'truncated ELF: program headers reach beyond the end of the file');
  const segments: ElfSegment[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * PHDR_SIZE;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const segment: ElfSegment = {
      offset: view.getUint32(at + 4, true),
      vaddr: BigInt(view.getUint32(at + 8, true)),
      paddr: BigInt(view.getUint32(at + 12, true)),
      fileSize: view.getUint32(at + 16, true),
      memSize: view.getUint32(at + 20, true),
      flags: view.getUint32(at + 24, true),
    };
    if (segment.fileSize > segment.memSize) throw fail('elf-malformed', `segment ${i} is larger in the file than in memory`);
    if (segment.offset + segment.fileSize > image.length) throw fail('elf-truncated', `truncated ELF: segment ${i} reaches beyond the end of the file`);
    if (segment.memSize > 0) segments.push(segment);
  }
  if (segments.length === 0) throw fail('elf-malformed', 'ELF has nothing to load');
  return { entry: BigInt(view.getUint32(24, true)), positionIndependent: false, segments };
}
