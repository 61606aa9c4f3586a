import { createHash } from 'node:crypto';
import * as layout from '@pvm/cpu-jit/layout';
import { PvmError } from '../errors.ts';
import type { MachineConfig, MachineSources } from './machine-config.ts';

/**
 * A snapshot file: magic, format version and length of the header (u32 each, little-endian), the header as JSON, sections, SHA-256 of all before it. A section: kind, bytes
 * unpacked, bytes stored (u32 each), then one Zstandard frame. The README beside this file says what is in them.
 */
export const MAGIC = 'PVMSNAP\n';
export const FORMAT_VERSION = 1;
export const PREFIX_SIZE = MAGIC.length + 8;
export const SECTION_HEADER_SIZE = 12;
export const DIGEST_SIZE = 32;
/** More is no header of ours. */
export const MAX_HEADER_SIZE = 1 << 24;

/** What the machine's objects remember (`StateWriter`), one piece of it; pages of linear memory; the end. */
export const SECTION = { end: 0, state: 1, memory: 2 } as const;
/** Largest section unpacked: readers allocate no more at a time. */
export const MAX_SECTION = 8 << 20;

export interface SnapshotHeader {
  /** Version of this package that wrote it. */
  readonly pvm: string;
  /** `layoutFingerprint()` of the build that wrote it. */
  readonly layout: string;
  /** ISO 8601. */
  readonly created: string;
  readonly config: MachineConfig;
  readonly sources: MachineSources;
  readonly vcpus: number;
  /** Retired by all vCPUs since the machine was made, decimal. */
  readonly instructions: string;
}

/** Changes with every address or field in linear memory: builds between which it differs cannot read each other's state blocks. */
export function layoutFingerprint(): string {
  const constants = Object.entries(layout).filter(([, value]) => typeof value === 'number');
  return createHash('sha256').update(JSON.stringify(constants.sort())).digest('hex').slice(0, 16);
}

export function badSnapshot(message: string, cause?: unknown): PvmError {
  return new PvmError('bad-snapshot', message, cause === undefined ? undefined : { cause });
}

export function mismatch(message: string): PvmError {
  return new PvmError('snapshot-mismatch', message);
}
