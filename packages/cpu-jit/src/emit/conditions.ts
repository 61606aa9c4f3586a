import type { Emitter } from './emitter.ts';
import type { Val } from './val.ts';

/** Condition code `cc` (0..15) from single flags: even codes as listed in SDM vol. 1 B.1, odd ones negated. */
export function conditionFromFlags(e: Emitter, cc: number): Val {
  const positive = positiveCondition(e, cc >> 1);
  return e.let((cc & 1) === 0 ? positive : e.eqz(positive));
}

function positiveCondition(e: Emitter, pair: number): Val {
  switch (pair) {
    case 0:
      return e.flag('o');
    case 1:
      return e.flag('c');
    case 2:
      return e.flag('z');
    case 3:
      return e.or(e.flag('c'), e.flag('z'));
    case 4:
      return e.flag('s');
    case 5:
      return e.flag('p');
    case 6:
      return e.xor(e.flag('s'), e.flag('o'));
    default:
      return e.or(e.flag('z'), e.xor(e.flag('s'), e.flag('o')));
  }
}
