import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { handlerForms, handlerKeys } from './handler-forms.ts';
import { handlerIndex, PARTS } from './handler-table.ts';

describe('handlers by form', () => {
  it.each(Object.values(PARTS))('the built $keys has the keys of the tables', (part) => {
    const bytes = readFileSync(new URL(`../../build/${part.keys}`, import.meta.url));
    expect(new Uint32Array(new Uint8Array(bytes).buffer)).toEqual(handlerKeys(part));
  });
  it('each form of a part has a handler of its own, in the room of the part', () => {
    const part = PARTS.avx;
    const index = handlerIndex([
      [PARTS.base, handlerKeys(PARTS.base)],
      [part, handlerKeys(part)],
    ]);
    const found = [...handlerKeys(part)].map((key) => index[key]);
    expect(found).toEqual(handlerForms(part).map((_, i) => part.first + i));
    expect(index[handlerKeys(PARTS.base)[0] ?? -1]).toBe(PARTS.base.first);
  });
});
