/** A scan code of set 1 without its release bit; the second of a pair of bytes that begins with 0xe0 has EXTENDED. */
type Key = number;

const EXTENDED = 0x100;
const LEFT_SHIFT: Key = 0x2a;
const LEFT_CONTROL: Key = 0x1d;
const RELEASE_1 = 0x80;
const RELEASE_2 = 0xf0;
const PREFIX = 0xe0;

/** Rows of the US keyboard, without shift and with it, and the set 1 code of the first key; the others follow one by one. */
const ROWS: readonly (readonly [plain: string, shifted: string, first: Key])[] = [
  ['\x1b1234567890-=', '\0!@#$%^&*()_+', 0x01],
  ['qwertyuiop[]', 'QWERTYUIOP{}', 0x10],
  ["asdfghjkl;'`", 'ASDFGHJKL:"~', 0x1e],
  ['\\zxcvbnm,./', '|ZXCVBNM<>?', 0x2b],
  [' ', '', 0x39],
  ['\x7f\t', '', 0x0e],
  ['\r', '', 0x1c],
];

/** What terminals send for keys that are no characters. */
const SEQUENCES: Readonly<Record<string, Key>> = {
  '\x1b[A': EXTENDED | 0x48,
  '\x1b[B': EXTENDED | 0x50,
  '\x1b[C': EXTENDED | 0x4d,
  '\x1b[D': EXTENDED | 0x4b,
  '\x1b[H': EXTENDED | 0x47,
  '\x1b[F': EXTENDED | 0x4f,
  '\x1b[3~': EXTENDED | 0x53,
  '\x1b[5~': EXTENDED | 0x49,
  '\x1b[6~': EXTENDED | 0x51,
  '\x1bOP': 0x3b,
  '\x1bOQ': 0x3c,
  '\x1bOR': 0x3d,
  '\x1bOS': 0x3e,
  '\x1b[15~': 0x3f,
};

/** Set 2 codes of the set 1 codes 0x01 to 0x53 (IBM PS/2 Technical Reference, keyboard, "Scan Code Set 2"). */
const SET_2 = Buffer.from(
  '76161e26252e363d3e46454e55660d151d242d2c353c43444d545b5a141c1b232b34333b424b4c520e125d1a22212a32313a41494a597c1129580506040c030b830a0109777e6c757d7b6b73747969727a7071',
  'hex',
);

const PLAIN = new Map<string, Key>();
const SHIFTED = new Map<string, Key>();
for (const [plain, shifted, first] of ROWS) {
  [...plain].forEach((c, i) => {
    PLAIN.set(c, first + i);
  });
  [...shifted].forEach((c, i) => {
    if (c !== '\0') SHIFTED.set(c, first + i);
  });
}

/** A key goes down or up. */
export interface KeyEvent {
  readonly key: Key;
  readonly isRelease: boolean;
}

/** What a person at a US keyboard does to type `text`; also knows the sequences that terminals send for arrows and function keys. Characters that are on no key are left out. */
export function keysFor(text: string): KeyEvent[] {
  const events: KeyEvent[] = [];
  const press = (key: Key, modifier?: Key): void => {
    const down = modifier === undefined ? [key] : [modifier, key];
    events.push(...down.map((k) => ({ key: k, isRelease: false })), ...down.toReversed().map((k) => ({ key: k, isRelease: true })));
  };
  for (let at = 0; at < text.length; ) {
    const sequence = Object.keys(SEQUENCES).find((s) => text.startsWith(s, at));
    if (sequence !== undefined) {
      press(SEQUENCES[sequence] ?? 0);
      at += sequence.length;
      continue;
    }
    const c = text[at] === '\n' ? '\r' : text[at] === '\b' ? '\x7f' : (text[at] ?? '');
    at++;
    const control = c < ' ' && !PLAIN.has(c) ? String.fromCharCode(c.charCodeAt(0) + 0x60) : undefined;
    const plain = PLAIN.get(control ?? c);
    const shifted = SHIFTED.get(c);
    if (plain !== undefined) press(plain, control === undefined ? undefined : LEFT_CONTROL);
    else if (shifted !== undefined) press(shifted, LEFT_SHIFT);
  }
  return events;
}

/** The bytes of an event in scan code set 1, as a controller that translates gives them, or in set 2, as the keyboard sends them. */
export function scanCode({ key, isRelease }: KeyEvent, set: 1 | 2): number[] {
  const prefix = (key & EXTENDED) !== 0 ? [PREFIX] : [];
  const code = key & 0xff;
  if (set === 1) return [...prefix, isRelease ? code | RELEASE_1 : code];
  return [...prefix, ...(isRelease ? [RELEASE_2] : []), SET_2[code - 1] ?? 0];
}
