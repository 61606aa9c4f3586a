import { describe, expect, it } from 'vitest';
import { type Saveable, StateError, type StateIo, StateReader, StateWriter } from './index.ts';

class Inner implements Saveable {
  count = 0;
  state(s: StateIo): void {
    s.fields(this, ['count']);
  }
}

class Everything implements Saveable {
  n = 0;
  big = 0n;
  flag = false;
  text = '';
  maybe: number | undefined;
  readonly words = new Uint32Array(3000);
  readonly view = new DataView(new ArrayBuffer(8));
  readonly list: (number | { a: number })[] = [];
  readonly map = new Map<number, string>();
  readonly set = new Set<number>();
  readonly inner = new Inner();
  readonly inners = [new Inner(), new Inner()];
  extra = new Uint8Array(0);
  state(s: StateIo): void {
    s.fields(this, ['n', 'big', 'flag', 'text', 'maybe', 'words', 'view', 'list', 'map', 'set', 'inner', 'inners']);
    this.extra = s.value('extra', this.extra);
  }
}

function filled(): Everything {
  const e = new Everything();
  Object.assign(e, { n: Number.POSITIVE_INFINITY, big: -(2n ** 70n), flag: true, text: 'é\0', maybe: -0.5, extra: Uint8Array.of(1, 2) });
  e.words[0] = 1;
  e.words[2999] = 0xffff_ffff;
  e.view.setUint16(6, 0x1234);
  e.list.push(1, { a: 2 });
  e.map.set(5, 'five');
  e.set.add(7);
  e.inner.count = 3;
  for (const inner of e.inners) inner.count = 9;
  return e;
}

describe('state of objects', () => {
  it('comes back in an object made anew, in place where others may hold a reference', () => {
    const copy = new Everything();
    const { words, map, list } = copy;
    map.set(1, 'gone');
    words[1] = 99;
    StateReader.restore(copy, StateWriter.save(filled()));
    expect(copy).toEqual(filled());
    expect([copy.words === words, copy.map === map, copy.list === list]).toEqual([true, true, true]);
  });

  it('that is damaged is quoted without what a terminal would take for a command, or for a new line', () => {
    const saved = StateWriter.save(new Inner());
    saved.set([0x1b, 0x0a], Buffer.from(saved).indexOf('ou'));
    expect(() => StateReader.restore(new Inner(), saved)).toThrow('found "c??nt", expected "count"');
  });

  it('does not take space for pages of zeros', () => {
    expect(StateWriter.save(new Everything()).length).toBeLessThan(400);
  });

  it('is refused by an object with other fields, naming them', () => {
    class Other implements Saveable {
      readonly inner = { state: (s: StateIo) => s.fields({ total: 1 }, ['total']) };
      state(s: StateIo): void {
        s.fields(this, ['inner']);
      }
    }
    const saved = StateWriter.save({ state: (s) => s.part('inner', new Inner()) });
    expect(() => StateReader.restore(new Other(), saved)).toThrow('state of inner: found "count", expected "total"');
    const text = StateWriter.save({ state: (s) => s.fields({ count: 'x' }, ['count']) });
    expect(() => StateReader.restore(new Inner(), text)).toThrow('"count" is a string, expected a number');
    expect(() => StateWriter.save({ state: (s) => s.fields(new Inner(), ['cuont']) })).toThrow('Inner has no field "cuont"');
    expect(() => StateWriter.save({ state: (s) => s.fields({ date: new Date() }, ['date']) })).toThrow('"date" holds a Date');
  });

  it('that is cut off or changed anywhere is a StateError or other state, never anything else', () => {
    const saved = StateWriter.save(filled());
    for (let n = 0; n < saved.length; n += 1 + (n >> 6)) expect(() => StateReader.restore(new Everything(), saved.subarray(0, n))).toThrow(StateError);
    let seed = 1;
    for (let i = 0; i < 3000; i++) {
      const changed = saved.slice();
      for (let k = 0; k < 3; k++) {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
        changed[(seed >>> 8) % 160] = seed >>> 24;
      }
      try {
        StateReader.restore(new Everything(), changed);
      } catch (e) {
        if (!(e instanceof StateError)) throw new Error(`change ${i}`, { cause: e });
      }
    }
  });
});
