import { describe, expect, it } from 'vitest';
import { MachineError } from '../errors.ts';
import { GuestRam } from '../ram.ts';
import { xorshift } from '../testing/test-board.ts';
import { BOOT_GDT_GPA } from './entry-state.ts';
import { detectProtocol, loadKernel } from './load-kernel.ts';

const RSDP = 0xe_0000;
const initrd = Uint8Array.from({ length: 5000 }, (_, i) => i & 0xff);

function newRam(): GuestRam {
  return new GuestRam(new ArrayBuffer(32 << 20), 0, 32 << 20);
}

/** A bzImage of two setup sectors and 4 KiB of protected-mode code. */
function bzImage(edit: (v: DataView) => void = () => undefined): Uint8Array {
  const image = new Uint8Array(1536 + 4096).fill(0xc3, 1536);
  const v = new DataView(image.buffer);
  v.setUint8(0x1f1, 2);
  v.setUint16(0x1fe, 0xaa55, true);
  v.setUint8(0x201, 0x6a);
  v.setUint32(0x202, 0x5372_6448, true);
  v.setUint16(0x206, 0x20f, true);
  v.setUint8(0x211, 1);
  v.setUint32(0x22c, 0x7fff_ffff, true);
  v.setUint32(0x230, 0x20_0000, true);
  v.setUint8(0x234, 1);
  v.setUint16(0x236, 0x7f, true);
  v.setUint32(0x238, 2047, true);
  v.setBigUint64(0x258, 0x100_0000n, true);
  v.setUint32(0x260, 0x10_0000, true);
  edit(v);
  return image;
}

/** A 64-bit ELF of one segment at 1 MiB with a PVH note. */
function pvhElf(): Uint8Array {
  const image = new Uint8Array(0x1000);
  const v = new DataView(image.buffer);
  image.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  v.setUint16(16, 2, true);
  v.setUint16(18, 62, true);
  v.setBigUint64(24, 0x10_0100n, true);
  v.setBigUint64(32, 64n, true);
  v.setUint16(54, 56, true);
  v.setUint16(56, 2, true);
  v.setUint32(64, 1, true);
  v.setBigUint64(80, 0x10_0000n, true);
  v.setBigUint64(88, 0x10_0000n, true);
  v.setBigUint64(96, 0x1000n, true);
  v.setBigUint64(104, 0x2000n, true);
  v.setUint32(120, 4, true);
  v.setBigUint64(128, 0x200n, true);
  v.setBigUint64(152, 40n, true);
  for (const [i, word] of [4, 4, 1, 0x006e_6558, 0xdead, 4, 4, 18, 0x006e_6558, 0x10_0200].entries()) v.setUint32(0x200 + i * 4, word, true);
  return image;
}

/** A flat multiboot image with address fields. */
function multiboot(edit: (v: DataView) => void = () => undefined): Uint8Array {
  const image = new Uint8Array(0x400).fill(0x90, 0x40);
  const v = new DataView(image.buffer);
  const flags = 0x1_0003;
  [0x1bad_b002, flags, -(0x1bad_b002 + flags), 0x10_0010, 0x10_0000, 0, 0x10_2000, 0x10_0040].forEach((word, i) => {
    v.setUint32(0x10 + i * 4, word, true);
  });
  edit(v);
  return image;
}

function text(ram: GuestRam, gpa: number): string {
  return new TextDecoder().decode(ram.bytes.slice(gpa, ram.bytes.indexOf(0, gpa)));
}

describe('bzImage', () => {
  it('is entered in long mode 0x200 behind its preferred address, with its own header in boot_params', () => {
    const ram = newRam();
    const entry = loadKernel(ram, { kernel: bzImage(), commandLine: 'a=b', initrd, rsdp: RSDP });
    expect(entry).toMatchObject({ protocol: 'linux64', mode: 'long', rip: 0x100_0200n, registers: { rsi: 0x7000n }, cr4: 0x20, efer: 0x500, rflags: 2 });
    expect(entry.cr0).toBe(0x8001_0031);
    expect(ram.bytes[0x100_0000]).toBe(0xc3);
    const v = ram.view;
    expect(v.getUint8(0x7211)).toBe(1);
    expect(v.getUint8(0x7210)).toBe(0xff);
    expect(v.getUint32(0x7260, true)).toBe(0x10_0000);
    expect(v.getUint32(0x7214, true)).toBe(0x100_0000);
    expect(v.getBigUint64(0x7070, true)).toBe(BigInt(RSDP));
    expect(text(ram, v.getUint32(0x7228, true))).toBe('a=b');
    const ramdisk = v.getUint32(0x7218, true);
    expect(ramdisk).toBe((32 << 20) - 8192);
    expect(ram.bytes.slice(ramdisk, ramdisk + 5000)).toEqual(initrd);
    expect(v.getBigUint64(BOOT_GDT_GPA + 0x10, true)).toBe(0x00af_9b00_0000_ffffn);
    expect(v.getBigUint64(BOOT_GDT_GPA + 0x18, true)).toBe(0x00cf_9300_0000_ffffn);
  });

  it('is entered in protected mode when it has no 64-bit entry', () => {
    const entry = loadKernel(newRam(), { kernel: bzImage((v) => v.setUint16(0x236, 0, true)), commandLine: '' });
    expect(entry).toMatchObject({ protocol: 'linux32', mode: 'protected', rip: 0x100_0000n, cr0: 0x11, efer: 0 });
  });

  it.each([
    ['bzimage-too-old', (v: DataView) => v.setUint16(0x206, 0x205, true)],
    ['bzimage-malformed', (v: DataView) => v.setUint8(0x1f1, 200)],
    ['bzimage-malformed', (v: DataView) => v.setUint8(0x211, 0)],
    ['memory-too-small', (v: DataView) => v.setUint32(0x260, 0x7000_0000, true)],
    ['memory-too-small', (v: DataView) => v.setBigUint64(0x258, 0x8000_0000n, true)],
    ['memory-too-small', (v: DataView) => v.setUint32(0x22c, 0x100_0000, true)],
  ] as const)('is refused with %s', (code, edit) => {
    const kernel = bzImage((v) => {
      v.setUint16(0x236, 1, true);
      edit(v);
    });
    expect(() => loadKernel(newRam(), { kernel, commandLine: '', initrd })).toThrow(expect.objectContaining({ code }));
  });

  it('refuses a command line longer than it takes', () => {
    expect(() => loadKernel(newRam(), { kernel: bzImage(), commandLine: 'x'.repeat(2048) })).toThrow(
      expect.objectContaining({ code: 'command-line-too-long' }),
    );
  });
});

describe('PVH', () => {
  it('is entered in protected mode with hvm_start_info in EBX', () => {
    const ram = newRam();
    const entry = loadKernel(ram, { kernel: pvhElf(), commandLine: 'x', initrd, rsdp: RSDP });
    expect(entry).toMatchObject({ protocol: 'pvh', mode: 'protected', rip: 0x10_0200n, cr4: 0 });
    const info = Number(entry.registers.rbx);
    const v = ram.view;
    expect([v.getUint32(info, true), v.getUint32(info + 4, true), v.getUint32(info + 12, true)]).toEqual([0x336e_c578, 1, 1]);
    expect(text(ram, Number(v.getBigUint64(info + 24, true)))).toBe('x');
    expect(v.getBigUint64(info + 32, true)).toBe(BigInt(RSDP));
    const module = Number(v.getBigUint64(info + 16, true));
    expect(v.getBigUint64(module + 8, true)).toBe(5000n);
    const map = Number(v.getBigUint64(info + 40, true));
    expect(v.getUint32(info + 48, true)).toBe(3);
    expect(v.getBigUint64(map + 48, true)).toBe(0x10_0000n);
  });

  it('needs the note', () => {
    const kernel = pvhElf();
    kernel[0x200 + 28] = 17;
    expect(detectProtocol(kernel)).toBe('elf');
    expect(() => loadKernel(newRam(), { kernel, commandLine: '' }, 'pvh')).toThrow(expect.objectContaining({ code: 'no-pvh-note' }));
  });
});

describe('multiboot 1', () => {
  it('is entered with the magic in EAX and information in EBX', () => {
    const ram = newRam();
    const entry = loadKernel(ram, { kernel: multiboot(), commandLine: 'kernel -v', initrd });
    expect(entry).toMatchObject({ protocol: 'multiboot', mode: 'protected', rip: 0x10_0040n, registers: { rax: 0x2bad_b002n } });
    const info = Number(entry.registers.rbx);
    const v = ram.view;
    expect(v.getUint32(info, true)).toBe(0x24d);
    expect(v.getUint32(info + 8, true)).toBe(31 * 1024);
    expect(text(ram, v.getUint32(info + 16, true))).toBe('kernel -v');
    const module = v.getUint32(info + 24, true);
    expect(v.getUint32(module + 4, true) - v.getUint32(module, true)).toBe(5000);
    const map = v.getUint32(info + 48, true);
    expect([v.getUint32(map, true), v.getUint32(info + 44, true)]).toEqual([20, 72]);
    expect(ram.bytes[0x10_0040]).toBe(0x90);
    expect(ram.bytes[0x10_0400]).toBe(0);
  });

  it.each([
    ['a load address above the header', (v: DataView) => v.setUint32(0x20, 0x10_0020, true)],
    ['a load end beyond the file', (v: DataView) => v.setUint32(0x24, 0x20_0000, true)],
    ['a bss end below the load end', (v: DataView) => v.setUint32(0x28, 0x10_0001, true)],
  ])('refuses %s', (_name, edit) => {
    expect(() => loadKernel(newRam(), { kernel: multiboot(edit), commandLine: '' })).toThrow(expect.objectContaining({ code: 'multiboot-malformed' }));
  });
});

describe('loaders under mutated images', () => {
  it.each([
    ['bzImage', bzImage()],
    ['PVH', pvhElf()],
    ['multiboot', multiboot()],
  ])('%s: load, or fail with a MachineError of one line', (_name, image) => {
    const random = xorshift(99);
    const ram = new GuestRam(new ArrayBuffer(32 << 20), 0, 32 << 20);
    for (let i = 0; i < 3000; i++) {
      const kernel = image.slice(0, random() % 8 === 0 ? random() % image.length : image.length);
      for (let n = random() % 4; n >= 0; n--) kernel[random() % Math.min(kernel.length || 1, 0x300)] = random() % 3 === 0 ? 0xff : random() & 0xff;
      try {
        loadKernel(ram, { kernel, commandLine: 'x' });
      } catch (e) {
        if (!(e instanceof MachineError) || e.message.includes('\n')) throw e;
      }
    }
  });

  it('refuses what is no kernel', () => {
    expect(() => loadKernel(newRam(), { kernel: new Uint8Array(100), commandLine: '' })).toThrow(expect.objectContaining({ code: 'unknown-kernel-format' }));
  });
});
