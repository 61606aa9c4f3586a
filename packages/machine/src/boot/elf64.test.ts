import { describe, expect, it } from 'vitest';
import { MachineError } from '../errors.ts';
import { parseElf64 } from './elf64.ts';

/** A valid static executable of one segment; `edit` breaks it. */
function elf(edit: (view: DataView) => void = () => undefined, size = 0x200): Uint8Array {
  const image = new Uint8Array(size);
  const view = new DataView(image.buffer);
  image.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setBigUint64(24, 0x40_0100n, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true);
  view.setUint32(68, 5, true);
  view.setBigUint64(72, 0n, true);
  view.setBigUint64(80, 0x40_0000n, true);
  view.setBigUint64(88, 0x40_0000n, true);
  view.setBigUint64(96, 0x200n, true);
  view.setBigUint64(104, 0x1000n, true);
  edit(view);
  return image;
}

const refused: readonly [name: string, code: MachineError['code'], image: Uint8Array][] = [
  ['a shell script', 'not-elf', new TextEncoder().encode('#!/bin/sh\n')],
  ['an empty file', 'not-elf', new Uint8Array(0)],
  ['four bytes of magic', 'elf-truncated', elf().slice(0, 4)],
  ['half a header', 'elf-truncated', elf().slice(0, 40)],
  ['a file cut inside a segment', 'elf-truncated', elf().slice(0, 0x1ff)],
  ['program headers beyond the end', 'elf-truncated', elf((v) => v.setBigUint64(32, 0x1000n, true))],
  ['an offset near 2^64', 'elf-truncated', elf((v) => v.setBigUint64(72, 0xffff_ffff_ffff_f000n, true))],
  ['a 32-bit ELF', 'elf-32-bit', elf((v) => v.setUint8(4, 1))],
  ['a big-endian ELF', 'elf-wrong-machine', elf((v) => v.setUint8(5, 2))],
  ['an AArch64 ELF', 'elf-wrong-machine', elf((v) => v.setUint16(18, 183, true))],
  ['an object file', 'elf-not-executable', elf((v) => v.setUint16(16, 1, true))],
  ['no program headers', 'elf-malformed', elf((v) => v.setUint16(56, 0, true))],
  ['program headers of 32 bytes', 'elf-malformed', elf((v) => v.setUint16(54, 32, true))],
  ['more bytes in the file than in memory', 'elf-malformed', elf((v) => v.setBigUint64(104, 0x10n, true))],
  ['nothing to load', 'elf-malformed', elf((v) => v.setUint32(64, 6, true))],
  ['an entry outside every segment', 'elf-malformed', elf((v) => v.setBigUint64(24, 0x10n, true))],
  ['a dynamic executable', 'elf-dynamic', elf((v) => v.setUint32(64, 3, true))],
];

describe('ELF64 loader', () => {
  it('reads entry and segments of a static executable', () => {
    expect(parseElf64(elf())).toEqual({
      entry: 0x40_0100n,
      positionIndependent: false,
      segments: [{ offset: 0, vaddr: 0x40_0000n, paddr: 0x40_0000n, fileSize: 0x200, memSize: 0x1000, flags: 5 }],
    });
  });

  it.each(refused)('refuses %s with %s', (_name, code, image) => {
    expect(() => parseElf64(image, 'prog')).toThrow(MachineError);
    try {
      parseElf64(image, 'prog');
    } catch (e) {
      expect(e).toMatchObject({ code });
      expect((e as Error).message).toMatch(/^prog: .+/);
      expect((e as Error).message).not.toContain('\n');
    }
  });

  it('says what to do about a dynamic executable', () => {
    expect(() =>
      parseElf64(
        elf((v) => v.setUint32(64, 3, true)),
        'a.out',
      ),
    ).toThrow('a.out: needs a dynamic loader; link with -static');
  });
});
