import { describe, expect, it } from 'vitest';
import { testBoard, xorshift } from '../testing/test-board.ts';

const image = Uint8Array.from({ length: 4096 }, (_, i) => (i >> 9) + 1);

function pciBoard() {
  const t = testBoard({ drives: [{ file: image.slice() }], random: (b) => b.fill(9), consolePorts: [{ output: () => undefined }] });
  const { board, ram } = t;
  const select = (slot: number, offset: number) => void board.writePort(0xcf8, 4, 0x8000_0000 | (slot << 11) | (offset & 0xfc));
  const config = (slot: number, offset: number, size: 1 | 2 | 4) => {
    select(slot, offset);
    return board.readPort(0xcfc + (offset & 3), size);
  };
  const setConfig = (slot: number, offset: number, size: 1 | 2 | 4, value: number) => {
    select(slot, offset);
    board.writePort(0xcfc + (offset & 3), size, value);
  };
  return { ...t, config, setConfig, ram, board };
}

describe('virtio over PCI', () => {
  it('is found, sized and driven with MSI-X', () => {
    const { board, ram, config, setConfig } = pciBoard();
    expect(config(1, 0, 4)).toBe(0x1042_1af4);
    expect(config(2, 0, 4)).toBe(0x1044_1af4);
    expect(config(3, 0, 4)).toBe(0x1043_1af4);
    const bar = config(1, 0x10, 4);
    setConfig(1, 0x10, 4, 0xffff_ffff);
    expect(config(1, 0x10, 4)).toBe(0xffff_c000);
    setConfig(1, 0x10, 4, bar);
    const capabilities: Record<string, number> = {};
    for (let at = config(1, 0x34, 1); at !== 0; at = config(1, at + 1, 1)) {
      const id = config(1, at, 1);
      capabilities[id === 9 ? `v${config(1, at + 3, 1)}` : `c${id}`] = at;
    }
    expect(Object.keys(capabilities).sort()).toEqual(['c17', 'v1', 'v2', 'v3', 'v4', 'v5']);
    const msix = capabilities['c17'] ?? 0;
    setConfig(1, msix + 2, 2, 0x8000);
    const table = config(1, 0x14, 4);
    const out = (gpa: number, size: 1 | 2 | 4, value: number) => void board.writeMmio(0, gpa, size, value);
    for (const [i, value] of [0xfee0_0000, 0, 0x55, 0].entries()) out(table + 16 + i * 4, 4, value);
    out(0xfee0_00f0, 4, 0x1ff);
    out(bar + 0x14, 1, 3);
    out(bar + 0x08, 4, 1);
    out(bar + 0x0c, 4, 1);
    out(bar + 0x14, 1, 11);
    expect(board.readMmio(0, bar + 0x14, 1)).toBe(11);
    out(bar + 0x18, 2, 8);
    out(bar + 0x1a, 2, 1);
    expect(board.readMmio(0, bar + 0x1a, 2)).toBe(1);
    for (const [offset, value] of [
      [0x20, 0x1_0000],
      [0x28, 0x1_1000],
      [0x30, 0x1_2000],
    ] as const)
      out(bar + offset, 4, value);
    out(bar + 0x1c, 2, 1);
    out(bar + 0x14, 1, 15);
    ram.view.setBigUint64(0x2_0008, 3n, true);
    for (const [i, [gpa, length, flags]] of (
      [
        [0x2_0000, 16, 1],
        [0x2_1000, 512, 3],
        [0x2_2000, 1, 2],
      ] as const
    ).entries()) {
      ram.view.setBigUint64(0x1_0000 + i * 16, BigInt(gpa), true);
      ram.view.setUint32(0x1_0008 + i * 16, length, true);
      ram.view.setUint16(0x1_000c + i * 16, flags, true);
      ram.view.setUint16(0x1_000e + i * 16, i + 1, true);
    }
    ram.view.setUint16(0x1_1002, 1, true);
    out(bar + 0x3000, 2, 0);
    expect(ram.bytes[0x2_1000]).toBe(4);
    expect(board.interrupts[0]?.acknowledge()).toBe(0x55);
  });

  it('raises and clears INTA without MSI-X', () => {
    const { board, config } = pciBoard();
    const bar = config(1, 0x10, 4);
    board.writeMmio(0, bar + 0x14, 1, 15);
    board.pci.read(0xcfc, 4);
    expect(board.readMmio(0, bar + 0x1000, 1)).toBe(0);
    expect(config(1, 0x3c, 2)).toBe(0x010b);
  });

  it('does not answer while memory decoding is off, and is back after a reset', () => {
    const { board, config, setConfig } = pciBoard();
    const bar = config(1, 0x10, 4);
    setConfig(1, 4, 2, 0);
    expect(board.readMmio(0, bar + 0x12, 2)).toBe(0xffff);
    board.reset();
    expect(board.readMmio(0, bar + 0x12, 2)).toBe(1);
  });

  it('survives random accesses to configuration space and BARs', () => {
    const { board, setConfig, config } = pciBoard();
    const random = xorshift(77);
    for (let i = 0; i < 30_000; i++) {
      const slot = 1 + (random() % 3);
      const size = ([1, 2, 4] as const)[random() % 3] ?? 1;
      const offset = random() & 0xff & -size;
      if (random() % 4 === 0) setConfig(slot, offset, size, random());
      else config(slot, offset, size);
      const gpa = 0xe000_0000 + (random() % 0x1_8000);
      const value = random() % 3 === 0 ? random() : random() & 0x3f;
      if (random() & 1) board.writeMmio(0, gpa & (-size >>> 0), size, value);
      else board.readMmio(0, gpa, size);
    }
  });
});

describe('virtio over MMIO', () => {
  it('is announced and answers at its place', () => {
    const { board } = testBoard({ virtio: 'mmio', drives: [{ file: image.slice() }] });
    expect(board.virtioMmioParameters()).toBe('virtio_mmio.device=0x200@0xfeb00000:16');
    expect([0, 4, 8].map((offset) => board.readMmio(0, 0xfeb0_0000 + offset, 4))).toEqual([0x7472_6976, 2, 2]);
    expect(board.readMmio(0, 0xfeb0_0100, 4)).toBe(8);
  });
});
