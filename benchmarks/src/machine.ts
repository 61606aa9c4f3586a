import { cpus, release, totalmem } from 'node:os';
import { compilerVersion } from './build.ts';

/** What a result has to be read with. Nothing in it names the machine. */
export interface MachineDescription {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  readonly v8: string;
  readonly compiler: string;
  /** ISO date of the measurement. */
  readonly date: string;
}

/** The machine this runs on. */
export function describeMachine(): MachineDescription {
  const list = cpus();
  return {
    cpu: list[0]?.model.trim() ?? 'unknown',
    cores: list.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release().split('-', 1)[0] ?? '',
    node: process.versions.node,
    v8: process.versions.v8,
    compiler: compilerVersion() ?? 'none',
    date: new Date().toISOString().slice(0, 10),
  };
}
