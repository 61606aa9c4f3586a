import { MachineError } from '../errors.ts';

// ELF-64 Object File Format 1.5 and the x86-64 psABI: the fields that matter for loading.
const EI_CLASS = 4;
const EI_DATA = 5;
const ELFCLASS32 = 1;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_X86_64 = 62;
const EHDR_SIZE = 64;
const PHDR_SIZE = 56;
const PT_LOAD = 1;
const PT_INTERP = 3;

/** A loadable segment of an ELF image. Addresses are 64 bits wide, sizes and offsets fit in a number. */
export interface ElfSegment {
  readonly offset: number;
  readonly vaddr: bigint;
  readonly paddr: bigint;
  readonly fileSize: number;
  readonly memSize: number;
  /** PF_X 1, PF_W 2, PF_R 4. */
  readonly flags: number;
}

export interface ElfImage {
  readonly entry: bigint;
  /** ET_DYN: may be loaded anywhere. */
  readonly positionIndependent: boolean;
  readonly segments: readonly ElfSegment[];
}

/**
 * Parse and validate the ELF64 headers of a static x86-64 executable.
 *
 * @param image the whole file
 * @param name how messages call it
 * @throws MachineError `not-elf`, `elf-32-bit`, `elf-wrong-machine`, `elf-not-executable`, `elf-dynamic`, `elf-truncated`, `elf-malformed`
 */
export function parseElf64(image: Uint8Array, name = 'image'): ElfImage {
  const fail = (code: ConstructorParameters<typeof MachineError>[0], what: string): MachineError => new MachineError(code, `${name}: ${what}`);
  if (image.length < 4 || image[0] !== 0x7f || image[1] !== 0x45 || image[2] !== 0x4c || image[3] !== 0x46) {
    throw fail('not-elf', 'not an ELF file; expected a static x86-64 Linux executable');
  }
  if (image.length <= EI_DATA) throw fail('elf-truncated', `truncated ELF: ${image.length} bytes, the header alone has ${EHDR_SIZE}`);
  if (image[EI_CLASS] === ELFCLASS32) throw fail('elf-32-bit', '32-bit ELF; build it for x86-64 (gcc -m64)');
  if (image[EI_CLASS] !== ELFCLASS64) throw fail('elf-malformed', `ELF class ${image[EI_CLASS]} does not exist`);
  if (image[EI_DATA] !== ELFDATA2LSB) throw fail('elf-wrong-machine', 'big-endian ELF; expected x86-64');
  if (image.length < EHDR_SIZE) throw fail('elf-truncated', `truncated ELF: ${image.length} bytes, the header alone has ${EHDR_SIZE}`);

  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const machine = view.getUint16(18, true);
  if (machine !== EM_X86_64) throw fail('elf-wrong-machine', `ELF for machine ${machine}; expected x86-64 (62)`);
  const type = view.getUint16(16, true);
  if (type !== ET_EXEC && type !== ET_DYN) throw fail('elf-not-executable', `ELF of type ${type} is not an executable`);

  const phoff = toNumber(view.getBigUint64(32, true));
  const phentsize = view.getUint16(54, true);
  const phnum = view.getUint16(56, true);
  if (phnum === 0) throw fail('elf-malformed', 'ELF has no program headers');
  if (phentsize !== PHDR_SIZE) throw fail('elf-malformed', `ELF program headers have ${phentsize} bytes; expected ${PHDR_SIZE}`);
  if (phoff + phnum * PHDR_SIZE > image.length)
    throw fail('elf-truncated', `truncated ELF: program headers end at ${phoff + phnum * PHDR_SIZE}, the file at ${image.length}`);

  const segments: ElfSegment[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * PHDR_SIZE;
    const segmentType = view.getUint32(at, true);
    if (segmentType === PT_INTERP) throw fail('elf-dynamic', 'needs a dynamic loader; link with -static');
    if (segmentType !== PT_LOAD) continue;
    const segment: ElfSegment = {
      flags: view.getUint32(at + 4, true),
      offset: toNumber(view.getBigUint64(at + 8, true)),
      vaddr: view.getBigUint64(at + 16, true),
      paddr: view.getBigUint64(at + 24, true),
      fileSize: toNumber(view.getBigUint64(at + 32, true)),
      memSize: toNumber(view.getBigUint64(at + 40, true)),
    };
    if (segment.fileSize > segment.memSize)
      throw fail('elf-malformed', `segment ${i} has ${segment.fileSize} bytes in the file but ${segment.memSize} in memory`);
    if (segment.offset + segment.fileSize > image.length) {
      throw fail('elf-truncated', `truncated ELF: segment ${i} ends at ${segment.offset + segment.fileSize}, the file at ${image.length}`);
    }
    if (!Number.isFinite(segment.memSize)) throw fail('elf-malformed', `segment ${i} is larger than the address space`);
    if (segment.memSize > 0) segments.push(segment);
  }
  if (segments.length === 0) throw fail('elf-malformed', 'ELF has nothing to load');
  const entry = view.getBigUint64(24, true);
  if (!segments.some((s) => inSegment(entry, s.vaddr, s) || inSegment(entry, s.paddr, s))) {
    throw fail('elf-malformed', `entry point 0x${entry.toString(16)} is in no loadable segment`);
  }
  return { entry, positionIndependent: type === ET_DYN, segments };
}

function inSegment(address: bigint, start: bigint, s: ElfSegment): boolean {
  return address >= start && address < start + BigInt(s.memSize);
}

/** Offsets and sizes beyond 2^53 become Infinity, so that every bounds check refuses them. */
function toNumber(n: bigint): number {
  return n <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(n) : Number.POSITIVE_INFINITY;
}
