import { accessSync, constants, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Options } from 'yargs';
import { UsageError } from '../errors.ts';

/** Options of `run` about snapshots. */
export interface SnapshotArgs {
  readonly save: string | undefined;
  readonly saveAt: number | undefined;
  readonly saveOn: string | undefined;
  readonly saveExit: boolean;
  readonly restore: string | undefined;
}

export const SNAPSHOT_OPTIONS: Readonly<Record<string, Options>> = {
  save: {
    type: 'string',
    requiresArg: true,
    describe: 'File for a snapshot, taken as --save-at or --save-on say; with a stock kernel also by Ctrl-A S',
  },
  'save-at': { type: 'number', requiresArg: true, describe: 'Take it after so many guest instructions' },
  'save-on': { type: 'string', requiresArg: true, describe: "Take it when this text comes in the guest's output" },
  'save-exit': { type: 'boolean', default: false, describe: 'End after the snapshot, with exit code 0' },
  restore: {
    type: 'string',
    requiresArg: true,
    describe: 'Go on from a snapshot; names no program or kernel, and no option that shapes the machine is needed',
  },
};

/** @throws UsageError when they contradict each other */
export function checkSnapshotArgs(a: SnapshotArgs): void {
  const when = [a.saveAt === undefined ? [] : '--save-at', a.saveOn === undefined ? [] : '--save-on'].flat();
  if (when.length === 2) throw new UsageError('--save-at and --save-on: give one of them');
  if (a.save === undefined && (when.length > 0 || a.saveExit)) throw new UsageError(`${when[0] ?? '--save-exit'} needs --save FILE`);
  if (a.saveOn === '') throw new UsageError('--save-on: expected a text');
  if (a.saveAt !== undefined && !(Number.isSafeInteger(a.saveAt) && a.saveAt >= 0)) throw new UsageError('--save-at: expected a number of instructions');
  if (a.save !== undefined) checkTarget(a.save);
}

/** A name that cannot be written is to be known before the machine runs. @throws UsageError */
function checkTarget(file: string): void {
  const fail = (what: string): never => {
    throw new UsageError(`--save ${file}: cannot be written: ${what}`);
  };
  const folder = dirname(file);
  if (statSync(file, { throwIfNoEntry: false })?.isDirectory() === true) fail('is a directory');
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) fail(`no folder ${folder}`);
  try {
    accessSync(folder, constants.W_OK);
  } catch (e) {
    fail(e instanceof Error && 'code' in e && e.code === 'EROFS' ? 'read-only file system' : 'permission denied');
  }
}
