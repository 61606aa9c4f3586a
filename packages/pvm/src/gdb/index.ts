import { formatLedger } from '../report.ts';
import type { Vm } from '../vm.ts';
import { GdbServer } from './server.ts';

export type { GdbServer } from './server.ts';

/**
 * Lets GDB connect to a machine (`target remote host:port`): vCPUs are threads, breakpoints are at linear addresses, watchpoints up to four; `monitor help` lists
 * more. GDB stops the machine when it connects, and lets it go when it detaches. Whoever can connect has all power over the guest: `host` should be local.
 *
 * @param options.port 0: any free one, see `GdbServer.port`
 * @throws PvmError `bad-option`: the address cannot be listened at
 */
export function serveGdb(vm: Vm, { host = '127.0.0.1', port }: { readonly host?: string; readonly port: number }): Promise<GdbServer> {
  return GdbServer.listen({
    debugger: vm.debugger,
    cpu: vm.cpuLevel,
    host,
    port,
    kill: () => vm.abort(),
    monitor: {
      help: { help: 'this list', run: () => '' },
      exits: { help: 'the exits so far, as `pvm run --stat` prints them', run: () => formatLedger(vm.ledger) },
      counts: { help: 'retired instructions of all vCPUs together', run: () => `${vm.stats().instructions} instructions` },
    },
  });
}
