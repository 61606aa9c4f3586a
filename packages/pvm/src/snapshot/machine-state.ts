import { readFileSync } from 'node:fs';
import { type CpuCore, type Saveable, StateError, StateReader, StateWriter } from '@pvm/cpu-jit';
import { S_ICOUNT, S_TSC_OFFSET } from '@pvm/cpu-jit/layout';
import type { CheckedOptions } from '../options.ts';
import { badSnapshot, layoutFingerprint, mismatch, type SnapshotHeader } from './format.ts';
import { machineConfig, machineSources } from './machine-config.ts';
import { MemoryRestore, packMemory } from './memory-image.ts';
import type { SnapshotReader } from './reader.ts';
import { snapshotPieces } from './writer.ts';

/** What a snapshot is of. */
export interface SavedMachine {
  readonly core: CpuCore;
  readonly options: CheckedOptions;
  /** Everything that is not in linear memory. */
  readonly state: Saveable;
}

/** The file of a machine that stands still, piece by piece. */
export function saveMachine(machine: SavedMachine): Generator<Uint8Array, void> {
  const { core, options } = machine;
  const state = StateWriter.save({
    state: (s) => {
      s.value('hostTsc', hostTsc());
      machine.state.state(s);
    },
  });
  let instructions = 0n;
  for (let vcpu = 0; vcpu < core.vcpus; vcpu++) instructions += core.u64[(core.cpuAddress(vcpu) + S_ICOUNT) >>> 3] ?? 0n;
  const header: SnapshotHeader = {
    pvm: packageVersion(),
    layout: layoutFingerprint(),
    created: new Date().toISOString(),
    config: machineConfig(options),
    sources: machineSources(options),
    vcpus: core.vcpus,
    instructions: String(instructions),
  };
  return snapshotPieces(header, state, packMemory(core));
}

/**
 * Puts a snapshot into a machine that was made with its configuration and has not run.
 *
 * @throws PvmError `bad-snapshot`, `snapshot-mismatch`
 */
export async function restoreMachine(machine: SavedMachine, snapshot: SnapshotReader): Promise<void> {
  const { core, options } = machine;
  snapshot.checkBuild();
  if (snapshot.header.vcpus !== core.vcpus) throw mismatch(`the snapshot is of a machine with ${snapshot.header.vcpus} vCPUs, this one has ${core.vcpus}`);
  const memory = new MemoryRestore(core);
  const state = await snapshot.readSections((packed) => memory.put(packed));
  try {
    StateReader.restore(
      {
        state: (s) => {
          const before = s.value('hostTsc', 0);
          if (options.clock === 'host') shiftTsc(core, before - hostTsc());
          machine.state.state(s);
        },
      },
      state,
    );
  } catch (cause) {
    if (cause instanceof StateError) throw badSnapshot(`the snapshot does not fit this machine: ${cause.message}`, cause);
    // What a part of the machine is given is a value, but not one of its own.
    if (cause instanceof TypeError || cause instanceof RangeError) throw badSnapshot('the snapshot has values in it that no machine has', cause);
    throw cause;
  }
  core.restored();
}

/** The host's clock as the TSC counts it, ns. */
function hostTsc(): number {
  return Math.floor(performance.now() * 1e6);
}

/** The guest's TSC goes on from where it was, whatever the clock of this process says. */
function shiftTsc(core: CpuCore, ns: number): void {
  for (let vcpu = 0; vcpu < core.vcpus; vcpu++) {
    const at = (core.cpuAddress(vcpu) + S_TSC_OFFSET) >>> 3;
    core.u64[at] = BigInt.asUintN(64, (core.u64[at] ?? 0n) + BigInt(ns));
  }
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version?: string };
  return version ?? '';
}
