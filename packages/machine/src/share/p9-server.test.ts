import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { xorshift } from '../testing/test-board.ts';
import { EACCES, EINVAL, ELOOP, ENOENT, ENOTDIR, EROFS, HostFolder } from './host-folder.ts';
import { P9Reader, P9Writer } from './p9-message.ts';
import { P9Server } from './p9-server.ts';

const RLERROR = 7;
const O_CREAT = 0x40;
const O_RDWR = 2;

let base = '';
let folder = '';
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'pvm-9p-'));
  folder = join(base, 'shared');
  mkdirSync(join(folder, 'dir'), { recursive: true });
  writeFileSync(join(base, 'secret'), 'secret');
  writeFileSync(join(folder, 'file'), 'hello');
  writeFileSync(join(folder, 'dir', 'inner'), 'inner');
  symlinkSync('..', join(folder, 'up'));
  symlinkSync('../secret', join(folder, 'leak'));
});
afterEach(() => rmSync(base, { recursive: true }));

function client(readOnly = false) {
  const shared = new HostFolder(folder, readOnly);
  const server = new P9Server(shared);
  /** @returns the fields of the answer, or the errno */
  const call = (type: number, fields: (w: P9Writer) => P9Writer): P9Reader | number => {
    const answer = new P9Reader(server.handle(fields(new P9Writer()).finish(type, 1), 65536));
    answer.u32();
    const kind = answer.u8();
    answer.u16();
    if (kind === RLERROR) return answer.u32();
    expect(kind).toBe(type + 1);
    return answer;
  };
  const walk = (fid: number, newFid: number, ...names: string[]) =>
    call(110, (w) => names.reduce((out, name) => out.string(name), w.u32(fid).u32(newFid).u16(names.length)));
  call(100, (w) => w.u32(65536).string('9P2000.L'));
  call(104, (w) =>
    w
      .u32(0)
      .u32(~0 >>> 0)
      .string('root')
      .string('')
      .u32(0),
  );
  return { server, shared, call, walk };
}

function fields(answer: P9Reader | number): P9Reader {
  if (typeof answer === 'number') throw new Error(`errno ${answer}`);
  return answer;
}

describe('9P server', () => {
  it('reads, creates, writes, lists, renames and removes', () => {
    const { call, walk } = client();
    walk(0, 1, 'file');
    call(12, (w) => w.u32(1).u32(0));
    const read = fields(call(116, (w) => w.u32(1).u64(1n).u32(100)));
    expect(new TextDecoder().decode(read.data(read.u32()))).toBe('ello');
    walk(0, 2, 'dir');
    call(14, (w) =>
      w
        .u32(2)
        .string('new')
        .u32(O_RDWR | O_CREAT)
        .u32(0o640)
        .u32(0),
    );
    expect(
      fields(
        call(118, (w) =>
          w
            .u32(2)
            .u64(0n)
            .u32(3)
            .data(new Uint8Array([97, 98, 99])),
        ),
      ).u32(),
    ).toBe(3);
    expect(readFileSync(join(folder, 'dir/new'), 'utf8')).toBe('abc');
    call(26, (w) => w.u32(2).u32(8).u32(0).u32(0).u32(0).u64(1n).u64(0n).u64(0n).u64(0n).u64(0n));
    expect(readFileSync(join(folder, 'dir/new'), 'utf8')).toBe('a');
    walk(0, 3, 'dir');
    call(74, (w) => w.u32(3).string('new').u32(0).string('moved'));
    expect(existsSync(join(folder, 'moved'))).toBe(true);
    call(12, (w) => w.u32(3).u32(0));
    const list = fields(call(40, (w) => w.u32(3).u64(0n).u32(4000)));
    const names: string[] = [];
    for (let left = list.u32(); left > 0; ) {
      list.data(13 + 8 + 1);
      const name = list.string();
      names.push(name);
      left -= 24 + name.length;
    }
    expect(names).toEqual(['.', '..', 'inner']);
    call(76, (w) => w.u32(0).string('moved').u32(0));
    expect(existsSync(join(folder, 'moved'))).toBe(false);
  });

  it('shows links as links and never follows one, wherever it leads', () => {
    const { call, walk } = client();
    expect(fields(walk(0, 1, 'leak')).u16()).toBe(1);
    expect(fields(call(22, (w) => w.u32(1))).string()).toBe('../secret');
    expect(call(12, (w) => w.u32(1).u32(0))).toBe(ELOOP);
    expect(fields(walk(0, 2, 'up', 'secret')).u16()).toBe(1);
    walk(0, 3, 'up');
    expect(walk(3, 4, 'secret')).toBe(ENOTDIR);
    expect(
      call(14, (w) =>
        w
          .u32(3)
          .string('x')
          .u32(O_RDWR | O_CREAT)
          .u32(0o600)
          .u32(0),
      ),
    ).toBe(ENOTDIR);
    expect(call(26, (w) => w.u32(1).u32(8).u32(0).u32(0).u32(0).u64(0n).u64(0n).u64(0n).u64(0n).u64(0n))).toBeTypeOf('number');
    expect(readFileSync(join(base, 'secret'), 'utf8')).toBe('secret');
  });

  it.each(['..', '../secret', 'dir/inner', '/etc/passwd', '', '.', 'a\0b'])('refuses %j as a name', (name) => {
    const { call, walk } = client();
    expect([EINVAL, ENOTDIR]).toContain(
      call(14, (w) =>
        w
          .u32(0)
          .string(name)
          .u32(O_RDWR | O_CREAT)
          .u32(0o600)
          .u32(0),
      ),
    );
    expect([EINVAL, ENOTDIR]).toContain(call(76, (w) => w.u32(0).string(name).u32(0)));
    if (name === '..') {
      expect(fields(walk(0, 5, '..', '..', 'file')).u16()).toBe(3);
      expect(walk(0, 6, '..', 'secret')).not.toBe(0);
      expect(call(12, (w) => w.u32(6).u32(0))).toBeTypeOf('number');
    }
  });

  it("gives new files and directories the mode that the guest asked for, whatever the host's umask", () => {
    const { call, walk } = client();
    const before = process.umask(0o077);
    try {
      walk(0, 1);
      fields(
        call(14, (w) =>
          w
            .u32(1)
            .string('open')
            .u32(O_RDWR | O_CREAT)
            .u32(0o666)
            .u32(0),
        ),
      );
      fields(call(72, (w) => w.u32(0).string('all').u32(0o777).u32(0)));
      expect(statSync(join(folder, 'open')).mode & 0o7777).toBe(0o666);
      expect(statSync(join(folder, 'all')).mode & 0o7777).toBe(0o777);
      // One that is there keeps its mode.
      walk(0, 2);
      fields(
        call(14, (w) =>
          w
            .u32(2)
            .string('open')
            .u32(O_RDWR | O_CREAT)
            .u32(0o600)
            .u32(0),
        ),
      );
      expect(statSync(join(folder, 'open')).mode & 0o7777).toBe(0o666);
    } finally {
      process.umask(before);
    }
  });

  it('changes an open file that has lost its name, and not one that has taken it', () => {
    const { call, walk } = client();
    walk(0, 1, 'file');
    call(12, (w) => w.u32(1).u32(O_RDWR));
    call(76, (w) => w.u32(0).string('file').u32(0));
    writeFileSync(join(folder, 'file'), 'another');
    fields(call(26, (w) => w.u32(1).u32(8).u32(0).u32(0).u32(0).u64(2n).u64(0n).u64(0n).u64(0n).u64(0n)));
    const size = fields(call(24, (w) => w.u32(1).u64(0x7ffn)));
    size.data(8 + 13 + 12 + 16);
    expect(size.u64()).toBe(2n);
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('another');
  });

  it('passes names on that are not UTF-8, and links to them', () => {
    const { call, walk } = client();
    const name = '\xff\xc3\x28';
    walk(0, 1);
    fields(
      call(14, (w) =>
        w
          .u32(1)
          .string(name)
          .u32(O_RDWR | O_CREAT)
          .u32(0o644)
          .u32(0),
      ),
    );
    fields(call(16, (w) => w.u32(0).string('l\xe9').string(name).u32(0)));
    expect(readdirSync(folder, { encoding: 'latin1' })).toEqual(expect.arrayContaining([name, 'l\xe9']));
    fields(walk(0, 2, name));
    fields(walk(0, 3, 'l\xe9'));
    expect(fields(call(22, (w) => w.u32(3))).string()).toBe(name);
    fields(call(76, (w) => w.u32(0).string(name).u32(0)));
    expect(readdirSync(folder, { encoding: 'latin1' })).not.toContain(name);
  });

  it.each([100, 1024, 65_536])('lists a directory of many files completely, %i bytes at a time', (room) => {
    const files = Array.from({ length: 300 }, (_, i) => `${'name'.repeat(i % 7)}${i}`);
    for (const name of files) writeFileSync(join(folder, 'dir', name), '');
    const { call, walk } = client();
    walk(0, 1, 'dir');
    fields(call(12, (w) => w.u32(1).u32(0)));
    const found: string[] = [];
    for (let offset = 0n; ; ) {
      const list = fields(call(40, (w) => w.u32(1).u64(offset).u32(room)));
      const bytes = list.u32();
      expect(bytes).toBeLessThanOrEqual(room);
      if (bytes === 0) break;
      for (let left = bytes; left > 0; ) {
        list.data(13);
        offset = list.u64();
        list.u8();
        const name = list.string();
        found.push(name);
        left -= 24 + name.length;
      }
    }
    expect(found.toSorted()).toEqual(['.', '..', 'inner', ...files].toSorted());
  });

  it('lets a guest that caches names hold thousands of them', () => {
    const { walk } = client();
    for (let fid = 1; fid <= 5000; fid++) fields(walk(0, fid, 'file'));
  });

  it('lets nothing be changed in a read-only share', () => {
    const { call, walk } = client(true);
    walk(0, 1, 'file');
    expect(call(12, (w) => w.u32(1).u32(O_RDWR))).toBe(EROFS);
    expect(call(76, (w) => w.u32(0).string('file').u32(0))).toBe(EROFS);
    expect(call(72, (w) => w.u32(0).string('d').u32(0o755).u32(0))).toBe(EROFS);
    expect(walk(0, 9, 'missing')).toBe(ENOENT);
  });

  it('does not open devices and answers garbage with errors', () => {
    const { server, walk, call } = client();
    symlinkSync('/dev/zero', join(folder, 'zero'));
    walk(0, 1, 'zero');
    expect([EACCES, ELOOP]).toContain(call(12, (w) => w.u32(1).u32(0)));
    const random = xorshift(4711);
    for (let i = 0; i < 20_000; i++) {
      const request = Uint8Array.from({ length: 7 + (random() % 60) }, () => (random() % 3 === 0 ? random() & 0xff : random() & 3));
      new DataView(request.buffer).setUint32(0, request.length, true);
      // Everything but setattr, rename and removal, whose random arguments could hit the test's own files.
      request[4] = [8, 12, 22, 24, 30, 40, 50, 52, 54, 100, 104, 108, 110, 116, 118, 120, 1, 255][random() % 18] ?? 0;
      expect(server.handle(request, 8192).length).toBeGreaterThanOrEqual(7);
    }
    expect(readFileSync(join(base, 'secret'), 'utf8')).toBe('secret');
  });
});
