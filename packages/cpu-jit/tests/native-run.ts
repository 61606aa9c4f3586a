/** Runs cases on this machine's CPU through tests/native/harness.c. Needs gcc; only for making vectors and for the fuzzer. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CodeMode, LDT, LONG_MODE, userDescriptor } from './code-modes.ts';
import { CODE, CODE_BYTES, DATA_BYTES, STACK_BYTES } from './program.ts';

export interface NativeState {
  readonly gprs: readonly bigint[];
  readonly flags: number;
  readonly mxcsr: number;
  readonly xmm: Uint8Array;
  /** Bits 255:128 of the ymm registers; absent: zero. */
  readonly high?: Uint8Array;
}
export interface NativeCase extends NativeState {
  /** The first 160 bytes of an FXSAVE image (MXCSR is not looked at); absent: the state after FNINIT. */
  readonly x87?: Uint8Array;
  readonly code: Uint8Array;
  /** Offset of the code in the code pages; it starts there. */
  readonly codeAt: number;
  readonly data: Uint8Array;
  readonly dataAt: number;
  /** The kind of code; absent: 64-bit. */
  readonly mode?: CodeMode;
}
export interface NativeResult extends NativeState {
  /** Exception vector that ended it (13 at a HLT), 255: it ran for a second. */
  readonly trap: number;
  readonly error: number;
  readonly address: bigint;
  /** Relative to the base of CS. */
  readonly rip: bigint;
  readonly cs: number;
  readonly ss: number;
  readonly x87: Uint8Array;
  /** Of ES, DS, FS, GS. */
  readonly selectors: readonly number[];
  readonly fsBase: bigint;
  readonly gsBase: bigint;
  readonly data: Uint8Array;
  /** Only for cases that give all data pages. */
  readonly stack: Uint8Array;
  readonly code: Uint8Array;
}

const XMM = 17 * 8 + 8;
const X87 = XMM + 256;
export const X87_BYTES = 160;
const SELECTORS = X87 + X87_BYTES;
const BASES = SELECTORS + 8;
const HIGH = BASES + 16;
const STATE_BYTES = HIGH + 256;
/** x87 control word after FNINIT. */
const INITIAL_CW = 0x37f;
const HEADER_BYTES = 32;
const RESULT_BYTES = 32;

/** The compiled harness; undefined where gcc is missing. */
export class Native {
  private readonly folder: string;
  private readonly path: string;

  static create(): Native | undefined {
    const native = new Native();
    const source = fileURLToPath(new URL('./native/harness.c', import.meta.url));
    const built = spawnSync('gcc', ['-O1', '-fno-stack-protector', '-o', native.path, source], { encoding: 'utf8' });
    if (built.status === 0 && existsSync(native.path)) return native;
    native.dispose();
    return undefined;
  }
  private constructor() {
    this.folder = mkdtempSync(join(tmpdir(), 'pvm-native-'));
    this.path = join(this.folder, 'harness');
  }
  dispose(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Runs all cases in one process. Throws `Error` when the harness fails. */
  run(cases: readonly NativeCase[]): NativeResult[] {
    const input = Buffer.concat([Uint8Array.of(LDT.length, 0, 0, 0), ...LDT.map(userDescriptor), ...cases.map(pack)]);
    const output = spawnSync(this.path, [], { input, maxBuffer: 1 << 30 });
    if (output.status !== 0) throw new Error(`the native harness ended with ${output.status ?? output.signal ?? 'nothing'}: ${output.stderr.toString()}`);
    const bytes = new Uint8Array(output.stdout);
    let at = 0;
    return cases.map((c) => {
      const r = unpack(bytes, at, c.data.length);
      at += RESULT_BYTES + STATE_BYTES + c.data.length + r.stack.length + r.code.length;
      return r;
    });
  }
}

function pack(c: NativeCase): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + STATE_BYTES + c.code.length + c.data.length);
  const view = new DataView(out.buffer);
  const { segments } = c.mode ?? LONG_MODE;
  const [es, cs, ss, ds, fs, gs] = segments;
  [c.code.length, c.codeAt, c.data.length, c.dataAt, CODE + c.codeAt - cs.base].forEach((v, i) => {
    view.setUint32(i * 4, v, true);
  });
  [cs, ss, es, ds, fs, gs].forEach(({ selector }, i) => {
    view.setUint16(20 + i * 2, selector, true);
  });
  const state = HEADER_BYTES;
  c.gprs.forEach((v, i) => {
    view.setBigUint64(state + i * 8, v, true);
  });
  view.setBigUint64(state + 128, BigInt(c.flags), true);
  view.setUint32(state + 136, c.mxcsr, true);
  out.set(c.xmm, state + XMM);
  if (c.high !== undefined) out.set(c.high, state + HIGH);
  if (c.x87 === undefined) view.setUint16(state + X87, INITIAL_CW, true);
  else out.set(c.x87, state + X87);
  out.set(c.code, state + STATE_BYTES);
  out.set(c.data, state + STATE_BYTES + c.code.length);
  return out;
}

function unpack(bytes: Uint8Array, at: number, dataLength: number): NativeResult {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at);
  const state = RESULT_BYTES;
  const whole = dataLength === DATA_BYTES;
  const data = at + RESULT_BYTES + STATE_BYTES;
  const stack = data + dataLength;
  const code = stack + (whole ? STACK_BYTES : 0);
  return {
    trap: view.getUint32(0, true),
    error: view.getUint32(4, true),
    address: view.getBigUint64(8, true),
    rip: view.getBigUint64(16, true),
    cs: view.getUint16(24, true),
    ss: view.getUint16(26, true),
    gprs: Array.from({ length: 16 }, (_, n) => view.getBigUint64(state + n * 8, true)),
    flags: Number(view.getBigUint64(state + 128, true)),
    mxcsr: view.getUint32(state + 136, true),
    xmm: bytes.slice(at + state + XMM, at + state + X87),
    high: bytes.slice(at + state + HIGH, at + state + HIGH + 256),
    x87: bytes.slice(at + state + X87, at + state + SELECTORS),
    selectors: [0, 1, 2, 3].map((n) => view.getUint16(state + SELECTORS + n * 2, true)),
    fsBase: view.getBigUint64(state + BASES, true),
    gsBase: view.getBigUint64(state + BASES + 8, true),
    data: bytes.slice(data, stack),
    stack: bytes.slice(stack, code),
    code: bytes.slice(code, code + (whole ? CODE_BYTES : 0)),
  };
}
