import type { Semantics } from '../emit/emitter.ts';
import { crypto } from './crypto.ts';
import { sseConvert } from './sse-convert.ts';
import { sseFp } from './sse-fp.ts';
import { sseInt } from './sse-int.ts';
import { sseMove } from './sse-move.ts';
import { sseShuffle } from './sse-shuffle.ts';
import { sse4 } from './sse4.ts';

/** SSE to SSE4.2, AES-NI, PCLMULQDQ and SHA, by mnemonic. */
export const sse: Record<string, Semantics> = { ...sseMove, ...sseFp, ...sseInt, ...sseShuffle, ...sseConvert, ...sse4, ...crypto };
