/** Framing of the GDB remote serial protocol (GDB manual, appendix E.1): `$data#checksum`, acknowledgements, the interrupt byte. */

/** What came from GDB. */
export type Received =
  | { readonly kind: 'packet'; readonly data: Uint8Array }
  /** The user pressed Ctrl-C. */
  | { readonly kind: 'interrupt' }
  /** The checksum is wrong: GDB is to send it again. */
  | { readonly kind: 'damaged' };

const DOLLAR = 0x24;
const HASH = 0x23;
const ESCAPE = 0x7d;
const ESCAPED_BY = 0x20;
const INTERRUPT = 3;
const MINUS = 0x2d;
/** Bytes that must be escaped: they mean something in the framing, `*` is run-length encoding. */
const SPECIAL = new Set([DOLLAR, HASH, ESCAPE, 0x2a]);
/** Longest packet that is taken, bytes; GDB is told (`PacketSize`). */
export const MAX_PACKET = 0x4000;

/** Cuts a stream into packets. */
export class PacketReader {
  private body: number[] | undefined;
  private checksum: string | undefined;
  private onNack: () => void;

  /** @param onNack GDB wants the last packet again */
  constructor(onNack: () => void) {
    this.onNack = onNack;
  }

  *push(chunk: Uint8Array): Generator<Received> {
    for (const byte of chunk) {
      const received = this.byte(byte);
      if (received !== undefined) yield received;
    }
  }

  private byte(byte: number): Received | undefined {
    if (this.checksum !== undefined) {
      this.checksum += String.fromCharCode(byte);
      return this.checksum.length === 2 ? this.end(this.checksum) : undefined;
    }
    if (this.body === undefined) {
      if (byte === DOLLAR) this.body = [];
      else if (byte === MINUS) this.onNack();
      return byte === INTERRUPT ? { kind: 'interrupt' } : undefined;
    }
    if (byte === HASH) this.checksum = '';
    // A packet that was cut off: a new one begins.
    else if (byte === DOLLAR) this.body = [];
    else if (this.body.length < 2 * MAX_PACKET) this.body.push(byte);
    return undefined;
  }

  private end(checksum: string): Received {
    const body = this.body ?? [];
    this.body = undefined;
    this.checksum = undefined;
    const sum = body.reduce((total, byte) => (total + byte) & 0xff, 0);
    if (sum !== Number.parseInt(checksum, 16) || body.length >= 2 * MAX_PACKET) return { kind: 'damaged' };
    const data: number[] = [];
    for (let i = 0; i < body.length; i++) {
      const byte = body[i] ?? 0;
      data.push(byte === ESCAPE ? (body[++i] ?? 0) ^ ESCAPED_BY : byte);
    }
    return { kind: 'packet', data: Uint8Array.from(data) };
  }
}

/** A packet with `data`, ready to be sent. */
export function frame(data: Uint8Array | string): Uint8Array {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  const out = [DOLLAR];
  for (const byte of bytes) {
    if (SPECIAL.has(byte)) out.push(ESCAPE, byte ^ ESCAPED_BY);
    else out.push(byte);
  }
  const sum = out.slice(1).reduce((total, byte) => (total + byte) & 0xff, 0);
  return Uint8Array.from([...out, HASH, ...new TextEncoder().encode(sum.toString(16).padStart(2, '0'))]);
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
/** Undefined: not an even number of hexadecimal digits. */
export function fromHex(text: string): Uint8Array | undefined {
  return text.length % 2 === 0 && /^[0-9a-f]*$/i.test(text) ? new Uint8Array(Buffer.from(text, 'hex')) : undefined;
}
