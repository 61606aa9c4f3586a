import type { PlatformKind } from '../platform/index.ts';
import type { SnapshotHeader } from './format.ts';
import { SnapshotReader } from './reader.ts';

/** What a snapshot says about itself. */
export interface SnapshotInfo extends SnapshotHeader {
  /** Bytes of the file. */
  readonly size: number;
  /** This build can restore it. */
  readonly isCurrent: boolean;
}

/** Which kind of machine a snapshot is of, by its header alone: the rest is checked when it is restored. @throws PvmError as `snapshotInfo` */
export function snapshotPlatform(from: string | Uint8Array): PlatformKind {
  const reader = SnapshotReader.open(from, 'never');
  reader.close();
  return reader.header.config.platform;
}

/**
 * Reads and checks a snapshot without a machine.
 *
 * @param from path or contents
 * @throws PvmError `unreadable-file`, `bad-snapshot`, `snapshot-mismatch` for a file format of another version
 */
export function snapshotInfo(from: string | Uint8Array): SnapshotInfo {
  const reader = SnapshotReader.open(from);
  try {
    return { ...reader.header, size: reader.size, isCurrent: reader.isCurrent };
  } finally {
    reader.close();
  }
}
