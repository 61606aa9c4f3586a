/** Kernel images for tests, in every format that the PC boots: code at a fixed place, with its page tables and GDT. */

/** Where the image is loaded, and where things lie in it. */
export const LOAD = 0x20_0000;
export const at = {
  /** 64-bit code; 32-bit entries have their way there in front of it. */
  start32: LOAD + 0x100,
  start64: LOAD + 0x400,
  lstar: LOAD + 0x1033,
  event: LOAD + 0x2017,
  retu: LOAD + 0x3ffd,
  rets: LOAD + 0x3ff1,
  gdt: LOAD + 0x5000,
  gdtr: LOAD + 0x5080,
  pml4: LOAD + 0x8000,
  pvcs: LOAD + 0xf000,
  stack: LOAD + 0x2_0000,
  /** The 2 MiB page that umod may use. */
  user: 0x40_0000,
} as const;
const SIZE = 0x2_1000;
/** The upper-half window shows the first GiB as well. */
export const WINDOW = 0xffff_d000_0000_0000n;
/** CS of the image's GDT. */
export const CODE_SELECTOR = 0x20;

const P_RW = 3n;
const P_RW_U = 7n;
const LARGE = 1n << 7n;

const bytes = (n: number, size: number) => Array.from({ length: size }, (_, i) => Math.floor(n / 2 ** (8 * i)) & 0xff);

/** CR4.PAE, CR3, EFER.LME and NXE, CR0.PG, then a far jump to 64-bit code. */
const enableLongMode: readonly number[] = [
  ...[0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0],
  ...[0xb8, ...bytes(at.pml4, 4), 0x0f, 0x22, 0xd8],
  ...[0xb9, ...bytes(0xc000_0080, 4), 0x0f, 0x32, 0x0d, ...bytes(0x900, 4), 0x0f, 0x30],
  ...[0x0f, 0x20, 0xc0, 0x0d, ...bytes(0x8000_0001, 4), 0x0f, 0x22, 0xc0],
  // Compatibility mode: still no PVM guest.
  ...[0x0f, 0x01, 0x15, ...bytes(at.gdtr, 4)],
  ...[0xea, ...bytes(at.start64, 4), ...bytes(CODE_SELECTOR, 2)],
];

/** Pieces of code by address. */
export type Pieces = readonly (readonly [address: number, ...code: (readonly number[])[]])[];

/** The memory from `LOAD` on. `start32` is put in front of the way to 64-bit mode. */
function memory(pieces: Pieces, start32: readonly number[]): Uint8Array {
  const image = new Uint8Array(SIZE);
  const view = new DataView(image.buffer);
  const table = (n: number) => at.pml4 + 0x1000 * n;
  const set = (address: number, value: bigint) => view.setBigUint64(address - LOAD, value, true);
  set(at.pml4, BigInt(table(1)) | P_RW_U);
  set(at.pml4 + 8 * 416, BigInt(table(1)) | P_RW_U);
  set(table(1), BigInt(table(2)) | P_RW_U);
  // The last of the first four GiB has the local APIC.
  set(table(1) + 8 * 3, BigInt(table(3)) | P_RW_U);
  for (let i = 0; i < 512; i++) set(table(2) + 8 * i, (BigInt(i) << 21n) | LARGE | (i === at.user >> 21 ? P_RW_U : P_RW));
  set(table(3) + 8 * 503, 0xfee0_0000n | LARGE | P_RW);
  set(at.gdt + CODE_SELECTOR, 0x00af_9b00_0000_ffffn);
  view.setUint16(at.gdtr - LOAD, CODE_SELECTOR + 7, true);
  view.setUint32(at.gdtr - LOAD + 2, at.gdt, true);
  image.set([...start32, ...enableLongMode], at.start32 - LOAD);
  for (const [address, ...code] of pieces) image.set(code.flat(), address - LOAD);
  return image;
}

function concat(...parts: readonly (readonly number[] | Uint8Array)[]): Uint8Array {
  return Buffer.concat(parts.map((part) => Uint8Array.from(part)));
}

function elf64(image: Uint8Array, entry: number, note: readonly number[]): Uint8Array {
  const ident = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...bytes(0, 9)];
  const header = [...ident, ...bytes(2, 2), ...bytes(62, 2), ...bytes(1, 4), ...bytes(entry, 8), ...bytes(64, 8), ...bytes(0, 8)];
  const count = note.length > 0 ? 2 : 1;
  const rest = [...bytes(0, 4), ...bytes(64, 2), ...bytes(56, 2), ...bytes(count, 2), ...bytes(0, 6)];
  const noteAt = 64 + 56 * count;
  const first = noteAt + note.length;
  const program = (type: number, offset: number, address: number, size: number) => [
    ...bytes(type, 4),
    ...bytes(7, 4),
    ...[offset, address, address, size, size].flatMap((n) => bytes(n, 8)),
    ...bytes(4, 8),
  ];
  const notes = count === 2 ? program(4, noteAt, 0, note.length) : [];
  return concat(header, rest, program(1, first, LOAD, image.length), notes, note, image);
}

/** An ELF that is entered in 64-bit mode by the Linux protocol. */
export function elfKernel(pieces: Pieces): Uint8Array {
  return elf64(memory(pieces, []), at.start64, []);
}

/** The same with any contents from `LOAD` on. */
export function linuxElf(image: Uint8Array, entry: number): Uint8Array {
  return elf64(image, entry, []);
}

/** An ELF with a PVH note: 32-bit entry. */
export function pvhKernel(pieces: Pieces, start32: readonly number[] = []): Uint8Array {
  const note = [...bytes(4, 4), ...bytes(4, 4), ...bytes(18, 4), 0x58, 0x65, 0x6e, 0, ...bytes(at.start32, 4)];
  return elf64(memory(pieces, start32), at.start64, note);
}

/** A multiboot image with address fields: 32-bit entry. */
export function multibootKernel(pieces: Pieces, start32: readonly number[] = []): Uint8Array {
  const image = memory(pieces, start32);
  const flags = 0x1_0000;
  const header = [0x1bad_b002, flags, 2 ** 32 - 0x1bad_b002 - flags, LOAD, LOAD, 0, 0, at.start32];
  image.set(
    header.flatMap((n) => bytes(n, 4)),
    0,
  );
  return image;
}

/** A bzImage. `wide`: with the 64-bit entry, at 0x200 of the protected-mode code; without, the 32-bit one at its start. */
export function bzImageKernel(pieces: Pieces, wide: boolean): Uint8Array {
  const image = memory(pieces, []);
  const jump = (from: number, to: number) => [0xe9, ...bytes((to - from - 5) >>> 0, 4)];
  image.set(jump(LOAD, at.start32), 0);
  image.set(jump(LOAD + 0x200, at.start64), 0x200);
  const setup = new Uint8Array(1024);
  const view = new DataView(setup.buffer);
  view.setUint8(0x1f1, 1);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint8(0x201, 0x66);
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, 0x20f, true);
  view.setUint8(0x211, 1);
  view.setUint32(0x22c, 0x7fff_ffff, true);
  view.setUint32(0x230, 0x20_0000, true);
  view.setUint8(0x234, 1);
  view.setUint16(0x236, wide ? 1 : 0, true);
  view.setUint32(0x238, 255, true);
  view.setBigUint64(0x258, BigInt(LOAD), true);
  view.setUint32(0x260, SIZE, true);
  return concat(setup, image);
}
