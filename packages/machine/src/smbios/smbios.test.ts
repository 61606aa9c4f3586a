import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { debianPackage } from '../../../../tests/debian.ts';
import { MAX_BOARD_VCPUS } from '../board/board.ts';
import type { GuestRam } from '../ram.ts';
import { testBoard } from '../testing/test-board.ts';

const ENTRY = 0xf_0000;
const dmidecode = await debianPackage('dmidecode');

/** The entry point with its sum checked, and what it points to. */
function find(ram: GuestRam): { entry: Uint8Array; structures: Uint8Array } {
  const entry = ram.bytes.slice(ENTRY, ENTRY + (ram.bytes[ENTRY + 6] ?? 0));
  const view = new DataView(entry.buffer);
  return { entry, structures: ram.bytes.slice(Number(view.getBigUint64(16, true))).subarray(0, view.getUint32(12, true)) };
}

/** What dmidecode, which knows nothing of this code, makes of them. Its dumps have the structures at 32. */
function decode(ram: GuestRam, program: string): string {
  const { entry, structures } = find(ram);
  const folder = mkdtempSync(join(tmpdir(), 'pvm-smbios-'));
  try {
    const dump = new Uint8Array(32 + structures.length);
    const view = new DataView(dump.buffer);
    dump.set(entry);
    view.setBigUint64(16, 32n, true);
    dump[5] = 0;
    dump[5] = -dump.subarray(0, 24).reduce((a, b) => a + b, 0) & 0xff;
    dump.set(structures, 32);
    writeFileSync(join(folder, 'dump'), dump);
    return execFileSync(program, ['--from-dump', join(folder, 'dump')], { encoding: 'utf8' });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe('SMBIOS tables', () => {
  it('have an entry point that adds up to zero and structures that follow each other to the end-of-table', () => {
    const { board, ram } = testBoard({ vcpus: 3 });
    board.writeFirmwareTables();
    const { entry, structures } = find(ram);
    expect(new TextDecoder().decode(entry.subarray(0, 5))).toBe('_SM3_');
    expect(entry.reduce((a, b) => (a + b) & 0xff, 0)).toBe(0);
    const types: number[] = [];
    let at = 0;
    while (at < structures.length) {
      types.push(structures[at] ?? -1);
      at += structures[at + 1] ?? 0;
      while (structures[at] !== 0 || structures[at + 1] !== 0) at++;
      at += 2;
    }
    expect(at).toBe(structures.length);
    expect(types).toEqual([0, 1, 3, 4, 4, 4, 16, 17, 19, 32, 127]);
  });

  it.skipIf(dmidecode === undefined).each([
    [1, 16 << 20, '16 MB'],
    [MAX_BOARD_VCPUS, (16 << 20) + 4096, '16388 kB'],
  ])('are read by dmidecode without a complaint: %i vCPUs, %i bytes', (vcpus, ramSize, size) => {
    const { board, ram } = testBoard({ vcpus }, ramSize);
    board.writeFirmwareTables();
    const text = decode(ram, join(dmidecode ?? '', 'usr/sbin/dmidecode'));
    expect(text).not.toMatch(/invalid|broken|truncated|OUT OF SPEC|BAD INDEX|<bad|wrong/i);
    expect(text.match(/Processor Information/g)).toHaveLength(vcpus);
    expect(text).toMatch(/System Information\n\tManufacturer: pvm\n\tProduct Name: pvm PC\n/);
    expect(text).toContain('System is a virtual machine');
    expect(text).toMatch(/UUID: Not (Settable|Present)/);
    expect(text).toMatch(new RegExp(`Memory Device[\\s\\S]*\\tSize: ${size}\\n`));
    expect(text).toMatch(new RegExp(`Range Size: ${size}`));
    expect(text).toContain('End Of Table');
  });
});
