/** AVX, AVX2, FMA and F16C, by mnemonic: the SSE semantics under their VEX names, and what only VEX has. */
import { rows } from '../decoder/rows.ts';
import type { Emitter, Semantics } from '../emit/emitter.ts';
import { CR4_OSXSAVE, S_CR0, S_CR4, S_RFLAGS, S_XCR0, XCR0_AVX } from '../layout.ts';
import { avxMove } from './avx-move.ts';
import { avxPermute } from './avx-permute.ts';
import { avxShift } from './avx-shift.ts';
import { VECTOR } from './common.ts';
import { f16c } from './f16c.ts';
import { fma } from './fma.ts';
import { gathers } from './gather.ts';
import { sseUnguarded } from './sse.ts';

const CR0_PE = 1;
const RFLAGS_VM = 1 << 17;

/** #UD where the operating system has not enabled AVX state, and in real and virtual-8086 mode; #NM after a task switch (SDM vol. 2, 2.4.4). */
function available(e: Emitter): void {
  const blocked = e.avxBlocked();
  if (blocked === undefined) return;
  if (e.codeSize !== 64) {
    const isReal = e.eqz(e.and(e.state(S_CR0, 4), e.i32(CR0_PE)));
    e.if(e.or(isReal, e.and(e.state(S_RFLAGS, 4), e.i32(RFLAGS_VM))), () => e.raise(VECTOR.UD));
  }
  e.if(blocked, () => {
    const lacks = (offset: number, bits: number) => e.ne(e.and(e.state(offset, 4), e.i32(bits)), e.i32(bits));
    e.if(e.or(lacks(S_CR4, CR4_OSXSAVE), lacks(S_XCR0, XCR0_AVX)), () => e.raise(VECTOR.UD));
    e.raise(VECTOR.NM);
  });
}
const guarded =
  (f: Semantics): Semantics =>
  (e) => {
    available(e);
    f(e);
  };

const own: Readonly<Record<string, Semantics>> = { ...avxMove, ...avxPermute, ...avxShift, ...fma, ...f16c, ...gathers };
const names = new Set(rows.filter((row) => row.vex === true && row.name.startsWith('v')).map((row) => row.name));

function semanticsOf(name: string): Semantics {
  const f = own[name] ?? sseUnguarded[name.slice(1)];
  if (f === undefined) throw new Error(`${name} is in the tables and has no semantics`);
  return guarded(f);
}
export const avx: Record<string, Semantics> = Object.fromEntries([...names].map((name) => [name, semanticsOf(name)]));
