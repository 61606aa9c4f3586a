/**
 * Compare which bytes are instructions with this machine's CPU: each random instruction runs once in user mode, and raises #UD or not.
 *
 *   node -C source scripts/decoder-vs-silicon.ts [instructions=300000] [seed=1]
 *
 * Needs gcc. 64-bit code. Prints the disagreements grouped by mnemonic, a few examples each; exit status 1 when there are any.
 */
import { decode, formatInsn, type Insn, rows } from '../src/decoder/index.ts';
import { Native, type NativeCase } from '../tests/native-run.ts';
import { CODE, DATA, STACK_TOP } from '../tests/program.ts';
import { randomCode } from './objdump/stream.ts';

const [wanted = 300_000, seed = 1] = process.argv.slice(2, 4).map(Number);
const UD = 6;
const AT = 0x2000;
const HLT = 0xf4;
const BATCH = 4000;
const PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

/** Not tried: enter the kernel or the hypervisor below it, or take away what the harness needs. Branches are left out too. */
const DANGEROUS = new Set('syscall sysenter int int1 int3 vmcall vmmcall wrpkru xrstor xrstors wrfsbase wrgsbase mov_seg_r pop_seg lss lfs lgs'.split(' '));
/** #UD because of privilege or because the feature is off, not because of the bytes. */
const UNDEFINED_HERE = /^(vm|inve?pt|invvpid|stgi|clgi|skinit|invlpga|stac|clac|monitor|mwait|rsm|ud\d|x(save|rstor)s$|senduipi)/;
/** VEX, EVEX, XOP; beside them XBEGIN, XABORT and PTWRITE are left out. */
const OTHER_SETS = [0xc4, 0xc5, 0x62, 0x8f];

const native = Native.create();
if (native === undefined) throw new Error('gcc is needed to run instructions natively');

/** Whether bytes that are no instruction of ours belong to another instruction set. */
function isOther(bytes: Uint8Array): boolean {
  const opcodeAt = bytes.findIndex((b) => !PREFIXES.includes(b) && (b & 0xf0) !== 0x40);
  const [opcode = 0, modrm = 0] = bytes.subarray(opcodeAt);
  const isPtwrite = opcode === 0x0f && modrm === 0xae && bytes.includes(0xf3) && ((bytes[opcodeAt + 2] ?? 0) & 0x38) === 0x20;
  return OTHER_SETS.includes(opcode) || ((opcode & 0xfe) === 0xc6 && modrm === 0xf8) || isPtwrite;
}

interface Trial {
  readonly bytes: Uint8Array;
  readonly insn: Insn | 'ud';
}
/** The instructions of a stream, each also behind a prefix that it may not want. */
function* trials(code: Uint8Array, batch: number): Generator<Trial> {
  for (let at = 0; at + 16 < code.length; ) {
    const own = code.subarray(at, at + 14);
    const first = decode(code, at, 15, 64);
    at += typeof first === 'string' ? 1 : first.length;
    const prefix = [0x66, 0xf2, 0xf3][(at + batch) % 3] ?? 0x66;
    for (const bytes of [code.slice(at, at + 15), Uint8Array.of(prefix, ...own)]) {
      const insn = decode(bytes, 0, 15, 64);
      if (insn === 'gp' || insn === 'fetch') continue;
      if (insn === 'ud' ? isOther(bytes) : DANGEROUS.has(insn.row.name) || insn.row.end === true || UNDEFINED_HERE.test(insn.row.name)) continue;
      yield { bytes: insn === 'ud' ? bytes : bytes.subarray(0, insn.length), insn };
    }
  }
}
function caseOf({ bytes }: Trial): NativeCase {
  const code = new Uint8Array(32).fill(HLT);
  code.set(bytes);
  const gprs = Array.from({ length: 16 }, (_, n) => BigInt(n === 4 ? STACK_TOP : DATA + 0x800));
  return { gprs, flags: 0, mxcsr: 0x1f80, xmm: new Uint8Array(256), code, codeAt: AT, data: new Uint8Array(8), dataAt: 0 };
}

const found = new Map<string, { count: number; examples: string[] }>();
let compared = 0;
let undefinedOnBoth = 0;
for (let batch = 0; compared < wanted; batch++) {
  let list: Trial[] = [];
  const run = () => {
    for (const [i, r] of native.run(list.map(caseOf)).entries()) {
      const trial = list[i];
      if (trial === undefined) continue;
      compared++;
      const isUndefined = r.trap === UD && r.rip === BigInt(CODE + AT);
      if (isUndefined && trial.insn === 'ud') undefinedOnBoth++;
      if (isUndefined === (trial.insn === 'ud')) continue;
      const kind = trial.insn === 'ud' ? 'ours #UD, silicon runs it' : `silicon #UD, ours ${trial.insn.row.name}`;
      const entry = found.get(kind) ?? { count: 0, examples: [] };
      entry.count++;
      if (entry.examples.length < 5)
        entry.examples.push(`${Buffer.from(trial.bytes).toString('hex')} ${trial.insn === 'ud' ? `trap ${r.trap}` : formatInsn(trial.insn)}`);
      found.set(kind, entry);
    }
    list = [];
  };
  for (const trial of trials(randomCode(seed * 10_000 + batch, 20_000, 64), batch)) {
    list.push(trial);
    if (list.length === BATCH) run();
  }
  run();
}
native.dispose();
console.log(`seed ${seed}: ${compared} instructions of ${rows.length} rows run, ${undefinedOnBoth} of them undefined on both`);
for (const [kind, { count, examples }] of [...found].sort((a, b) => b[1].count - a[1].count)) {
  console.log(`${count} x ${kind}`);
  for (const example of examples) console.log(`      ${example}`);
}
process.exitCode = found.size === 0 ? 0 : 1;
