/** SSE4.2 string comparison: helpers of the runtime (assembly/pcmpstr.ts) that return the index, set the flags and leave the mask in S_SCRATCH. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { S_SCRATCH } from '../layout.ts';
import { RAX, RCX, RDX } from './common.ts';
import { imm8, zero } from './sse-operands.ts';
import { halves } from './vector.ts';

/** Strings that end at a zero, or whose lengths are in rAX and rDX (signed; the helper takes their magnitudes). */
function compare(e: Emitter, explicitLengths: boolean): Val {
  const [b = zero(e)] = halves(e, 1);
  const args: Val[] = [e.readXmm(0), b, imm8(e)];
  if (!explicitLengths) return e.call('pcmpistr', 'i32', args, { registers: true });
  const size = e.form.opSize === 8 ? 8 : 4;
  const length = (register: number) => e.sext64(e.reg(register, size), size);
  return e.call('pcmpestr', 'i32', [...args, length(RAX), length(RDX)], { registers: true });
}

const index =
  (explicitLengths: boolean): Semantics =>
  (e) =>
    e.setReg(RCX, 4, compare(e, explicitLengths));
const mask =
  (explicitLengths: boolean): Semantics =>
  (e) => {
    compare(e, explicitLengths);
    e.setXmm(0, e.let(e.expr('v128', e.m.v128.load(S_SCRATCH, 16, e.cpu()))));
    if (e.form.row.vex === true) e.setXmm(0, zero(e), 1);
  };

export const sse4: Record<string, Semantics> = {
  pcmpistri: index(false),
  pcmpistrm: mask(false),
  pcmpestri: index(true),
  pcmpestrm: mask(true),
};
