import { bytesOf, isListOfParts, isSaveable, type PlainValue, type Saveable, StateError, type StateIo, TAG, VIEW_PAGE } from './saveable.ts';

/** Deepest nesting of saved values; more is no state of ours. */
const MAX_DEPTH = 8;

/** Puts state that `StateWriter` collected into the objects of a machine built the same way. */
export class StateReader implements StateIo {
  readonly restoring = true;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly path: string[] = [];
  private at = 0;

  private constructor(bytes: Uint8Array) {
    // Not a Buffer, whose slices would be views.
    this.bytes = bytesOf(bytes);
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** @throws StateError when `bytes` is not the state of such an object */
  static restore(root: Saveable, bytes: Uint8Array): void {
    const reader = new StateReader(bytes);
    root.state(reader);
    if (reader.at !== bytes.length) throw new StateError(`${bytes.length - reader.at} bytes are left over after the last part`);
  }

  fields(object: object, names: readonly string[]): void {
    const target = object as Record<string, unknown>;
    for (const name of names) this.field(target, name, target[name]);
  }

  value<T extends PlainValue>(name: string, value: T): T {
    this.name(name);
    const saved = this.plain(0);
    this.sameKind(name, value, saved);
    return saved as T;
  }

  part(name: string, part: Saveable): void {
    this.name(name);
    this.tag(TAG.part, 'the beginning of a part');
    this.path.push(name);
    part.state(this);
    this.tag(TAG.end, 'the end of the part');
    this.path.pop();
  }

  private field(object: Record<string, unknown>, name: string, value: unknown): void {
    if (isSaveable(value)) {
      this.part(name, value);
    } else if (isListOfParts(value)) {
      value.forEach((element, i) => {
        this.field(object, `${name}[${i}]`, element);
      });
    } else {
      this.name(name);
      if (ArrayBuffer.isView(value)) this.contents(name, value);
      else this.assign(object, name, value, this.plain(0));
    }
  }

  private assign(object: Record<string, unknown>, name: string, value: unknown, saved: PlainValue): void {
    this.sameKind(name, value, saved);
    if (value instanceof Map && saved instanceof Map) {
      value.clear();
      for (const [key, element] of saved) value.set(key, element);
    } else if (value instanceof Set && saved instanceof Set) {
      value.clear();
      for (const element of saved) value.add(element);
    } else if (Array.isArray(value) && Array.isArray(saved)) {
      value.length = 0;
      for (const element of saved) value.push(element);
    } else object[name] = saved;
  }

  /** A field that was or is undefined may have any value that it can have. */
  private sameKind(name: string, value: unknown, saved: unknown): void {
    if (value === undefined || saved === undefined || kindOf(value) === kindOf(saved)) return;
    throw this.error(`"${name}" is ${kindOf(saved)}, expected ${kindOf(value)}`);
  }

  private contents(name: string, array: ArrayBufferView): void {
    const bytes = bytesOf(array);
    this.tag(TAG.view, `contents for "${name}"`);
    const length = this.u32();
    if (length !== bytes.length) throw this.error(`"${name}" has ${length} bytes, expected ${bytes.length}`);
    const used = this.u32();
    if (used > Math.ceil(length / VIEW_PAGE)) throw this.error(`"${name}" has ${used} pages in ${length} bytes`);
    bytes.fill(0);
    for (let i = 0; i < used; i++) {
      const at = this.u32() * VIEW_PAGE;
      if (at >= length) throw this.error(`"${name}" has a page beyond its end`);
      bytes.set(this.raw(Math.min(VIEW_PAGE, length - at)), at);
    }
  }

  private plain(depth: number): PlainValue {
    if (depth > MAX_DEPTH) throw this.error('values are nested too deeply');
    const tag = this.u8();
    switch (tag) {
      case TAG.undefined:
        return undefined;
      case TAG.false:
      case TAG.true:
        return tag === TAG.true;
      case TAG.number: {
        this.need(8);
        this.at += 8;
        return this.view.getFloat64(this.at - 8, true);
      }
      case TAG.bigint:
        return this.bigint();
      case TAG.string:
        return new TextDecoder().decode(this.raw(this.u32()));
      case TAG.bytes:
        return this.raw(this.u32()).slice();
      case TAG.array:
        return this.list(depth);
      case TAG.set:
        return new Set(this.list(depth));
      case TAG.map:
        return new Map(this.pairs(depth));
      case TAG.object:
        return Object.fromEntries(this.pairs(depth).map(([key, value]) => [String(key), value]));
      default:
        throw this.error(`no value begins with byte ${tag}`);
    }
  }

  private bigint(): bigint {
    const text = new TextDecoder().decode(this.raw(this.u32()));
    if (!/^-?[0-9a-f]{1,64}$/.test(text)) throw this.error('a bigint that is none');
    return text.startsWith('-') ? -BigInt(`0x${text.slice(1)}`) : BigInt(`0x${text}`);
  }

  private list(depth: number): PlainValue[] {
    const count = this.u32();
    // Every value takes a byte at least.
    this.need(count);
    return Array.from({ length: count }, () => this.plain(depth + 1));
  }

  private pairs(depth: number): [PlainValue, PlainValue][] {
    const count = this.u32();
    this.need(2 * count);
    return Array.from({ length: count }, () => [this.plain(depth + 1), this.plain(depth + 1)]);
  }

  private name(expected: string): void {
    const name = new TextDecoder().decode(this.raw(this.u8()));
    if (name !== expected) throw this.error(`found "${printable(name)}", expected "${expected}"`);
  }
  private tag(expected: number, what: string): void {
    if (this.u8() !== expected) throw this.error(`expected ${what}`);
  }
  private u8(): number {
    this.need(1);
    return this.bytes[this.at++] ?? 0;
  }
  private u32(): number {
    this.need(4);
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }
  private raw(n: number): Uint8Array {
    this.need(n);
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }
  private need(n: number): void {
    if (this.at + n > this.bytes.length) throw this.error('the state ends too early');
  }
  private error(message: string): StateError {
    return new StateError(`state of ${this.path.length === 0 ? 'the machine' : this.path.join('.')}: ${message}`);
  }
}

/** A name as a damaged file has it, fit for one line of a terminal. */
function printable(name: string): string {
  return name.slice(0, 40).replaceAll(/[^ -~]/g, '?');
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value !== 'object' || value === null) return typeof value === 'object' ? 'null' : `a ${typeof value}`;
  return value instanceof Map ? 'a map' : value instanceof Set ? 'a set' : value instanceof Uint8Array ? 'bytes' : 'an object';
}
