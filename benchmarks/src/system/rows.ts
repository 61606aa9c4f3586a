/** A row of the comparison inside the guest. */
export interface SystemRow {
  readonly name: string;
  readonly what: string;
  /** How often in a batch, of which there are 40; absent: once. */
  readonly batch?: number;
  readonly unit: 'ns' | 'us' | 'ms';
  /** The whole row counts, with the time until its code was compiled; otherwise the median of the later batches. */
  readonly whole?: boolean;
  /** Time against QEMU's to reach. */
  readonly goal?: number;
}

const GOAL = 0.8;

export const ROWS: readonly SystemRow[] = [
  { name: 'getpid', what: 'system call that does nothing', batch: 50000, unit: 'ns', goal: GOAL },
  { name: 'fork', what: 'fork, exit, wait', batch: 60, unit: 'us', goal: GOAL },
  { name: 'exec', what: 'fork, exec of a static program, wait', batch: 30, unit: 'us' },
  { name: 'pipe', what: 'ping-pong of two processes through pipes', batch: 2000, unit: 'us', goal: GOAL },
  { name: 'map', what: 'a page of 1 MiB: map, touch, unmap', batch: 25, unit: 'ns', goal: GOAL },
  { name: 'gzip', what: "BusyBox' gzip, a MiB of 64", unit: 'ms', whole: true, goal: GOAL },
  { name: 'sha256sum', what: "BusyBox' sha256sum, a MiB of 64", unit: 'ms', whole: true, goal: GOAL },
  { name: 'disk', what: 'virtio disk read in order, a MiB of 256', unit: 'us', whole: true },
  { name: 'disk-direct', what: 'the same with O_DIRECT', unit: 'us', whole: true },
];

/** Sequential read of a virtio disk to reach, MB (10^6 bytes) a second. */
export const DISK_GOAL_MB_S = 300;

/** From `pvm run --restore` of a machine with a shell to its prompt, ms, to reach. */
export const RESTORE_GOAL_MS = 1000;

/** What a machine may have resident beyond what the guest has touched of its RAM, MiB. */
export const MEMORY_GOAL_MIB = 300;

export const UNIT_NS: Readonly<Record<SystemRow['unit'], number>> = { ns: 1, us: 1e3, ms: 1e6 };

/** The word that asks /init for a row; `scale` is for shorter batches. */
export function wordOf(row: SystemRow, scale: number): string {
  return row.batch === undefined ? row.name : `${row.name}:${Math.max(1, Math.round(row.batch * scale))}`;
}
