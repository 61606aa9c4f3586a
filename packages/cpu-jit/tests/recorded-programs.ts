/** tests/vectors/programs.json.gz: random programs and where they ended on silicon. Written by tests/generate/programs.ts. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

export interface RecordedProgram {
  /** Of its initial state (randomMachine). */
  readonly seed: string;
  /** Code in hexadecimal, without the HLTs that fill the pages. */
  readonly code: string;
  readonly trap: number;
  readonly error: number;
  /** Numbers in hexadecimal. */
  readonly address: string;
  readonly rip: string;
  readonly flags: number;
  readonly mxcsr: number;
  readonly gprs: readonly string[];
  readonly xmm: string;
  /** Registers by number, control and status word, TOP, in-use bits: as `Outcome.x87`. */
  readonly x87: string;
  /** Digest of data, stack and code. */
  readonly memory: string;
}

export const RECORDED_PROGRAMS = new URL('./vectors/programs.json.gz', import.meta.url);

export function readPrograms(): RecordedProgram[] {
  return JSON.parse(gunzipSync(readFileSync(RECORDED_PROGRAMS)).toString()) as RecordedProgram[];
}

/** Where a run ended, as interpreters, compiled code and the native harness can all tell it. */
interface End {
  readonly error: number;
  readonly address: bigint;
  readonly rip: bigint;
  readonly flags: number;
  readonly mxcsr: number;
  readonly gprs: readonly bigint[];
  readonly xmm: Uint8Array;
  readonly x87: Uint8Array;
  readonly data: Uint8Array;
  readonly stack: Uint8Array;
  readonly code: Uint8Array;
}

const STATUS_AND_DIRECTION = 0xcd5;

export function describeEnd(trap: number, end: End): Omit<RecordedProgram, 'seed' | 'code'> {
  const memory = createHash('sha256').update(end.data).update(end.stack).update(end.code).digest('hex').slice(0, 16);
  return {
    trap,
    error: end.error,
    address: end.address.toString(16),
    rip: end.rip.toString(16),
    flags: end.flags & STATUS_AND_DIRECTION,
    mxcsr: end.mxcsr,
    gprs: end.gprs.map((v) => v.toString(16)),
    xmm: Buffer.from(end.xmm).toString('hex'),
    x87: Buffer.from(end.x87).toString('hex'),
    memory,
  };
}

/** x87 state of a native run, an FXSAVE image, in the form of `Outcome.x87`: registers are by number there, not by place in the stack. */
export function x87ByNumber(image: Uint8Array): Uint8Array {
  const status = (image[2] ?? 0) | ((image[3] ?? 0) << 8);
  const top = (status >> 11) & 7;
  const out = new Uint8Array(128 + 8);
  for (let i = 0; i < 8; i++) out.set(image.subarray(32 + i * 16, 42 + i * 16), ((top + i) & 7) * 16);
  const plain = status & ~0x3800;
  out.set([image[0] ?? 0, image[1] ?? 0, plain & 0xff, plain >> 8, top, 0, image[4] ?? 0, 0], 128);
  return out;
}
