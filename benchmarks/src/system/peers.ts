import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { SystemGuest } from './guest.ts';

/** A machine to boot: the guest, its RAM, words after "--" on the kernel's command line, which are the arguments of /init. */
export interface Boot {
  readonly guest: SystemGuest;
  readonly memoryMiB: number;
  readonly words: readonly string[];
}

/** Something that boots a stock kernel with a serial console on standard output. */
export interface SystemPeer {
  readonly name: string;
  available(): boolean;
  command(boot: Boot): readonly string[];
}

export const KERNEL_OPTIONS = 'console=ttyS0 mitigations=off panic=-1';

const append = (words: readonly string[]): string => [KERNEL_OPTIONS, ...(words.length > 0 ? ['--', ...words] : [])].join(' ');

/** The machine of the checkout at `root`, which is built; `options` go to `pvm run`. */
export function pvmPeer(name: string, root: string, options: readonly string[]): SystemPeer {
  return {
    name,
    available: () => true,
    command: ({ guest, memoryMiB, words }) => [
      join(root, 'node_modules/.bin/pvm'),
      'run',
      ...options,
      ...['--kernel', guest.kernel, '--initrd', guest.initrd, '--append', append(words), '-m', `${memoryMiB}M`, '--no-reboot'],
      ...['--drive', `file=${guest.disk},format=raw,readonly=on`],
    ],
  };
}

/** One vCPU; `cpu` is the model, QEMU's own choice without it. */
export function qemuPeer(name: string, cpu: string | undefined): SystemPeer {
  return {
    name,
    available: () => spawnSync('qemu-system-x86_64', ['--version'], { stdio: 'ignore' }).status === 0,
    command: ({ guest, memoryMiB, words }) => [
      'qemu-system-x86_64',
      ...[
        '-accel',
        'tcg',
        ...(cpu === undefined ? [] : ['-cpu', cpu]),
        '-m',
        `${memoryMiB}M`,
        '-display',
        'none',
        '-monitor',
        'none',
        '-serial',
        'stdio',
        '-no-reboot',
        '-nic',
        'none',
      ],
      ...['-kernel', guest.kernel, '-initrd', guest.initrd, '-append', append(words)],
      ...['-drive', `file=${guest.disk},format=raw,readonly=on,if=virtio`],
    ],
  };
}
