import { createWriteStream } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { cpioPieces } from '@pvm/pvm';
import { UsageError } from '../errors.ts';
import { AptSource } from './apt.ts';
import { downloadFolder, storeImage } from './cache.ts';
import { type Deb, readDeb } from './deb.ts';
import { fetchPinned, type PinnedFile } from './https.ts';
import { loadOrder } from './modules.ts';
import type { Progress } from './progress.ts';
import { RootFs } from './rootfs.ts';

export const KERNEL = 'linux-image-cloud-amd64';
export const PACKAGES = [
  ...['base-files', 'base-passwd', 'bash', 'coreutils', 'dash', 'dpkg', 'findutils', 'grep', 'gzip', 'hostname', 'iproute2', 'kmod'],
  ...['less', 'libc-bin', 'mawk', 'mount', 'ncurses-base', 'procps', 'sed', 'tar', 'util-linux'],
];
/** Modules of the kernel that the image has, with what they need; a kernel that has one built in has no such file. */
const MODULES = [
  ...['virtio_pci', 'virtio_mmio', 'virtio_blk', 'virtio_console', 'virtio_rng', 'virtio_balloon', 'vmw_vsock_virtio_transport'],
  ...['9pnet_virtio', '9p', 'ext4', 'overlay', 'squashfs', 'loop'],
];
/** Documentation nobody reads here: it would fill the guest's memory. */
const UNWANTED = /^usr\/share\/(doc|man|locale|info|lintian|bug|doc-base)\//;
/** Where the pinned files are: as long as they are current, and for ever. */
const ARCHIVES = ['https://deb.debian.org/debian', 'https://snapshot.debian.org/archive/debian/20261122T000000Z'];

const INIT = `#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=\${TERM:-linux}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /run
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
while read -r module; do insmod "$module"; done < /etc/modules.pvm
hostname debian
ip link set lo up
console=/dev/$(sed 's/.* //' /sys/class/tty/console/active)
cat /etc/motd.pvm > "$console"
if [ -n "$LINES" ] && [ -n "$COLUMNS" ]; then stty rows "$LINES" columns "$COLUMNS" < "$console"; fi
unset LINES COLUMNS
cd /root
setsid -c bash -l < "$console" > "$console" 2>&1
sync
echo o > /proc/sysrq-trigger
sleep 60
`;

const PROFILE = `export PS1='root@\\h:\\w# ' PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
alias poweroff='sync; echo o > /proc/sysrq-trigger' reboot='sync; echo b > /proc/sysrq-trigger'
`;

/** Everything but the kernel, from packages. */
function userland(packages: readonly Deb[]): RootFs {
  const root = new RootFs();
  for (const { entries } of packages) root.unpack(entries, (name) => !UNWANTED.test(`${name}/`));
  // What the packages' own scripts would do at installation.
  for (const file of ['passwd', 'group']) {
    const master = root.read(`usr/share/base-passwd/${file}.master`);
    if (master !== undefined) root.file(`etc/${file}`, master);
  }
  root.file('etc/shadow', 'root::19000:0:99999:7:::\n', 0o640);
  root.file('etc/hostname', 'debian\n');
  root.file('etc/hosts', '127.0.0.1 localhost debian\n::1 localhost\n');
  root.file('root/.bash_profile', PROFILE);
  if (!root.has('usr/bin/awk')) root.symlink('usr/bin/awk', 'mawk');
  if (!root.has('usr/bin/sh')) root.symlink('usr/bin/sh', 'dash');
  for (const name of ['dev', 'proc', 'sys', 'run', 'mnt', 'var/lib/dpkg/info', 'var/lib/dpkg/updates']) root.directory(name);
  root.directory('tmp', 0o1777);
  root.file(
    'var/lib/dpkg/status',
    packages
      .map(({ control }) => control.trim().replace('\n', '\nStatus: install ok installed\n'))
      .join('\n\n')
      .concat('\n'),
  );
  root.file('init', INIT, 0o755);
  root.file('etc/motd.pvm', "Debian in memory: nothing is kept. 'exit' or 'poweroff' ends it.\n");
  return root;
}

/** Adds the kernel's modules and returns its image. */
function addKernel(root: RootFs, kernel: Deb): Uint8Array {
  const image = kernel.entries.find((entry) => /^boot\/vmlinuz-/.test(entry.name));
  if (image === undefined) throw new UsageError(`the package ${KERNEL} stands for has no kernel`);
  const modules = new Map(kernel.entries.filter((entry) => entry.name.endsWith('.ko')).map((entry) => [entry.name, entry.data]));
  const order = loadOrder(modules, MODULES);
  for (const path of order) root.file(`usr/${path}`, modules.get(path) ?? '');
  root.file('etc/modules.pvm', order.map((path) => `/usr/${path}\n`).join(''));
  return image.data;
}

async function fromApt(folder: string, progress: Progress): Promise<{ archives: string[]; kernel: string }> {
  const apt = new AptSource(folder);
  const kernel = await apt.dependency(KERNEL, /Depends: (linux-image-\S+)/, (part) => progress.show('fetching the kernel', part));
  const archives = await apt.install(PACKAGES, (part) => progress.show('fetching packages', part));
  return { archives, kernel };
}

/** Security updates are an archive of their own, beside the other. */
export function archiveOf(place: string, { path }: PinnedFile): string {
  return path.startsWith('pool/updates/') ? place.replace(/\/debian(?=\/|$)/, '/debian-security') : place;
}

async function fromHttps(folder: string, progress: Progress, places: readonly string[]): Promise<{ archives: string[]; kernel: string }> {
  const list = JSON.parse(await readFile(new URL('../../images/debian-12.json', import.meta.url), 'utf8')) as readonly PinnedFile[];
  const total = list.reduce((sum, file) => sum + file.bytes, 0);
  let fetched = 0;
  const archives: string[] = [];
  for (const file of list) {
    const target = join(folder, basename(decodeURIComponent(file.path)));
    await fetchPinned(
      file,
      places.map((place) => archiveOf(place, file)),
      target,
      (bytes) => {
        fetched += bytes;
        progress.show('fetching packages', fetched / total);
      },
    );
    archives.push(target);
  }
  const kernel = archives.find((path) => basename(path).startsWith('linux-image-'));
  if (kernel === undefined) throw new UsageError('the list of packages has no kernel');
  return { archives: archives.filter((path) => path !== kernel), kernel };
}

/**
 * Fetches and builds the image `debian`: a kernel and a RAM disk made of packages. No root, no mounts.
 *
 * @param mirror URL of a copy of Debian's archive, which is asked instead of apt
 * @throws UsageError
 */
export async function buildDebian(progress: Progress, mirror?: string): Promise<void> {
  const folder = downloadFolder('debian');
  const viaApt = mirror === undefined && (await AptSource.isHere());
  const { archives, kernel } = viaApt ? await fromApt(folder, progress) : await fromHttps(folder, progress, mirror === undefined ? ARCHIVES : [mirror]);
  const packages: Deb[] = [];
  for (const [i, path] of archives.sort().entries()) {
    progress.show('unpacking', i / archives.length);
    packages.push(await readDeb(path));
  }
  const root = userland(packages);
  progress.show('unpacking the kernel');
  const image = addKernel(root, await readDeb(kernel));
  progress.show('writing the image');
  await storeImage('debian', async (target) => {
    await writeFile(join(target, 'vmlinuz'), image);
    await pipeline(Readable.from(cpioPieces(root.entries()), { objectMode: true }), createWriteStream(join(target, 'initrd.img')));
    return {
      title: `Debian, ${basename(kernel).split('_').slice(0, 2).join(' ')}, ${packages.length} packages`,
      kernel: 'vmlinuz',
      initrd: 'initrd.img',
      append: 'console=ttyS0 mitigations=off quiet',
      memory: '1G',
    };
  });
}
