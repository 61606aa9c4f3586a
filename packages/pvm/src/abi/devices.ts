import type { Platform } from '../platform/index.ts';

/** The platform, as the emulation of privileged instructions sees it. */
export type Devices = Pick<Platform, 'readPort' | 'writePort' | 'readMmio' | 'writeMmio' | 'readMsr' | 'writeMsr' | 'kvm'>;
