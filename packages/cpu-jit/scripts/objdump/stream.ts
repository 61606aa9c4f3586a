/** Random machine code that starts like instructions of the tables more often than chance would have it. */
import { type CodeSize, type Row, rows } from '../../src/decoder/index.ts';

/** Marsaglia's xorshift32: the same bytes for the same seed. */
class Random {
  private state: number;
  constructor(seed: number) {
    this.state = Math.imul(seed, 0x9e37_79b9) | 1;
  }
  below(limit: number): number {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    return (this.state >>> 0) % limit;
  }
}

const LEGACY_PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3];
const MANDATORY = { np: [], nfx: [], '66': [0x66], f3: [0xf3], f2: [0xf2] } as const;
const ESCAPES = { '1': [], x87: [], '0f': [0x0f], '0f38': [0x0f, 0x38], '0f3a': [0x0f, 0x3a] } as const;

/** Bytes that start like an instruction of this row, followed by random ones. */
function instance(row: Row, codeSize: CodeSize, random: (below: number) => number): number[] {
  const bytes: number[] = [];
  if (random(8) === 0) bytes.push(LEGACY_PREFIXES[random(LEGACY_PREFIXES.length)] ?? 0x66);
  if (row.lock && random(4) === 0) bytes.push(0xf0);
  if (row.vex) {
    const map = row.map === '0f38' ? 2 : row.map === '0f3a' ? 3 : 1;
    const pp = { np: 0, nfx: 0, '66': 1, f3: 2, f2: 3 }[row.pfx ?? 'np'];
    // Now and then W, L and VEX.vvvv as the row does not have them; in 16- and 32-bit code R and X set, or it would be LES or LDS.
    const right = random(8) !== 0;
    const w = right && row.w !== undefined ? row.w : random(2);
    const l = right && row.l !== undefined ? row.l : random(2);
    const vvvv = right && !row.operands.some((o) => /^[BH]/.test(o)) ? 15 : random(16);
    const rxb = codeSize === 64 ? random(8) : 6 | random(2);
    const last = (vvvv << 3) | (l << 2) | pp;
    if (map === 1 && random(2) === 0) bytes.push(0xc5, (codeSize === 64 ? random(2) << 7 : 0x80) | (codeSize === 64 ? last : last | 0x40));
    else bytes.push(0xc4, (rxb << 5) | map, (w << 7) | last);
  } else {
    bytes.push(...MANDATORY[row.pfx ?? 'np']);
    if (codeSize === 64 && (row.w !== undefined || random(3) === 0)) bytes.push(0x40 | ((row.w ?? random(2)) << 3) | random(8));
    bytes.push(...ESCAPES[row.map]);
  }
  bytes.push(row.operands.some((o) => o.startsWith('Z')) ? row.op + random(8) : row.op);
  const mod = row.mod === 'reg' ? 3 : row.mod === 'mem' ? random(3) : random(4);
  bytes.push((mod << 6) | ((row.ext ?? random(8)) << 3) | (row.rm ?? random(8)));
  for (let i = random(12); i > 0; i--) bytes.push(random(256));
  return bytes;
}

/** Code made of `pieces` beginnings of instructions; one in ten is random bytes only. */
export function randomCode(seed: number, pieces: number, codeSize: CodeSize): Uint8Array {
  const rng = new Random(seed);
  const random = (below: number) => rng.below(below);
  const stream: number[] = [];
  for (let i = 0; i < pieces; i++) {
    const row = rows[random(rows.length)];
    if (row !== undefined && random(10) !== 0) for (const byte of instance(row, codeSize, random)) stream.push(byte);
    else for (let n = 1 + random(15); n > 0; n--) stream.push(random(256));
  }
  return Uint8Array.from(stream);
}
