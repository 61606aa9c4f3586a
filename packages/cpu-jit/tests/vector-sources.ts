/** All files of recorded vectors: which instructions they show, for the statistics of what is covered. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { CodeSize } from '../src/decoder/index.ts';
import { AVX_MODES_VECTORS, AVX_VECTORS, readAvxVectors } from './avx-vectors.ts';
import { readIntegerVectors } from './integer-vectors.ts';
import { SILICON_FILES } from './silicon-parts.ts';
import { readSiliconVectors, vectorFile } from './silicon-vectors.ts';
import { readVectors } from './sse-vectors.ts';
import { RECORD_SIZE, readVector } from './x87-replay.ts';

/** An instruction, or a few that follow one another, and how many inputs it was run with. */
export interface Recorded {
  readonly code: Uint8Array;
  readonly cases: number;
}
/** A file of vectors. Whoever adds one lists it here, so that the coverage test sees what it covers. */
export interface VectorSource {
  readonly file: string;
  /** Of the code in it. */
  readonly codeSize: CodeSize;
  read(): Recorded[];
}

const url = (file: string) => new URL(`./vectors/${file}`, import.meta.url);
const MMX_RECORD = 80;

/** Length, code, then the inputs: see tests/native/mmx-vectors.c. */
function readMmx(): Recorded[] {
  const bytes = gunzipSync(readFileSync(url('mmx.bin.gz')));
  return Array.from({ length: bytes.length / MMX_RECORD }, (_, i) => {
    const at = i * MMX_RECORD;
    return { code: bytes.subarray(at + 1, at + 1 + (bytes[at] ?? 0)), cases: 1 };
  });
}
/** Escape and ModRM; memory operands are [register]. */
function readX87(file: string): Recorded[] {
  const bytes = gunzipSync(readFileSync(url(file)));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / RECORD_SIZE }, (_, i) => {
    const v = readVector(view, i * RECORD_SIZE);
    return { code: Uint8Array.of(v.escape, v.modrm < 0xc0 ? v.modrm & 0x38 : v.modrm), cases: 1 };
  });
}

export const VECTOR_SOURCES: readonly VectorSource[] = [
  ...SILICON_FILES.map(
    ({ mode, part }): VectorSource => ({
      file: `${part.file}.bin.br`,
      codeSize: mode.codeSize,
      read: () => readSiliconVectors(mode, vectorFile(part.file)).map(({ instance, count }) => ({ code: instance.code, cases: count })),
    }),
  ),
  { file: 'integer.bin.gz', codeSize: 64, read: () => readIntegerVectors(url('integer.bin.gz')).map(({ code, cases }) => ({ code, cases: cases.length })) },
  { file: 'sse.bin.gz', codeSize: 64, read: () => readVectors(url('sse.bin.gz')).map(({ code, cases }) => ({ code, cases: cases.length })) },
  { file: 'avx.bin.gz', codeSize: 64, read: () => readAvxVectors(AVX_VECTORS).map(({ code, cases }) => ({ code, cases: cases.length })) },
  { file: 'avx-modes.bin.gz', codeSize: 64, read: () => readAvxVectors(AVX_MODES_VECTORS).map(({ code, cases }) => ({ code, cases: cases.length })) },
  { file: 'mmx.bin.gz', codeSize: 64, read: readMmx },
  { file: 'x87-basic.bin.gz', codeSize: 64, read: () => readX87('x87-basic.bin.gz') },
  { file: 'x87-transcendental.bin.gz', codeSize: 64, read: () => readX87('x87-transcendental.bin.gz') },
];
