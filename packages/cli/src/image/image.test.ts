import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { cpioPieces } from '@pvm/pvm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SELF_SIGNED } from '../testing/certificate.ts';
import { pvm } from '../testing/pvm-process.ts';
import { arMembers } from './deb.ts';
import { archiveOf } from './debian.ts';
import { fetchPinned } from './https.ts';
import { loadOrder } from './modules.ts';
import { RootFs } from './rootfs.ts';
import { tarEntries } from './tar.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-image-'));
afterAll(() => rmSync(folder, { recursive: true }));
const bytes = (text: string) => new TextEncoder().encode(text);

/** One entry in ustar format. */
function tar(name: string, type: string, data = '', target = ''): Uint8Array {
  const head = Buffer.alloc(512);
  head.write(name, 0);
  head.write('0000755\0', 100);
  head.write('0000000\0', 108);
  head.write('0000000\0', 116);
  head.write(`${data.length.toString(8).padStart(11, '0')}\0`, 124);
  head.write(type, 156);
  head.write(target, 157);
  head.write('ustar\x0000', 257);
  return Buffer.concat([head, Buffer.from(data), Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

describe('a root file system of packages', () => {
  const archive = Buffer.concat([
    tar('./', '5'),
    tar('./bin/', '5'),
    tar('./bin/sh', '0', 'shell'),
    tar('././@LongLink', 'L', `./usr/share/${'x'.repeat(120)}\0`),
    tar('cut', '0', 'long'),
    tar('./usr/bin/bash', '1', '', './bin/sh'),
    tar('./etc/link', '2', '', '../../../../etc/shadow'),
    tar('../../escape', '0', 'no'),
    tar('./dev/null', '3'),
    Buffer.alloc(1024),
  ]);

  test('puts files of the old directories into /usr, keeps links as they are, and lets no name lead out', () => {
    const root = new RootFs();
    root.unpack(tarEntries(archive), (name) => !name.startsWith('etc/skip'));
    expect(root.entries().map(({ name }) => name)).toEqual([
      'bin',
      'etc',
      'etc/link',
      'lib',
      'lib32',
      'lib64',
      'libx32',
      'sbin',
      'usr',
      'usr/bin',
      'usr/bin/bash',
      'usr/bin/sh',
      'usr/share',
      `usr/share/${'x'.repeat(120)}`,
    ]);
    expect(Buffer.from(root.read('usr/bin/bash') ?? '').toString()).toBe('shell');
    expect(Buffer.from(root.read('etc/link') ?? '').toString()).toBe('../../../../etc/shadow');
    expect(Buffer.from(root.read('bin') ?? '').toString()).toBe('usr/bin');
    const cpio = Buffer.concat([...cpioPieces(root.entries())]);
    expect(cpio.length % 4).toBe(0);
    // Type and permissions of the link and of a directory, as newc has them in its second field.
    expect(cpio.toString('latin1')).toMatch(/^070701[0-9a-f]{8}0000a1ff/);
    expect(cpio.toString('latin1')).toContain('TRAILER!!!');
  });

  test.each([
    ['a tar archive that is cut short', () => [...tarEntries(tar('x', '0', 'y'.repeat(600)).subarray(0, 700))], /cut short/],
    ['what is no tar archive', () => [...tarEntries(new Uint8Array(1024).fill(65))], /not a tar/],
    ['what is no package', () => arMembers(bytes('PK.........')), /not a Debian package/],
    ['a package that is cut short', () => arMembers(bytes(`!<arch>\n${'data.tar'.padEnd(48)}${'1000'.padEnd(10)}\`\nxx`)), /cut short/],
  ])('refuses %s', (_, read, message) => {
    expect(read).toThrow(message);
  });

  test('loads modules after those that they need, each once, and leaves out what is not there', () => {
    const module = (depends: string) => bytes(`\x7fELF\0name=x\0depends=${depends}\0`);
    const modules = new Map([
      ['a/virtio-blk.ko', module('virtio,virtio_ring')],
      ['a/virtio.ko', module('')],
      ['a/virtio_ring.ko', module('virtio')],
      ['a/other.ko', module('virtio_blk')],
    ]);
    expect(loadOrder(modules, ['virtio_blk', 'virtio_ring', 'nothing'])).toEqual(['a/virtio.ko', 'a/virtio_ring.ko', 'a/virtio-blk.ko']);
  });
});

describe('a pinned file', () => {
  const contents = Buffer.from(Array.from({ length: 100_000 }, (_, i) => i & 0xff));
  const file = { path: 'pool/x.deb', bytes: contents.length, sha256: createHash('sha256').update(contents).digest('hex') };
  const asked: (string | undefined)[] = [];
  let server: Server;
  let base = '';
  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.headers.range);
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const [, how = ''] = request.url?.split('/') ?? [];
      if (how === 'cut') {
        // Half of what was asked for, and the connection breaks.
        response.writeHead(from > 0 ? 206 : 200, { 'content-length': contents.length - from });
        response.write(contents.subarray(from, from + (contents.length - from) / 2), () => response.destroy());
      } else if (how === 'long') response.end(Buffer.concat([contents, contents]));
      else if (how === 'short') response.end(contents.subarray(0, 10));
      else if (how === 'whole') response.end(contents);
      else if (request.url === '/good/pool/x.deb') response.writeHead(from > 0 ? 206 : 200).end(contents.subarray(from));
      else if (request.url === '/bad/pool/x.deb') response.end(Buffer.alloc(contents.length));
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => server.close());

  test('comes from the first place that has it, goes on where it was interrupted, and is not fetched twice', async () => {
    const target = join(folder, 'x.deb');
    writeFileSync(`${target}.partial`, contents.subarray(0, 60_000));
    let seen = 0;
    const fetchIt = () =>
      fetchPinned(file, [`${base}/none`, `${base}/good`], target, (n) => {
        seen += n;
      });
    await fetchIt();
    expect(readFileSync(target).equals(contents)).toBe(true);
    expect(asked).toEqual(['bytes=60000-', 'bytes=60000-']);
    expect(seen).toBe(contents.length);
    await fetchIt();
    expect(asked).toHaveLength(2);
  });

  test.each([
    ['goes on at each place where the one before broke off', ['cut', 'cut', 'good'], '', true],
    ['is fetched as a whole where a place knows no ranges', ['cut', 'whole'], '', true],
    ['is fetched again when what was left of it is not of it', ['good'], 'x'.repeat(5000), true],
    ['is fetched again when what was left of it is as long, and another', ['good'], 'x'.repeat(contents.length), true],
    ['comes from the place that has the right one', ['bad', 'long', 'good'], '', true],
    ['is refused when it is another', ['bad'], '', /SHA-256 is .*, and should be .*; a mirror that is right/],
    ['is refused when it is longer', ['long'], '', /longer than the 100000 bytes/],
    ['is not complete when it ends early', ['short'], '', /it ends after 10 of 100000 bytes; is there a network\? What has been fetched is kept/],
    ['is not had when nobody has it', ['none', 'none'], '', /HTTP 404.*HTTP 404; is there a network\?/],
  ])('%s', async (_, places, left, expected) => {
    const target = join(folder, 'y.deb');
    rmSync(target, { force: true });
    rmSync(`${target}.partial`, { force: true });
    if (left !== '') writeFileSync(`${target}.partial`, left);
    let seen = 0;
    const fetching = fetchPinned(
      file,
      places.map((place) => `${base}/${place}`),
      target,
      (n) => {
        seen += n;
      },
    );
    if (expected === true) {
      await fetching;
      expect(readFileSync(target).equals(contents)).toBe(true);
      expect([seen, existsSync(`${target}.partial`)]).toEqual([contents.length, false]);
    } else {
      await expect(fetching).rejects.toThrow(expected as RegExp);
      expect([seen, existsSync(target)]).toEqual([0, false]);
    }
  });

  test.each([
    ['https://deb.debian.org/debian', 'pool/updates/main/x.deb', 'https://deb.debian.org/debian-security'],
    [
      'https://snapshot.debian.org/archive/debian/20261122T000000Z',
      'pool/updates/main/x.deb',
      'https://snapshot.debian.org/archive/debian-security/20261122T000000Z',
    ],
    ['https://deb.debian.org/debian', 'pool/main/x.deb', 'https://deb.debian.org/debian'],
  ])('of %s, %s, is looked for in %s', (place, path, archive) => {
    expect(archiveOf(place, { ...file, path })).toBe(archive);
  });

  test('comes over HTTPS from a server that is trusted, and from no other', async () => {
    const secure = createTlsServer(SELF_SIGNED, (_, response) => response.end(contents));
    await new Promise<void>((resolve) => secure.listen(0, '127.0.0.1', resolve));
    const place = `https://127.0.0.1:${(secure.address() as AddressInfo).port}`;
    const target = join(folder, 'secure.deb');
    await expect(fetchPinned(file, [place], target, () => undefined)).rejects.toThrow(/self-signed certificate.*NODE_EXTRA_CA_CERTS=ca\.pem/);
    const trusted = getCACertificates();
    setDefaultCACertificates([...trusted, SELF_SIGNED.cert]);
    await fetchPinned(file, [place], target, () => undefined);
    expect(readFileSync(target).equals(contents)).toBe(true);
    setDefaultCACertificates(trusted);
    secure.close();
    secure.closeAllConnections();
  });

  test('says that there is no network, or that the disk is full, when that is so', async () => {
    const target = join(folder, 'z.deb');
    await expect(fetchPinned(file, ['http://127.0.0.1:2'], target, () => undefined)).rejects.toThrow(/ECONNREFUSED.*is there a network\?/);
    symlinkSync('/dev/full', `${target}.partial`);
    await expect(fetchPinned(file, [`${base}/good`, `${base}/good`], target, () => undefined)).rejects.toMatchObject({ code: 'ENOSPC' });
  });
});

describe('pvm image', () => {
  const run = (...args: string[]) => {
    process.env['XDG_CACHE_HOME'] = folder;
    return pvm(args);
  };
  test('lists what can be had', () => {
    expect(run('image', 'list')).toMatchObject({ status: 0, stdout: expect.stringMatching(/^debian +not fetched; a small Debian/) as string });
  });
  test.each([
    ['an unknown image', ['image', 'get', 'debain'], /no image is called "debain"; did you mean debian\?/],
    ['one that is not stored', ['image', 'rm', 'debian'], /it is not stored/],
    ['a mirror that is no URL', ['image', 'get', 'debian', '--mirror', 'deb.debian.org'], /expected a URL such as https/],
    [
      'a mirror that is not there',
      ['image', 'get', 'debian', '--mirror', 'http://127.0.0.1:2/debian'],
      /cannot be fetched: http:.*ECONNREFUSED.*is there a network/,
    ],
    ['no name', ['image', 'get'], /name an image/],
    ['an unknown action', ['image', 'push', 'x'], /list.*get.*rm/],
    ['options after its name', ['run', 'debian', '-m', '2G'], /options come before the name of an image/],
  ])('refuses %s', (_, args, message) => {
    const { status, stderr } = run(...args);
    expect(stderr).toMatch(message);
    expect([status, stderr.trimEnd().split('\n').length]).toEqual([2, 1]);
  });
});
