import { beforeEach, expect, it } from 'vitest';
import { S_CR4, S_FAR_LIMIT, S_RFLAGS, STACK_ROOM } from './layout.ts';
import { CPU, CR4_PAE, RAM_BASE, RuntimeMachine } from './testing/runtime-machine.ts';

const P = 1n;
const W = 2n;
const U = 4n;
const CR4_SMAP = 1 << 21;
const RFLAGS_AC = 1 << 18;
/** A page in the TLB, one that is mapped and not in it, one that is not mapped. */
const KNOWN = 0x10_0000n;
const NEW = 0x10_1000n;
const MISSING = 0x10_2000n;
const FRAME = 0x8_0000;

const m = await RuntimeMachine.create();
beforeEach(() => {
  m.startAnew();
  m.map(KNOWN, BigInt(FRAME), P | W | U);
  m.map(NEW, 0x8_1000n, P | W);
  m.rt.store8(CPU, KNOWN, 1);
});

// Each is the only one of the runtime's functions that changes entries, or what they are good for, in its way.
it.each<readonly [what: string, change: () => void]>([
  ['an entry that is filled', () => m.rt.load8(CPU, NEW)],
  ['another array', () => m.setCpl(3)],
  ['a flush of an array', () => m.rt.tlbFlushArray(CPU, 0)],
  ['a flush of what is not global', () => m.rt.tlbFlushNonGlobal(CPU, 0)],
  ['INVLPG', () => m.rt.tlbInvlpg(CPU, 0, KNOWN)],
  ['a page fault', () => m.rt.load8(CPU, MISSING)],
  ['decoded code in a frame', () => m.rt.protectFrame(CPU, RAM_BASE + FRAME)],
  [
    'AC under SMAP',
    () => {
      m.set(S_RFLAGS, RFLAGS_AC);
      m.rt.alignment(CPU);
    },
  ],
  [
    'the begin of a run',
    () => {
      // It ends before it looks for code.
      m.set64(S_FAR_LIMIT, 0n);
      m.rt.run(CPU);
    },
  ],
])('the page of the stack is forgotten at %s', (_, change) => {
  m.set(S_CR4, CR4_PAE | CR4_SMAP);
  m.view.setBigUint64(STACK_ROOM, 4096n, true);
  change();
  expect(m.view.getBigUint64(STACK_ROOM, true)).toBe(0n);
});
