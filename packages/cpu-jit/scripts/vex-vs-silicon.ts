/**
 * Compare which VEX encodings are undefined with this machine's CPU: every form with W, L and VEX.vvvv as it has them and as it has not,
 * and after prefixes that VEX refuses.
 *
 *   node -C source scripts/vex-vs-silicon.ts
 *
 * Needs gcc and a CPU with AVX2, FMA and F16C. Prints the encodings that one takes and the other does not; exit status 1 when there are any
 * but those of VAES and VPCLMULQDQ on 256 bits, which the tables do not have and newer processors do.
 */
import { decode, forms } from '../src/decoder/index.ts';
import { encode } from '../tests/encoder.ts';
import { Native, type NativeCase } from '../tests/native-run.ts';
import { CODE, DATA } from '../tests/program.ts';
import { START, WINDOW, WINDOW_BYTES } from '../tests/window.ts';

const UD = 6;
const REFUSED_PREFIXES = [0x66, 0xf2, 0xf3, 0xf0, 0x48];
/** Changes of the last byte of the VEX prefix: W, L, single bits of vvvv. */
const CHANGES = [0, 0x80, 4, 0x84, 0x08, 0x88, 0x0c, 0x40];
const ABSENT = new Set('vaesenc vaesenclast vaesdec vaesdeclast vpclmulqdq'.split(' '));

const native = Native.create();
if (native === undefined) throw new Error('gcc is needed to run instructions natively');
const probes: { name: string; code: Uint8Array }[] = [];
for (const form of forms(64)) {
  const { name } = form.row;
  if (form.row.vex !== true) continue;
  const index = form.operands.some((o) => o.field === 'vsib') ? 4 : -1;
  const { bytes } = encode(form, { reg: 1, rm: 3, vvvv: 2, mem: form.isMem ? { base: 7, index, scale: 0, disp: 0 } : null, imm: 0n });
  const last = bytes.indexOf(0xc4) + 2;
  for (const change of CHANGES) probes.push({ name, code: bytes.map((byte, i) => (i === last ? byte ^ change : byte)) });
  for (const prefix of REFUSED_PREFIXES) probes.push({ name, code: Uint8Array.from([prefix, ...bytes]) });
}
const results = native.run(
  probes.map(({ code }): NativeCase => {
    const gprs = new Array<bigint>(16).fill(BigInt(WINDOW));
    return { gprs, flags: 2, mxcsr: 0x1f80, xmm: new Uint8Array(256), code, codeAt: START - CODE, data: new Uint8Array(WINDOW_BYTES), dataAt: WINDOW - DATA };
  }),
);
native.dispose();
let differences = 0;
for (const [i, { name, code }] of probes.entries()) {
  const bytes = new Uint8Array(16);
  bytes.set(code);
  const ours = typeof decode(bytes, 0, 16, 64) === 'string';
  const theirs = results[i]?.trap === UD;
  if (ours === theirs || (ours && ABSENT.has(name))) continue;
  differences++;
  process.stdout.write(`${Buffer.from(code).toString('hex')} (${name}): #UD ${ours ? 'here only' : 'on silicon only'}\n`);
}
process.stdout.write(`${probes.length} encodings compared, ${differences} differences\n`);
process.exitCode = differences === 0 ? 0 : 1;
