import type { Emitter, Semantics } from '../emit/emitter.ts';
import { crypto } from './crypto.ts';
import { sseConvert } from './sse-convert.ts';
import { sseFp } from './sse-fp.ts';
import { sseInt } from './sse-int.ts';
import { sseMove } from './sse-move.ts';
import { sseShuffle } from './sse-shuffle.ts';
import { sse4 } from './sse4.ts';

const UD = 6;
const NM = 7;
const CR0_EM = 1 << 2;

/** #UD under emulation, #NM after a task switch (SDM vol. 3, 14.2). CR4.OSFXSR is not looked at. */
function available(e: Emitter): void {
  const blocked = e.sseBlocked();
  if (blocked === undefined) return;
  const bits = e.let(blocked);
  e.if(bits, () => {
    e.if(e.and(bits, e.i32(CR0_EM)), () => e.raise(UD));
    e.raise(NM);
  });
}
const guarded =
  (f: Semantics): Semantics =>
  (e) => {
    available(e);
    f(e);
  };

/** Without the check that they may be used: what AVX shares. */
export const sseUnguarded: Readonly<Record<string, Semantics>> = { ...sseMove, ...sseFp, ...sseInt, ...sseShuffle, ...sseConvert, ...sse4, ...crypto };

/** SSE to SSE4.2, AES-NI, PCLMULQDQ and SHA, by mnemonic. */
export const sse: Record<string, Semantics> = Object.fromEntries(Object.entries(sseUnguarded).map(([name, f]) => [name, guarded(f)]));
