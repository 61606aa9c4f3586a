import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { buildCpio, type CpioFile } from '../../../packages/machine/src/index.ts';
import { debianKernel, debianPackage } from '../../../tests/debian.ts';
import { buildLinuxProgram } from '../build.ts';

/** What both machines boot: the same files for each peer. */
export interface SystemGuest {
  readonly kernel: string;
  readonly initrd: string;
  /** A raw image, all of which the disk rows read. */
  readonly disk: string;
}

/** Debian's cloud kernel has virtio as modules. */
const MODULES = ['virtio', 'virtio_ring', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk'];

export const DISK_MIB = 256;

function findModules(root: string): ReadonlyMap<string, string> {
  const wanted = new Set(MODULES.map((name) => `${name}.ko`));
  const found = new Map<string, string>();
  for (const entry of readdirSync(root, { withFileTypes: true, recursive: true })) {
    if (entry.isFile() && wanted.has(entry.name)) found.set(entry.name, join(entry.parentPath, entry.name));
  }
  return found;
}

/**
 * The kernel (of apt, or `kernel`, which lies in `boot` of an unpacked package), a RAM disk with linux/system.c as /init, and a disk. Files are written to `directory`.
 *
 * @throws Error when a package cannot be had or modules of the kernel are not beside it
 */
export async function prepareGuest(directory: string, kernel: string | undefined): Promise<SystemGuest> {
  const image = kernel ?? (await debianKernel('linux-image-cloud-amd64'));
  if (image === undefined) throw new Error('apt gave no Debian kernel; name one with --kernel');
  const modules = findModules(join(dirname(image), '..', 'lib'));
  if (modules.size !== MODULES.length)
    throw new Error(`${image}: lib/modules beside its boot folder has no ${MODULES.filter((m) => !modules.has(`${m}.ko`)).join(', ')}`);
  const busybox = await debianPackage('busybox-static');
  if (busybox === undefined) throw new Error("apt cannot fetch Debian's busybox-static");
  const executable = (name: string, path: string): CpioFile => ({ name, data: readFileSync(path), mode: 0o755 });
  const initrd = join(directory, 'initrd');
  writeFileSync(
    initrd,
    buildCpio([
      executable('init', buildLinuxProgram('system')),
      executable('busybox', join(busybox, 'bin/busybox')),
      ...[...modules].map(([name, path]) => ({ name, data: readFileSync(path) })),
    ]),
  );
  return { kernel: image, initrd, disk: writeDisk(join(directory, 'disk.img')) };
}

/** No two of its sectors are alike, and none is zero. */
function writeDisk(path: string): string {
  if (existsSync(path)) rmSync(path);
  const mib = new Uint32Array(1 << 18);
  let seed = 1;
  for (let i = 0; i < DISK_MIB; i++) {
    for (let at = 0; at < mib.length; at += 1) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      mib[at] = seed | 1;
    }
    writeFileSync(path, new Uint8Array(mib.buffer), { flag: 'a' });
  }
  return path;
}
