/**
 * Builder for AML byte code (ACPI 6.4, chapter 20). Each function returns the encoding of one term; a table's body is the
 * concatenation of its terms.
 */
export type Aml = readonly number[];

const ZERO_OP = 0x00;
const ONE_OP = 0x01;
const NAME_OP = 0x08;
const BYTE_PREFIX = 0x0a;
const WORD_PREFIX = 0x0b;
const DWORD_PREFIX = 0x0c;
const STRING_PREFIX = 0x0d;
const SCOPE_OP = 0x10;
const BUFFER_OP = 0x11;
const PACKAGE_OP = 0x12;
const EXT_OP = 0x5b;
const DEVICE_OP = 0x82;
const ROOT = 0x5c;

/** Name path such as `\_SB` or `PCI0`: one segment, with or without the root prefix. */
function nameString(name: string): Aml {
  const rooted = name.startsWith('\\');
  const segment = (rooted ? name.slice(1) : name).padEnd(4, '_');
  if (!/^[A-Z_][A-Z0-9_]{3}$/.test(segment)) throw new RangeError(`AML name segment expected, got ${name}`);
  return [...(rooted ? [ROOT] : []), ...ascii(segment)];
}

/** PkgLength counts itself (20.2.4). */
function packageLength(body: number): Aml {
  if (body + 1 < 0x40) return [body + 1];
  for (let extra = 1; extra <= 3; extra++) {
    const total = body + 1 + extra;
    if (total >= 2 ** (4 + 8 * extra)) continue;
    return [(extra << 6) | (total & 0xf), ...Array.from({ length: extra }, (_, i) => (total >> (4 + 8 * i)) & 0xff)];
  }
  throw new RangeError(`AML package of ${body} bytes is too long`);
}

function sized(op: Aml, body: Aml): Aml {
  return [...op, ...packageLength(body.length), ...body];
}

/** Integer, in its shortest encoding. */
export function integer(value: number): Aml {
  if (value === 0) return [ZERO_OP];
  if (value === 1) return [ONE_OP];
  if (value <= 0xff) return [BYTE_PREFIX, value];
  if (value <= 0xffff) return [WORD_PREFIX, ...le(value, 2)];
  return [DWORD_PREFIX, ...le(value, 4)];
}

export function string(text: string): Aml {
  return [STRING_PREFIX, ...ascii(text), 0];
}

export function name(path: string, value: Aml): Aml {
  return [NAME_OP, ...nameString(path), ...value];
}

export function scope(path: string, terms: readonly Aml[]): Aml {
  return sized([SCOPE_OP], [...nameString(path), ...terms.flat()]);
}

export function device(path: string, terms: readonly Aml[]): Aml {
  return sized([EXT_OP, DEVICE_OP], [...nameString(path), ...terms.flat()]);
}

export function pkg(elements: readonly Aml[]): Aml {
  return sized([PACKAGE_OP], [elements.length, ...elements.flat()]);
}

/** Compressed EISA identifier such as PNP0A03. */
export function eisaId(id: string): Aml {
  const [a, b, c] = [0, 1, 2].map((i) => id.charCodeAt(i) - 0x40) as [number, number, number];
  const vendor = (a << 10) | (b << 5) | c;
  const product = Number.parseInt(id.slice(3), 16);
  return [DWORD_PREFIX, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff];
}

/** Buffer of resource descriptors, closed by an end tag (6.4). */
export function resourceTemplate(descriptors: readonly Aml[]): Aml {
  const bytes = [...descriptors.flat(), 0x79, 0x00];
  return sized([BUFFER_OP], [...integer(bytes.length), ...bytes]);
}

/** I/O ports, 16-bit decode (6.4.2.5). */
export function ioPorts(base: number, length: number): Aml {
  return [0x47, 0x01, ...le(base, 2), ...le(base, 2), 0x01, length];
}

/** ISA interrupt, edge triggered (6.4.2.1). */
export function isaIrq(irq: number): Aml {
  return [0x22, ...le(1 << irq, 2)];
}

/** Memory at a fixed place, writable (6.4.3.4). */
export function memory32Fixed(base: number, length: number): Aml {
  return [0x86, ...le(9, 2), 0x01, ...le(base, 4), ...le(length, 4)];
}

/** A global system interrupt, level or edge triggered, active high, exclusive, consumer (6.4.3.6). */
export function interrupt(gsi: number, level: boolean): Aml {
  return [0x89, ...le(6, 2), level ? 0x01 : 0x03, 1, ...le(gsi, 4)];
}

/** Window of bus numbers that a bridge produces (6.4.3.5.3). */
export function busNumbers(first: number, last: number): Aml {
  return [0x88, ...le(13, 2), 2, 0x0c, 0, ...[0, first, last, 0, last - first + 1].flatMap((v) => le(v, 2))];
}

/** Window of I/O ports that a bridge produces, whole range. */
export function ioWindow(first: number, last: number): Aml {
  return [0x88, ...le(13, 2), 1, 0x0c, 3, ...[0, first, last, 0, last - first + 1].flatMap((v) => le(v, 2))];
}

/** Window of 32-bit memory that a bridge produces, uncached and writable (6.4.3.5.2). */
export function memoryWindow(first: number, last: number): Aml {
  return [0x87, ...le(23, 2), 0, 0x0c, 1, ...[0, first, last, 0, last - first + 1].flatMap((v) => le(v, 4))];
}

/** Little-endian bytes. */
export function le(value: number, size: number): Aml {
  return Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
}

function ascii(text: string): Aml {
  return [...text].map((c) => c.charCodeAt(0));
}
