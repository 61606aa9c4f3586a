import { createVm, type Result, type Vm, type VmOptions } from '../../packages/pvm/src/index.ts';
import { threadCpuNs } from '../../packages/pvm/src/summary.ts';

/** What a machine of `inTurns` did. */
export interface Turns {
  /** Processor time of each round, ns, without the first, which the guest's start is part of. */
  readonly rounds: readonly number[];
  readonly result: Result;
}

/** Whether a program of `programs/` that was told `live` says that it has done a round. */
export function endsRound(chunk: Uint8Array): boolean {
  return Buffer.from(chunk).includes('round ');
}

/** Who has the turn among machines that hold themselves. */
class Turn {
  private readonly held: (undefined | (() => void))[] = [];
  private begun = 0;

  /** Settles when it is the turn of `index`. */
  hold(index: number): Promise<void> {
    return new Promise((resolve) => {
      this.held[index] = resolve;
    });
  }

  /** Processor time since the turn began, ns. */
  spent(): number {
    return threadCpuNs() - this.begun;
  }

  /** The next that holds itself goes on: after `index`, at last itself. */
  pass(index: number): void {
    const { held } = this;
    const others = held.map((_, i) => (index + 1 + i) % held.length);
    const next = others.find((i) => held[i] !== undefined);
    if (next === undefined) return;
    const release = held[next];
    held[next] = undefined;
    this.begun = threadCpuNs();
    release?.();
  }
}

/**
 * Runs programs of `programs/` (their arguments: rounds, `live`) in machines that take turns on this thread, a round each: what else the processor does
 * disturbs neighbouring rounds alike. Hot code is compiled at once and on this thread.
 */
export async function inTurns(machines: readonly VmOptions[]): Promise<Turns[]> {
  const turn = new Turn();
  const rounds = machines.map((): number[] => []);
  const create = (options: VmOptions, index: number): Promise<Vm> =>
    createVm({
      ...{ clock: 'icount', jit: 'sync', ...options },
      onConsole: (chunk) => {
        if (!endsRound(chunk)) return;
        rounds[index]?.push(turn.spent());
        const held = turn.hold(index);
        turn.pass(index);
        return held;
      },
    });
  const run = async (vm: Vm, index: number): Promise<Turns> => {
    try {
      await turn.hold(index);
      const result = await vm.run();
      if (result.exitCode !== 0) throw new Error(`the guest's program ended with exit code ${result.exitCode}`);
      return { rounds: rounds[index]?.slice(1) ?? [], result };
    } finally {
      await vm.dispose();
      turn.pass(index);
    }
  };
  const vms = await Promise.all(machines.map(create));
  const all = Promise.all(vms.map(run));
  turn.pass(vms.length - 1);
  return all;
}
