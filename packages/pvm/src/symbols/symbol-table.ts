import { PvmError } from '../errors.ts';

/** A named address. */
export interface NamedAddress {
  readonly address: bigint;
  /** Bytes; 0: not known, the name goes on to the next symbol. */
  readonly size: bigint;
  readonly name: string;
}

/** Symbols further from an address than this are not its name, bytes. */
const MAX_OFFSET = 2n ** 20n;

/** Names for addresses of one image. */
export class SymbolTable {
  private readonly symbols: readonly NamedAddress[];
  private readonly byName: ReadonlyMap<string, bigint>;

  /** An ELF that may be loaded anywhere (ET_DYN): its addresses begin at 0. */
  readonly positionIndependent: boolean;

  constructor(symbols: readonly NamedAddress[], positionIndependent = false) {
    this.positionIndependent = positionIndependent;
    this.byName = new Map(symbols.map((s) => [s.name, s.address]));
    // Of several names of one address the first one that has a size: that is the function, others are labels.
    const sorted = [...symbols].sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : Number(b.size > 0n) - Number(a.size > 0n)));
    this.symbols = sorted.filter((s, i) => s.address !== sorted[i - 1]?.address);
  }

  get length(): number {
    return this.symbols.length;
  }

  address(name: string): bigint | undefined {
    return this.byName.get(name);
  }

  /** `name+0xoffset` of the symbol that `address` lies in. */
  find(address: bigint): string | undefined {
    let [low, high] = [0, this.symbols.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.symbols[middle]?.address ?? 0n) <= address) low = middle + 1;
      else high = middle;
    }
    const symbol = this.symbols[low - 1];
    if (symbol === undefined) return undefined;
    const offset = address - symbol.address;
    if (offset >= (symbol.size > 0n ? symbol.size : MAX_OFFSET)) return undefined;
    return offset === 0n ? symbol.name : `${symbol.name}+0x${offset.toString(16)}`;
  }
}

/**
 * Reads symbols from an ELF64 image, or from the text of System.map or /proc/kallsyms (`address type name [module]`).
 *
 * @param name how messages call the file
 * @throws PvmError `no-symbols` when it is neither, or has none
 */
export function parseSymbols(file: Uint8Array, name: string): SymbolTable {
  const isElf = file[0] === 0x7f && file[1] === 0x45 && file[2] === 0x4c && file[3] === 0x46;
  const symbols = isElf ? elfSymbols(file) : mapSymbols(new TextDecoder().decode(file));
  if (symbols.length > 0) return new SymbolTable(symbols, isElf && file[16] === ET_DYN);
  throw new PvmError(
    'no-symbols',
    isElf ? `${name}: the ELF has no symbol table (stripped?)` : `${name}: no symbols; expected System.map, the text of /proc/kallsyms or an ELF64`,
  );
}

/** Types of `nm` that name code: text, weak, in either case. */
const CODE_TYPES = 'tTwW';

function mapSymbols(text: string): NamedAddress[] {
  const found: NamedAddress[] = [];
  for (const [, address = '', type = '', name = ''] of text.matchAll(/^([0-9a-f]{8,16}) ([a-zA-Z]) (\S+)/gm)) {
    // Without privileges /proc/kallsyms shows zeros.
    if (CODE_TYPES.includes(type) && !/^0+$/.test(address)) found.push({ address: BigInt(`0x${address}`), size: 0n, name });
  }
  return found;
}

// ELF-64 Object File Format 1.5, sections 3 and 5.
const ELFCLASS64 = 2;
const ET_DYN = 3;
const SHDR_SIZE = 64;
const SYM_SIZE = 24;
const SHT_SYMTAB = 2;
const SHT_DYNSYM = 11;
const SHF_EXECINSTR = 4n;
const SHN_UNDEF = 0;
const SHN_LORESERVE = 0xff00;
const STT_NOTYPE = 0;
const STT_FUNC = 2;
const STT_GNU_IFUNC = 10;

interface Section {
  readonly type: number;
  readonly flags: bigint;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
}

/** Functions and labels in executable sections; nothing when the tables do not fit into the file. */
function elfSymbols(file: Uint8Array): NamedAddress[] {
  if (file.length < 64 || file[4] !== ELFCLASS64) return [];
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const sections = elfSections(view);
  const table = sections.find((s) => s.type === SHT_SYMTAB) ?? sections.find((s) => s.type === SHT_DYNSYM);
  const strings = sections[table?.link ?? -1];
  if (table === undefined || strings === undefined || table.offset + table.size > file.length || strings.offset + strings.size > file.length) return [];
  const names = file.subarray(strings.offset, strings.offset + strings.size);
  const found: NamedAddress[] = [];
  for (let at = table.offset; at + SYM_SIZE <= table.offset + table.size; at += SYM_SIZE) {
    const type = view.getUint8(at + 4) & 15;
    const section = view.getUint16(at + 6, true);
    if (section === SHN_UNDEF || section >= SHN_LORESERVE || ![STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC].includes(type)) continue;
    if (((sections[section]?.flags ?? 0n) & SHF_EXECINSTR) === 0n) continue;
    const name = stringAt(names, view.getUint32(at, true));
    if (name !== '') found.push({ address: view.getBigUint64(at + 8, true), size: view.getBigUint64(at + 16, true), name });
  }
  return found;
}

function elfSections(view: DataView): Section[] {
  const start = Number(view.getBigUint64(40, true));
  const count = view.getUint16(60, true);
  if (view.getUint16(58, true) !== SHDR_SIZE || start + count * SHDR_SIZE > view.byteLength) return [];
  return Array.from({ length: count }, (_, i) => {
    const at = start + i * SHDR_SIZE;
    return {
      type: view.getUint32(at + 4, true),
      flags: view.getBigUint64(at + 8, true),
      offset: Number(view.getBigUint64(at + 24, true)),
      size: Number(view.getBigUint64(at + 32, true)),
      link: view.getUint32(at + 40, true),
    };
  });
}

function stringAt(strings: Uint8Array, offset: number): string {
  const end = strings.indexOf(0, offset);
  return end < 0 ? '' : new TextDecoder().decode(strings.subarray(offset, end));
}
