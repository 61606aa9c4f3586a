import { describe, expect, it } from 'vitest';
import { testBoard } from '../testing/test-board.ts';
import { eisaId, integer, name, pkg, scope } from './aml.ts';

describe('AML builder', () => {
  it('encodes what the specification shows', () => {
    expect(eisaId('PNP0A03')).toEqual([0x0c, 0x41, 0xd0, 0x0a, 0x03]);
    expect(name('\\_S5', pkg([integer(5), integer(0)]))).toEqual([0x08, 0x5c, 0x5f, 0x53, 0x35, 0x5f, 0x12, 5, 2, 0x0a, 5, 0]);
    expect(integer(0x1_ffff)).toEqual([0x0c, 0xff, 0xff, 1, 0]);
    const long = scope('\\_SB', [new Array(100).fill(0)]);
    expect(long.slice(0, 3)).toEqual([0x10, 0x40 | (107 & 15), 107 >> 4]);
    expect(long.length).toBe(108);
    expect(() => name('lower', [])).toThrow(RangeError);
  });
});

describe('ACPI tables', () => {
  it('are linked from the root pointer and add up to zero', () => {
    const { board, ram } = testBoard({ vcpus: 3, virtio: 'mmio', drives: [{ file: new Uint8Array(512) }] });
    const sum = (at: number, length: number) => ram.bytes.slice(at, at + length).reduce((a, b) => (a + b) & 0xff, 0);
    const signature = (at: number) => new TextDecoder().decode(ram.bytes.slice(at, at + 4));
    const rsdp = board.writeFirmwareTables();
    expect([sum(rsdp, 20), sum(rsdp, 36)]).toEqual([0, 0]);
    const xsdt = Number(ram.view.getBigUint64(rsdp + 24, true));
    const tables = [xsdt];
    for (let at = xsdt + 36; at < xsdt + ram.view.getUint32(xsdt + 4, true); at += 8) tables.push(Number(ram.view.getBigUint64(at, true)));
    const fadt = tables[1] ?? 0;
    tables.push(Number(ram.view.getBigUint64(fadt + 140, true)));
    expect(tables.map(signature)).toEqual(['XSDT', 'FACP', 'APIC', 'DSDT']);
    expect(tables.map((at) => sum(at, ram.view.getUint32(at + 4, true)))).toEqual([0, 0, 0, 0]);
    expect(signature(ram.view.getUint32(fadt + 36, true))).toBe('FACS');
    const madt = tables[2] ?? 0;
    let cpus = 0;
    for (let at = madt + 44; at < madt + ram.view.getUint32(madt + 4, true); at += ram.bytes[at + 1] ?? 1) if (ram.bytes[at] === 0) cpus++;
    expect(cpus).toBe(3);
  });
});
