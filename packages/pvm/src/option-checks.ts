const MIB = 2 ** 20;

/** Says what would be right, undefined when the value is. */
export type Check = (value: unknown) => string | undefined;

export const isBytes: Check = (v) => (typeof v === 'string' || v instanceof Uint8Array ? undefined : 'a path or a Uint8Array');
export const isString: Check = (v) => (typeof v === 'string' && !v.includes('\0') ? undefined : 'a string without NUL');
export const isBoolean: Check = (v) => (typeof v === 'boolean' ? undefined : 'true or false');
export const isFunction: Check = (v) => (typeof v === 'function' ? undefined : 'a function');
export const isSize: Check = (v) => (parseSize(v) === undefined ? 'a number of bytes or a string such as "64M"' : undefined);
export const oneOf =
  (...names: readonly string[]): Check =>
  (v) =>
    typeof v === 'string' && names.includes(v) ? undefined : `one of ${names.join(', ')}`;
export const record =
  (inner: Check, what: string): Check =>
  (v) =>
    typeof v === 'object' && v !== null && !Array.isArray(v) && Object.entries(v).every(([key, value]) => !key.includes('\0') && inner(value) === undefined)
      ? undefined
      : what;

/** Bytes of `64M`, `1G`, `4096`, 4096; undefined when it is none of these. */
export function parseSize(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value > 0 ? value : undefined;
  if (typeof value !== 'string') return undefined;
  const match = /^(\d+)([KMG]?)(?:i?B)?$/i.exec(value);
  if (match === null) return undefined;
  const unit = { '': 1, K: 1024, M: MIB, G: 1024 * MIB }[(match[2] ?? '').toUpperCase()] ?? 1;
  return Number(match[1]) * unit;
}

/** A value for a message. */
export function show(value: unknown): string {
  return typeof value === 'string' ? `"${value}"` : typeof value === 'object' && value !== null ? (value.constructor?.name ?? 'an object') : String(value);
}

/** The candidate with the smallest edit distance (Levenshtein) to `word`, ignoring case. */
export function nearest(word: string, candidates: readonly string[]): string {
  const distance = (a: string, b: string): number => {
    let row = Array.from({ length: b.length + 1 }, (_, i) => i);
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      for (let j = 1; j <= b.length; j++) {
        next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)));
      }
      row = next;
    }
    return row[b.length] ?? 0;
  };
  const lower = word.toLowerCase();
  const ranked = candidates.map((candidate) => ({ candidate, d: distance(lower, candidate.toLowerCase()) })).sort((x, y) => x.d - y.d);
  return ranked[0]?.candidate ?? '';
}
