import type { BlockBackend } from './block-backend.ts';
import { FileBackend } from './file-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { OverlayBackend } from './overlay-backend.ts';

/** A disk of the machine. */
export interface DriveOptions {
  /** Path of a raw image, or the image itself. */
  readonly file: string | Uint8Array;
  /** Refuse writes; default false. */
  readonly readOnly?: boolean;
  /** Keep writes of the guest away from the image and forget them at the end; default false. */
  readonly snapshot?: boolean;
  /** Serial number the guest sees, at most 20 characters. */
  readonly serial?: string;
}

/** Open the image of a drive. @throws MachineError `bad-disk` */
export function openDrive(options: DriveOptions): BlockBackend {
  const readOnly = options.readOnly === true || options.snapshot === true;
  const base = typeof options.file === 'string' ? new FileBackend(options.file, readOnly) : new MemoryBackend(options.file, readOnly);
  return options.snapshot === true && options.readOnly !== true ? new OverlayBackend(base) : base;
}
