/** AES-NI, PCLMULQDQ and the SHA extensions: pure helpers of the runtime (assembly/aes.ts, assembly/sha.ts). */
import type { Semantics } from '../emit/emitter.ts';
import { imm8 } from './sse-operands.ts';
import { packed, unary } from './vector.ts';

/** dst = helper(first, second). */
const binary = (helper: string): Semantics => packed((e, a, b) => e.call(helper, 'v128', [a, b], { pure: true }));
/** dst = helper(first, second, imm8). */
const binaryImmediate = (helper: string): Semantics => packed((e, a, b) => e.call(helper, 'v128', [a, b, imm8(e)], { pure: true }));

export const crypto: Record<string, Semantics> = {
  aesenc: binary('aesenc'),
  aesenclast: binary('aesenclast'),
  aesdec: binary('aesdec'),
  aesdeclast: binary('aesdeclast'),
  aesimc: unary((e, a) => e.call('aesimc', 'v128', [a], { pure: true })),
  aeskeygenassist: unary((e, a) => e.call('aeskeygenassist', 'v128', [a, imm8(e)], { pure: true })),
  pclmulqdq: binaryImmediate('pclmulqdq'),
  sha1rnds4: binaryImmediate('sha1rnds4'),
  sha1nexte: binary('sha1nexte'),
  sha1msg1: binary('sha1msg1'),
  sha1msg2: binary('sha1msg2'),
  sha256rnds2: packed((e, a, b) => e.call('sha256rnds2', 'v128', [a, b, e.xmm(0)], { pure: true })),
  sha256msg1: binary('sha256msg1'),
  sha256msg2: binary('sha256msg2'),
};
