// A disk with a real Debian 12: installed from packages by mmdebstrap, with all their installation scripts, by any user whom the host lets have user namespaces.
import { execFile } from 'node:child_process';
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { debianPackage } from '../debian.ts';

export const ROOT_PASSWORD = 'pvm';
const MIB = 2 ** 20;
const DISK_MIB = 3072;

const KERNELS = { cloud: 'linux-image-cloud-amd64', generic: 'linux-image-amd64' } as const;
export type KernelName = keyof typeof KERNELS;
export const KERNEL_NAMES = Object.keys(KERNELS) as KernelName[];

const PACKAGES = [
  ...['systemd-sysv', 'udev', 'dbus', 'initramfs-tools', 'kmod', 'e2fsprogs', 'iproute2', 'procps', 'util-linux', 'file', 'make', 'strace', 'bc'],
  ...['python3', 'perl', 'gcc', 'libc6-dev', 'gcc-multilib', 'libc6-dev-i386', 'git', 'ca-certificates', 'sqlite3', 'openssl'],
  ...['stress-ng', 'fio', 'memtester', 'gzip', 'xz-utils', 'bzip2', 'zstd', 'less', 'vim-tiny', 'rng-tools5', 'iputils-ping', 'dmidecode'],
  ...Object.values(KERNELS),
];
/** Nobody reads documentation on this disk. */
const LEFT_OUT = ['doc', 'man', 'locale', 'info'].map((folder) => `--dpkgopt=path-exclude=/usr/share/${folder}/*`);

/** Run by mmdebstrap with the new root as $1. A getty on the serial port comes from `console=` by itself. */
const CUSTOMISE = `set -e
echo 'root:${ROOT_PASSWORD}' | chroot "$1" chpasswd
echo debian > "$1/etc/hostname"
printf '127.0.0.1 localhost debian\\n' > "$1/etc/hosts"
printf '/dev/vda / ext4 errors=remount-ro 0 1\\n' > "$1/etc/fstab"
for k in "$1"/boot/vmlinuz-*; do
  v=\${k#*/vmlinuz-}
  case $v in *cloud*) name=cloud;; *) name=generic;; esac
  cp "$k" "$2/vmlinuz-$name"
  cp "$1/boot/initrd.img-$v" "$2/initrd-$name"
done
chmod 644 "$2"/vmlinuz-* "$2"/initrd-*
# /proc and others are mounted there while the hook runs.
copy=$(mktemp -d)
cp -ax "$1/." "$copy"
mke2fs -q -F -t ext4 -L debian -d "$copy" "$2/disk.img"
rm -rf "$copy"
`;

/** Files of a disk that is ready to boot. */
export interface DebianDisk {
  /** Raw, ext4 without partitions. Tests use it with \`snapshot\`. */
  readonly disk: string;
  readonly kernel: (name: KernelName) => { readonly kernel: string; readonly initrd: string };
}

function ready(folder: string): DebianDisk {
  return {
    disk: join(folder, 'disk.img'),
    kernel: (name) => ({ kernel: join(folder, `vmlinuz-${name}`), initrd: join(folder, `initrd-${name}`) }),
  };
}

/**
 * The disk in `folder`, which is built when it is not there or has other packages: minutes, and 400 MB of downloads.
 *
 * @returns undefined when packages cannot be had here
 * @throws Error with what mmdebstrap said
 */
export async function debianDisk(folder: string, onProgress: (line: string) => void = () => undefined): Promise<DebianDisk | undefined> {
  const contents = `${PACKAGES.join('\n')}\n`;
  const list = join(folder, 'packages');
  if (existsSync(list) && readFileSync(list, 'utf8') === contents) return ready(folder);
  const mmdebstrap = await debianPackage('mmdebstrap');
  if (mmdebstrap === undefined) return undefined;
  const work = `${folder}.new`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  // Root of a user namespace is another user here.
  await chmod(work, 0o777);
  const image = openSync(join(work, 'disk.img'), 'w', 0o666);
  ftruncateSync(image, DISK_MIB * MIB);
  closeSync(image);
  await chmod(join(work, 'disk.img'), 0o666);
  writeFileSync(join(work, 'customise.sh'), CUSTOMISE);
  const options = ['--variant=minbase', '--format=null', `--include=${PACKAGES.join(',')}`, ...LEFT_OUT];
  const running = promisify(execFile)(
    'perl',
    [
      join(mmdebstrap, 'usr/bin/mmdebstrap'),
      ...options,
      `--customize-hook=sh ${join(work, 'customise.sh')} "$1" ${work}`,
      'bookworm',
      '/dev/null',
      'http://deb.debian.org/debian',
    ],
    { maxBuffer: 64 * MIB },
  );
  running.child.stderr?.on('data', (text: Buffer | string) => onProgress(String(text).trim()));
  await running;
  if (!readdirSync(work).includes('vmlinuz-cloud')) throw new Error('mmdebstrap made a root without a kernel');
  writeFileSync(join(work, 'packages'), contents);
  rmSync(folder, { recursive: true, force: true });
  renameSync(work, folder);
  return ready(folder);
}
