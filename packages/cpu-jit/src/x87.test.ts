import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import asc from 'assemblyscript/asc';
import { beforeAll, describe, expect, it } from 'vitest';
import { differences, type Extended, type Outcome, RECORD_SIZE, readVector, type Vector, X87Unit } from '../tests/x87-replay.ts';
import { FRAME_POOL_BASE } from './layout.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
let unit: X87Unit;

beforeAll(async () => {
  let binary: Uint8Array<ArrayBuffer> | undefined;
  const pages = String(FRAME_POOL_BASE >> 16);
  const memory = ['--importMemory', '--sharedMemory', '--initialMemory', pages, '--maximumMemory', '65536', '--enable', 'threads,simd,bulk-memory'];
  const { error, stderr } = await asc.main(
    ['assembly/x87.ts', '--baseDir', root, '--outFile', 'x87.wasm', '--runtime', 'stub', '--use', 'abort=', '-O', ...memory],
    {
      readFile: (name, base) => {
        try {
          return readFileSync(`${base}/${name}`, 'utf8');
        } catch {
          return null;
        }
      },
      writeFile: (_name, contents) => {
        if (typeof contents !== 'string') binary = new Uint8Array(contents);
      },
    },
  );
  if (error !== null || binary === undefined) throw new Error(`assembly/x87.ts does not compile: ${stderr}`);
  unit = new X87Unit(new WebAssembly.Module(binary));
}, 60_000);

function vectors(name: string): Vector[] {
  const bytes = gunzipSync(readFileSync(`${root}tests/vectors/${name}.bin.gz`));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / RECORD_SIZE }, (_, i) => readVector(view, i * RECORD_SIZE));
}
const describeVector = (v: Vector): string =>
  `${v.escape.toString(16)} ${v.modrm.toString(16)} cw ${v.cw.toString(16)} st0 ${v.st0.s.toString(16)}:${v.st0.m.toString(16)} st1 ${v.st1.s.toString(16)}:${v.st1.m.toString(16)}`;

/** Position of a number among all 80-bit numbers, so that neighbours differ by one. */
function ordinal({ m, s }: Extended): bigint {
  const magnitude = (BigInt(s & 0x7fff) << 63n) + ((s & 0x7fff) === 0 ? m : m - (1n << 63n));
  return s & 0x8000 ? -magnitude : magnitude;
}
function ulps(a: Extended, b: Extended): number {
  const d = Number(ordinal(a) - ordinal(b));
  return Math.abs(d);
}

describe('x87 against vectors captured on real hardware', () => {
  it('does everything but the transcendental instructions bit for bit, exceptions and stack included', () => {
    const wrong: string[] = [];
    const all = vectors('x87-basic');
    for (const v of all) {
      const list = differences(unit.run(v), v.after);
      if (list.length !== 0) wrong.push(`${describeVector(v)}: ${list.join('; ')}`);
    }
    expect(all.length).toBeGreaterThanOrEqual(20_000);
    expect(wrong).toEqual([]);
  });

  const TRANSCENDENTAL = [
    ['f2xm1', 0xf0],
    ['fyl2x', 0xf1],
    ['fptan', 0xf2],
    ['fpatan', 0xf3],
    ['fyl2xp1', 0xf9],
    ['fsincos', 0xfb],
    ['fsin', 0xfe],
    ['fcos', 0xff],
  ] as const;
  const C1 = 0x200;
  it.each(TRANSCENDENTAL)('%s is within one unit in the last place, and equal nine times in ten', (_name, modrm) => {
    const wrong: string[] = [];
    const all = vectors('x87-transcendental').filter((v) => v.modrm === modrm);
    let equal = 0;
    for (const v of all) {
      const got: Outcome = unit.run(v);
      const want = v.after;
      const worst = Math.max(ulps(got.st0, want.st0), ulps(got.st1, want.st1));
      if (worst === 0) equal++;
      // C1 tells the direction of rounding, which may differ where the last bit may.
      if (worst > 1 || ((got.sw ^ want.sw) & ~C1) !== 0 || got.tags !== want.tags) wrong.push(`${describeVector(v)}: ${differences(got, want).join('; ')}`);
    }
    expect(wrong).toEqual([]);
    expect(equal / all.length).toBeGreaterThan(0.9);
  });
});
