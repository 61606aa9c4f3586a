import { expect, test } from 'vitest';
import { Keyboard } from './keyboard.ts';

/** A stream that is no terminal: nothing is set on it. */
const stream = { isTTY: false } as NodeJS.ReadStream;
const bytes = (text: string) => new TextEncoder().encode(text);

test('Ctrl-A X ends the machine, Ctrl-A twice is one, in any division into chunks', () => {
  let ended = 0;
  const keyboard = new Keyboard(stream, { x: { what: 'ends the machine', run: () => ended++ } });
  expect(keyboard.filter(bytes('a\x01\x01b'))).toEqual(bytes('a\x01b'));
  expect(keyboard.filter(bytes('c\x01'))).toEqual(bytes('c'));
  expect(ended).toBe(0);
  expect(keyboard.filter(bytes('xd\x01qe'))).toEqual(bytes('de'));
  expect(ended).toBe(1);
  keyboard.filter(bytes('\x01X'));
  expect(ended).toBe(2);
  expect(keyboard.help()).toMatch(/Ctrl-A X +ends the machine\r\n/);
});
