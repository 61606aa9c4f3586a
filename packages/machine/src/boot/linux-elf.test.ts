import { describe, expect, it } from 'vitest';
import { GuestRam } from '../ram.ts';
import { buildCpio } from './cpio.ts';
import { loadLinuxElf } from './linux-elf.ts';

function kernel(paddr: bigint, memSize = 0x2000n): Uint8Array {
  const image = new Uint8Array(0x1000).fill(0x90, 0x100);
  const view = new DataView(image.buffer);
  image.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setBigUint64(24, 0xffff_d000_0000_0100n, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true);
  view.setBigUint64(80, 0xffff_d000_0000_0000n, true);
  view.setBigUint64(88, paddr, true);
  view.setBigUint64(96, 0x1000n, true);
  view.setBigUint64(104, memSize, true);
  return image;
}

function ram(size = 16 << 20): GuestRam {
  return new GuestRam(new ArrayBuffer(size + 4096), 4096, size);
}

describe('64-bit Linux boot', () => {
  it('enters at the physical address of the entry point with boot_params in RSI', () => {
    const r = ram();
    const state = loadLinuxElf(r, { kernel: kernel(0x10_0000n), commandLine: 'quiet' });
    expect(state).toEqual({ rip: 0x10_0100n, rsi: 0x7000n, cr3: 0x9000n });
    expect(r.bytes[0x10_0100]).toBe(0x90);
    expect(r.bytes[0x10_1000]).toBe(0);
  });

  it('describes RAM, command line and RAM disk in boot_params', () => {
    const r = ram();
    const initrd = buildCpio([{ name: 'a/b', data: new TextEncoder().encode('hello') }]);
    loadLinuxElf(r, { kernel: kernel(0x10_0000n), commandLine: 'x=1', initrd });
    const v = r.view;
    expect(v.getUint32(0x7202, true)).toBe(0x5372_6448);
    expect(new TextDecoder().decode(r.bytes.slice(v.getUint32(0x7228, true), v.getUint32(0x7228, true) + 4))).toBe('x=1\0');
    expect(v.getUint8(0x71e8)).toBe(3);
    expect(Number(v.getBigUint64(0x72d0 + 40, true) + v.getBigUint64(0x72d0 + 48, true))).toBe(16 << 20);
    const at = v.getUint32(0x7218, true);
    expect(at % 4096).toBe(0);
    expect(v.getUint32(0x721c, true)).toBe(initrd.length);
    expect([...r.bytes.slice(at, at + initrd.length)]).toEqual([...initrd]);
  });

  it('maps all RAM at its own address in 2 MiB supervisor pages and nothing else', () => {
    const r = ram();
    loadLinuxElf(r, { kernel: kernel(0x10_0000n), commandLine: '' });
    expect(r.view.getBigUint64(0x9000, true)).toBe(0xa003n);
    expect(r.view.getBigUint64(0xa000, true)).toBe(0xb003n);
    expect(r.view.getBigUint64(0xb000 + 7 * 8, true)).toBe(0xe0_0083n);
    expect(r.view.getBigUint64(0xb000 + 8 * 8, true)).toBe(0n);
  });

  it.each([
    ['a kernel beyond the end of RAM', kernel(0x200_0000n), new Uint8Array(0)],
    ['a RAM disk that leaves no room for the kernel', kernel(0x10_0000n), new Uint8Array(15 << 20)],
  ])('refuses %s', (_name, image, initrd) => {
    expect(() => loadLinuxElf(ram(), { kernel: image, commandLine: '', initrd })).toThrow(expect.objectContaining({ code: 'memory-too-small' }));
  });

  it('refuses a kernel over the boot structures', () => {
    expect(() => loadLinuxElf(ram(), { kernel: kernel(0x8000n), commandLine: '' })).toThrow(expect.objectContaining({ code: 'elf-malformed' }));
  });
});

describe('cpio archive', () => {
  it('is what the newc format prescribes', () => {
    const text = new TextDecoder('latin1').decode(buildCpio([{ name: 'f', data: new Uint8Array([65, 66, 67]), mode: 0o755 }]));
    expect(text.slice(0, 6)).toBe('070701');
    expect(text.slice(14, 22)).toBe('000081ed');
    expect(text.slice(54, 62)).toBe('00000003');
    expect(text.slice(110, 112)).toBe('f\0');
    expect(text.slice(112, 116)).toBe('ABC\0');
    expect(text.slice(116, 122)).toBe('070701');
    expect(text).toContain('TRAILER!!!\0');
  });
});
