/** AES-NI, PCLMULQDQ and the SHA extensions: pure helpers of the runtime (assembly/aes.ts, assembly/sha.ts). */
import type { Semantics } from '../emit/emitter.ts';
import { aligned, imm8 } from './sse-operands.ts';

/** dst = helper(dst, src). */
const binary =
  (helper: string): Semantics =>
  (e) => {
    const source = aligned(e, 1);
    e.writeXmm(0, e.call(helper, 'v128', [e.readXmm(0), source], { pure: true }));
  };
/** dst = helper(dst, src, imm8). */
const binaryImmediate =
  (helper: string): Semantics =>
  (e) => {
    const source = aligned(e, 1);
    e.writeXmm(0, e.call(helper, 'v128', [e.readXmm(0), source, imm8(e)], { pure: true }));
  };

const aesimc: Semantics = (e) => e.writeXmm(0, e.call('aesimc', 'v128', [aligned(e, 1)], { pure: true }));
const aeskeygenassist: Semantics = (e) => e.writeXmm(0, e.call('aeskeygenassist', 'v128', [aligned(e, 1), imm8(e)], { pure: true }));
const sha256rnds2: Semantics = (e) => {
  const source = aligned(e, 1);
  e.writeXmm(0, e.call('sha256rnds2', 'v128', [e.readXmm(0), source, e.xmm(0)], { pure: true }));
};

export const crypto: Record<string, Semantics> = {
  aesenc: binary('aesenc'),
  aesenclast: binary('aesenclast'),
  aesdec: binary('aesdec'),
  aesdeclast: binary('aesdeclast'),
  aesimc,
  aeskeygenassist,
  pclmulqdq: binaryImmediate('pclmulqdq'),
  sha1rnds4: binaryImmediate('sha1rnds4'),
  sha1nexte: binary('sha1nexte'),
  sha1msg1: binary('sha1msg1'),
  sha1msg2: binary('sha1msg2'),
  sha256rnds2,
  sha256msg1: binary('sha256msg1'),
  sha256msg2: binary('sha256msg2'),
};
