import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadOrder } from '../packages/cli/src/image/modules.ts';
import { RootFs } from '../packages/cli/src/image/rootfs.ts';
import { cpioPieces } from '../packages/machine/src/index.ts';
import { debianKernel, debianPackage } from './debian.ts';
import { DEVICE_ITEMS, deviceOptions, hostSide } from './debian-proof/devices.ts';
import { GuestSession } from './debian-proof/session.ts';

// A small part of what scripts/prove-debian.ts proves: Debian's kernel with the programs of a few packages in a RAM disk, at devices that have a host's side.

const PACKAGES = [
  'bash',
  'busybox-static',
  'dmidecode',
  'libc6',
  'libexpat1',
  'libpython3.11-minimal',
  'libreadline8',
  'libsqlite3-0',
  'libssl3',
  'libtinfo6',
].concat(['perl-base', 'libcrypt1', 'python3.11-minimal', 'sqlite3', 'zlib1g']);
const MODULES = ['virtio_pci', 'virtio_blk', 'virtio_console', 'virtio_rng', 'virtio_balloon', 'vmw_vsock_virtio_transport'];
const UNWANTED = /\/(share|gconv|audit|init\.d|perl5|tests?)\//;
const INIT = `#!/bin/sh
export PATH=/usr/bin HOME=/
/usr/bin/busybox mkdir -p /proc /sys /dev /tmp
/usr/bin/busybox --install -s /usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
exec setsid -c bash --norc < /dev/ttyS0 > /dev/ttyS0 2>&1
`;

const PROGRAMS = [
  {
    name: 'Python',
    command: `python3 -c 'import hashlib, math, os
print(math.pi, 3**80, hashlib.sha256(b"abc").hexdigest()[:16], sum(1/i for i in range(1, 20000)), os.uname().machine)'`,
    says: '3.141592653589793 147808829414345923316083210206383297601 ba7816bf8f01cfea 10.48067821722932 x86_64\n',
  },
  {
    name: 'Perl',
    command: `perl -e 'my %h = map { $_ => $_ ** 2 } 1 .. 1000; my $s = 0; $s += $_ for values %h; print "$s\\n" if ("a" x 500 . "b") =~ /^(a|aa)+b$/'`,
    says: '333833500\n',
  },
  {
    name: 'SQLite',
    command: `sqlite3 /tmp/t.db <<'E'
create table t(a integer primary key, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) insert into t select i, hex(i * 7919) from n;
create index tb on t(b);
select count(*), sum(a) from t where b > '39';
pragma integrity_check;
E`,
    says: /^\d+\|\d+\nok\n$/,
  },
  {
    name: 'dmidecode, and the kernel that found the same tables',
    command: "/usr/sbin/dmidecode -s system-product-name && /usr/sbin/dmidecode -t processor | grep -c 'Populated, Enabled' && dmesg | grep -o 'DMI: .*'",
    says: /^pvm PC\n1\nDMI: pvm pvm PC, BIOS 1 01\/01\/2026\n/,
  },
  {
    name: 'the kernel, which has nothing to complain of',
    command: `dmesg | grep -E 'BUG:|WARNING:|Oops|lockup|stall|unstable|segfault|trap |Call Trace'; :`,
    says: /^$/,
  },
];

async function ramDisk(): Promise<{ kernel: string; initrd: Uint8Array } | undefined> {
  const kernel = await debianKernel('linux-image-cloud-amd64');
  const root = new RootFs();
  for (const name of PACKAGES) {
    const folder = await debianPackage(name);
    if (folder === undefined) return undefined;
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      const target = relative(folder, path).replace(/^(bin|lib|lib64|sbin)\//, 'usr/$1/');
      if (UNWANTED.test(`/${target}`)) continue;
      if (entry.isSymbolicLink()) root.symlink(target, readlinkSync(path));
      else if (entry.isFile()) root.file(target, readFileSync(path), 0o755);
    }
  }
  if (kernel === undefined) return undefined;
  const modules = new Map<string, Uint8Array>();
  const folder = join(kernel, '../../lib/modules');
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.name.endsWith('.ko')) modules.set(entry.name, readFileSync(join(entry.parentPath, entry.name)));
  }
  for (const [i, name] of loadOrder(modules, MODULES).entries()) root.file(`modules/${String(i).padStart(2, '0')}-${name}`, modules.get(name) ?? '');
  root.symlink('usr/bin/sh', 'bash');
  root.symlink('usr/bin/python3', 'python3.11');
  root.file('init', INIT, 0o755);
  return { kernel, initrd: new Uint8Array(Buffer.concat([...cpioPieces(root.entries())])) };
}

const guestFiles = await ramDisk();
const COMMAND_MS = 300_000;

describe.skipIf(guestFiles === undefined)('Debian with its devices (skipped where its packages are not here and apt cannot fetch them)', () => {
  const work = mkdtempSync(join(tmpdir(), 'pvm-debian-'));
  const host = hostSide(work, '/dev/vda');
  let guest: GuestSession;

  beforeAll(async () => {
    guest = await GuestSession.boot({
      ...guestFiles,
      ...deviceOptions(host),
      commandLine: 'console=ttyS0 mitigations=off',
      memory: '512M',
      clock: 'icount',
      cpu: 'v3',
    });
    await guest.expect(/# $/, COMMAND_MS);
    await guest.prepareShell(COMMAND_MS);
  }, COMMAND_MS);

  afterAll(async () => {
    await guest[Symbol.asyncDispose]();
    rmSync(work, { recursive: true, force: true });
  });

  test.each(DEVICE_ITEMS.filter(({ needs }) => needs === undefined))('$name', { timeout: COMMAND_MS }, async ({ prove }) => {
    await prove(guest, host);
  });

  test.each(PROGRAMS)('$name', { timeout: COMMAND_MS }, async ({ command, says }) => {
    const { status, output } = await guest.run(command, COMMAND_MS);
    expect(output).toMatch(says);
    expect(status).toBe(0);
  });
});
