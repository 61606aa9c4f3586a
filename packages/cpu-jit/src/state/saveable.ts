/** Values that a snapshot holds as they are. Arrays, maps and sets are of such values again. */
export type PlainValue =
  | undefined
  | number
  | bigint
  | boolean
  | string
  | Uint8Array
  | readonly PlainValue[]
  | ReadonlyMap<PlainValue, PlainValue>
  | ReadonlySet<PlainValue>
  | { readonly [key: string]: PlainValue };

/**
 * Where an object's state goes to when a machine is saved, and where it comes from when one is restored. Both directions are the same sequence of calls, so an
 * object lists its state once; a snapshot carries the names, and one that does not fit is refused.
 */
export interface StateIo {
  /** The calls give back what was saved. Otherwise they take what is there. */
  readonly restoring: boolean;
  /**
   * Fields of `object` by name, private ones too (hence no type can check the names; saving throws for one that does not exist).
   * - numbers, bigints, booleans, strings, undefined: replaced; the type may only change to or from undefined
   * - typed arrays and DataViews: filled in place, the length stays
   * - arrays of `Saveable` or of typed arrays: each element, their number stays; other arrays, maps and sets: emptied and filled with plain values
   * - a `Saveable`: its own state
   */
  fields(object: object, names: readonly string[]): void;
  /** State that is not just a field: give the value that holds now, take the one that should. */
  value<T extends PlainValue>(name: string, value: T): T;
  /** State of a part, under a name of its own. */
  part(name: string, part: Saveable): void;
}

/** Something that a snapshot of the machine must hold. */
export interface Saveable {
  /**
   * Passes through `s` everything that can change while the machine runs. What the constructor makes of the machine's configuration is not state.
   *
   * @throws StateError when what was saved does not fit
   */
  state(s: StateIo): void;
}

/** Saved state that is not that of such a machine: another version, another configuration, or damaged. */
export class StateError extends Error {
  override readonly name = 'StateError';
}

export function isSaveable(value: unknown): value is Saveable {
  return typeof value === 'object' && value !== null && 'state' in value && typeof value.state === 'function';
}

/** An array whose elements are saved where they are. An array that is empty, or of byte strings that come and go, is not. */
export function isListOfParts(value: unknown): value is readonly (Saveable | ArrayBufferView)[] {
  return Array.isArray(value) && value.length > 0 && value.every((e) => isSaveable(e) || (ArrayBuffer.isView(e) && !(e instanceof Uint8Array)));
}

/** The bytes of a typed array or DataView, not copied. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** How the values of a stream are told apart. */
export const TAG = {
  undefined: 0,
  false: 1,
  true: 2,
  number: 3,
  bigint: 4,
  string: 5,
  bytes: 6,
  array: 7,
  map: 8,
  set: 9,
  object: 10,
  /** Contents of a typed array that exists already: length, then the pages that are not all zeros. */
  view: 11,
  /** Beginning and end of a part. */
  part: 12,
  end: 13,
} as const;

/** Typed arrays are stored in pages of so many bytes, those of zeros left out. */
export const VIEW_PAGE = 4096;
