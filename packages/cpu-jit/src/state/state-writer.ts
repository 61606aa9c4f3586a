import { bytesOf, isListOfParts, isSaveable, type PlainValue, type Saveable, type StateIo, TAG, VIEW_PAGE } from './saveable.ts';

const FIRST_SIZE = 1 << 16;

/** Collects state as one stream of bytes. */
export class StateWriter implements StateIo {
  readonly restoring = false;
  private bytes = new Uint8Array(FIRST_SIZE);
  private view = new DataView(this.bytes.buffer);
  private length = 0;

  /** State of `root` as bytes. */
  static save(root: Saveable): Uint8Array {
    const writer = new StateWriter();
    root.state(writer);
    return writer.bytes.subarray(0, writer.length);
  }

  fields(object: object, names: readonly string[]): void {
    for (const name of names) {
      if (!(name in object)) throw new TypeError(`${object.constructor.name} has no field "${name}" to save`);
      this.field(name, (object as Readonly<Record<string, unknown>>)[name]);
    }
  }

  value<T extends PlainValue>(name: string, value: T): T {
    this.name(name);
    this.plain(value, name);
    return value;
  }

  part(name: string, part: Saveable): void {
    this.name(name);
    this.byte(TAG.part);
    part.state(this);
    this.byte(TAG.end);
  }

  private field(name: string, value: unknown): void {
    if (isSaveable(value)) {
      this.part(name, value);
      return;
    }
    if (isListOfParts(value)) {
      value.forEach((element, i) => {
        this.field(`${name}[${i}]`, element);
      });
      return;
    }
    this.name(name);
    if (ArrayBuffer.isView(value)) this.contents(value);
    else this.plain(value, name);
  }

  private contents(array: ArrayBufferView): void {
    const bytes = bytesOf(array);
    this.byte(TAG.view);
    this.u32(bytes.length);
    const pages: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += VIEW_PAGE) pages.push(bytes.subarray(at, at + VIEW_PAGE));
    const used = pages.flatMap((page, i) => (page.some((b) => b !== 0) ? [i] : []));
    this.u32(used.length);
    for (const i of used) {
      this.u32(i);
      this.raw(pages[i] ?? new Uint8Array(0));
    }
  }

  private plain(value: unknown, name: string): void {
    if (value === undefined) this.byte(TAG.undefined);
    else if (typeof value === 'boolean') this.byte(value ? TAG.true : TAG.false);
    else if (typeof value === 'number') {
      this.byte(TAG.number);
      this.reserve(8);
      this.view.setFloat64(this.length, value, true);
      this.length += 8;
    } else if (typeof value === 'bigint') this.text(TAG.bigint, value.toString(16));
    else if (typeof value === 'string') this.text(TAG.string, value);
    else if (value instanceof Uint8Array) {
      this.byte(TAG.bytes);
      this.u32(value.length);
      this.raw(value);
    } else this.collection(value, name);
  }

  private collection(value: unknown, name: string): void {
    const list = (tag: number, values: readonly unknown[], count = values.length) => {
      this.byte(tag);
      this.u32(count);
      for (const element of values) this.plain(element, name);
    };
    if (Array.isArray(value)) list(TAG.array, value);
    else if (value instanceof Map) list(TAG.map, [...value].flat(), value.size);
    else if (value instanceof Set) list(TAG.set, [...value]);
    else if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
      list(TAG.object, Object.entries(value).flat(), Object.keys(value).length);
    } else throw new TypeError(`"${name}" holds ${typeof value === 'object' ? `a ${value?.constructor.name ?? 'null'}` : typeof value}, which cannot be saved`);
  }

  private name(name: string): void {
    const text = new TextEncoder().encode(name);
    if (text.length > 255) throw new TypeError(`name too long: ${name}`);
    this.byte(text.length);
    this.raw(text);
  }
  private text(tag: number, text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.byte(tag);
    this.u32(bytes.length);
    this.raw(bytes);
  }
  private byte(value: number): void {
    this.reserve(1);
    this.bytes[this.length++] = value;
  }
  private u32(value: number): void {
    this.reserve(4);
    this.view.setUint32(this.length, value, true);
    this.length += 4;
  }
  private raw(data: Uint8Array): void {
    this.reserve(data.length);
    this.bytes.set(data, this.length);
    this.length += data.length;
  }
  private reserve(n: number): void {
    if (this.length + n <= this.bytes.length) return;
    const larger = new Uint8Array(Math.max(this.length + n, this.bytes.length * 2));
    larger.set(this.bytes.subarray(0, this.length));
    this.bytes = larger;
    this.view = new DataView(larger.buffer);
  }
}
