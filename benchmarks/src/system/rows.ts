/** A row of the comparison inside the guest. */
export interface SystemRow {
  readonly name: string;
  readonly what: string;
  /** Word for /init: the name, and how often in a batch (of 40). */
  readonly word: string;
  readonly unit: 'ns' | 'us' | 'ms';
  /** The whole row counts, with the time until its code was compiled; otherwise the median of the later batches. */
  readonly whole?: boolean;
  /** Time against QEMU's to reach. */
  readonly goal?: number;
}

const GOAL = 0.8;

export const ROWS: readonly SystemRow[] = [
  { name: 'getpid', what: 'system call that does nothing', word: 'getpid:50000', unit: 'ns', goal: GOAL },
  { name: 'fork', what: 'fork, exit, wait', word: 'fork:60', unit: 'us', goal: GOAL },
  { name: 'exec', what: 'fork, exec of a static program, wait', word: 'exec:30', unit: 'us' },
  { name: 'pipe', what: 'ping-pong of two processes through pipes', word: 'pipe:2000', unit: 'us', goal: GOAL },
  { name: 'map', what: 'a page of 1 MiB: map, touch, unmap', word: 'map:25', unit: 'ns', goal: GOAL },
  { name: 'gzip', what: "BusyBox' gzip, a MiB of 64", word: 'gzip', unit: 'ms', whole: true, goal: GOAL },
  { name: 'sha256sum', what: "BusyBox' sha256sum, a MiB of 64", word: 'sha256sum', unit: 'ms', whole: true, goal: GOAL },
  { name: 'disk', what: 'virtio disk read in order, a MiB of 256', word: 'disk', unit: 'us', whole: true },
  { name: 'disk-direct', what: 'the same with O_DIRECT', word: 'disk-direct', unit: 'us', whole: true },
];

/** Sequential read of a virtio disk to reach, MB (10^6 bytes) a second. */
export const DISK_GOAL_MB_S = 300;

/** What a machine may have resident beyond what the guest has touched of its RAM, MiB. */
export const MEMORY_GOAL_MIB = 300;

export const UNIT_NS: Readonly<Record<SystemRow['unit'], number>> = { ns: 1, us: 1e3, ms: 1e6 };
