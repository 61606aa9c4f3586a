import type { Options } from 'yargs';

/** Options of `run` as its help shows them: under headings, in this order. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  'Machine:': ['memory', 'smp', 'cpu', 'clock', 'config', 'print-config'],
  'Boot a kernel:': ['kernel', 'initrd', 'append', 'reboot'],
  'Run a program:': ['env', 'file', 'debug-console'],
  'Drives and devices of a stock kernel:': [
    ...['drive', 'share', 'serial', 'virtio-console', 'display', 'nographic', 'channel', 'vsock', 'vsock-listen', 'balloon', 'virtio', 'device'],
  ],
  'Design:': ['design', 'abi', 'stock', 'opt', 'direct-switch', 'prefault', 'kvm-pv', 'shadow-memory'],
  'Snapshots:': ['save', 'save-at', 'save-on', 'save-exit', 'restore'],
  'Compiler (JIT):': ['jit', 'jit-stats', 'code-memory', 'code-cache', 'perf-map'],
  'Limits and debugging:': ['timeout', 'max-instructions', 'gdb', 'wait', 'check-mmu'],
  'Output about the run:': ['stat', 'json', 'sort', 'by', 'percentiles', 'stat-out', 'trace', 'trace-limit', 'symbols', 'profile', 'ledger', 'count-tlb'],
};

/** The same options in the order of their groups. @throws RangeError when one is in no group, or a group names none */
export function grouped(options: Readonly<Record<string, Options>>): Record<string, Options> {
  const known = new Map(Object.entries(options));
  const result: Record<string, Options> = {};
  for (const [group, names] of Object.entries(GROUPS)) {
    for (const name of names) {
      const option = known.get(name);
      if (option === undefined) throw new RangeError(`the group "${group}" names --${name}, which is no option`);
      known.delete(name);
      result[name] = { ...option, group, ...(option.array === true ? { defaultDescription: 'none' } : {}) };
    }
  }
  if (known.size > 0) throw new RangeError(`in no group of the help: ${[...known.keys()].join(', ')}`);
  return result;
}
