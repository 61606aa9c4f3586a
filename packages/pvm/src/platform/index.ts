import type { Platform, PlatformKind } from './platform.ts';
import { ProgramBoard } from './program-board.ts';
import type { PlatformServices } from './services.ts';
import { StockPc } from './stock-pc.ts';

export { GuestTime } from './guest-time.ts';
export type { Platform, PlatformKind } from './platform.ts';
export { RandomSource } from './random.ts';

/** What messages call the guests of a platform. */
export const GUEST_OF: Readonly<Record<PlatformKind, string>> = { program: 'a program on the embedded kernel', pc: 'a stock kernel' };

/** @throws MachineError `bad-disk` */
export function createPlatform(kind: PlatformKind, services: PlatformServices): Platform {
  return kind === 'pc' ? new StockPc(services) : new ProgramBoard(services);
}
