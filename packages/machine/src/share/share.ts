import { fileProblem, MachineError } from '../errors.ts';
import { HostFolder } from './host-folder.ts';

/** A folder of the host that a guest can mount. */
export interface ShareOptions {
  /** Path on the host. */
  readonly folder: string;
  /** Name by which the guest mounts it, 1 to 31 characters without commas. */
  readonly tag: string;
  /** Refuse changes; default false. */
  readonly readOnly?: boolean;
}

/** Whether a guest can mount a share by this name. */
export function isShareTag(tag: string): boolean {
  return /^[^,\s]{1,31}$/.test(tag);
}

/** Open the folder of a share. @throws MachineError `bad-share` */
export function openShare(options: ShareOptions): HostFolder {
  const { folder, tag } = options;
  if (!isShareTag(tag)) throw new MachineError('bad-share', `share tag "${tag}": expected 1 to 31 characters without commas and spaces`);
  if (process.platform !== 'linux') throw new MachineError('bad-share', `sharing folders needs a Linux host, this is ${process.platform}`);
  try {
    return new HostFolder(folder, options.readOnly === true);
  } catch (cause) {
    throw new MachineError('bad-share', `${folder}: cannot be shared: ${fileProblem(cause)}; expected a folder`);
  }
}
