import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { GuestRam } from '../ram.ts';
import { TestDriver } from '../testing/virtio-driver.ts';
import { VirtioBlock } from '../virtio/block.ts';
import { MemoryBackend } from './memory-backend.ts';

const SECTORS = 64;
const WRITER = new URL('../testing/disk-writer.ts', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'pvm-power-'));
afterAll(() => rmSync(folder, { recursive: true }));

it('a process that is killed in the middle of writing leaves everything on the disk that was flushed, and no half-written sector', async () => {
  const path = join(folder, 'disk.img');
  writeFileSync(path, new Uint8Array(SECTORS * 512));
  const child = spawn(process.execPath, ['-C', 'source', WRITER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
    if (said.split('\n').length > 150) child.kill('SIGKILL');
  });
  const [, signal] = (await once(child, 'close')) as [number | null, string | null];
  expect(signal).toBe('SIGKILL');
  const flushed = Math.max(...said.trim().split('\n').slice(0, -1).map(Number));
  expect(flushed).toBeGreaterThan(SECTORS);
  const disk = new DataView(readFileSync(path).buffer);
  for (let sector = 0; sector < SECTORS; sector++) {
    const words = Array.from({ length: 128 }, (_, i) => disk.getUint32(sector * 512 + i * 4, true));
    const round = words[1] ?? 0;
    expect(words).toEqual(Array.from({ length: 128 }, (_, i) => (i % 2 === 0 ? (round === 0 ? 0 : sector) : round)));
    // The last round of this sector that the disk had confirmed.
    expect(round).toBeGreaterThanOrEqual(Math.floor((flushed - sector) / SECTORS) + 1);
  }
});

it('a flush is confirmed only after the medium has done it, and fails when the medium does', () => {
  const log: string[] = [];
  const ram = new GuestRam(new ArrayBuffer(4 << 20), 0, 4 << 20);
  class Medium extends MemoryBackend {
    override flush(): void {
      log.push(`flush, status ${ram.bytes[0x3000]}`);
      if (log.length === 2) throw new Error('I/O error');
    }
  }
  const device = new VirtioBlock(ram, new Medium(new Uint8Array(512)));
  const driver = new TestDriver(ram, device, 0, 0x1_0000);
  TestDriver.start(device, [0], true);
  for (const status of [0, 1]) {
    ram.view.setUint32(0x2000, 4, true);
    ram.bytes[0x3000] = 0xee;
    driver.add([
      { gpa: 0x2000, length: 16, write: false },
      { gpa: 0x3000, length: 1, write: true },
    ]);
    driver.kick();
    expect(ram.bytes[0x3000]).toBe(status);
  }
  expect(log).toEqual(['flush, status 238', 'flush, status 238']);
});
