import { expect, test } from 'vitest';
import { Prng } from '../../tests/prng.ts';
import { decode, formatInsn } from '../decoder/index.ts';
import {
  DECODED_BYTES,
  DECODED_END,
  DECODED_IMM,
  DECODED_INSNS,
  DECODED_KEY,
  DECODED_RECORD,
  DECODED_RELATIVE,
  DECODED_STATE,
  MAX_BLOCK_INSNS,
  NO_KEY,
  REC_SIZE,
  RECORD_ARENA,
} from '../layout.ts';
import { RAM_BASE, RuntimeMachine } from '../testing/runtime-machine.ts';
import { writeRecord } from './record.ts';
import { learn } from './template.ts';

const COUNT = Number(process.env['TEMPLATE_COUNT'] ?? 60_000);
const SEED = BigInt(process.env['TEMPLATE_SEED'] ?? 1);
const PREFIXES = [0x66, 0xf2, 0xf3, 0x2e, 0x26, 0x36, 0x3e, 0x64, 0x65, 0x67, 0xf0, 0x40, 0x48, 0x4f];
const MAPS = [[], [], [0x0f], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]] as const;
/** Any number that stands for the handler. */
const HANDLER = 12287;
/** As if it were not the first of its block. */
const OFFSET = 37;
const INDEX = 9;
const RECORDS = RECORD_ARENA + 64 * REC_SIZE;
const CODE = RAM_BASE + 4096;

test(`templates make the records that the decoder makes (seed ${SEED})`, async () => {
  const { view, u8, memory, rt } = await RuntimeMachine.create();
  const u32 = new Uint32Array(memory.buffer);
  const rng = new Prng(SEED);
  /** Decodes by templates, from the instruction at CODE + OFFSET on; returns how many came of it. */
  const decodeKnown = () => {
    u32[DECODED_BYTES >>> 2] = OFFSET;
    u32[DECODED_INSNS >>> 2] = INDEX;
    u32[DECODED_RECORD >>> 2] = RECORDS;
    // What lay there before must not matter.
    u8.fill(0xcc, RECORDS, RECORDS + MAX_BLOCK_INSNS * REC_SIZE);
    rt.decodeKnown(CODE, 4096);
    return (u32[DECODED_INSNS >>> 2] ?? 0) - INDEX;
  };
  const wrong: string[] = [];
  let known = 0;
  let valid = 0;
  for (let n = 0; n < COUNT && wrong.length < 10; n++) {
    const prefixes = Array.from({ length: rng.below(3) * rng.below(3) }, () => PREFIXES[rng.below(PREFIXES.length)] ?? 0);
    const bytes = [...prefixes, ...(MAPS[rng.below(MAPS.length)] ?? []), ...Array.from({ length: 16 }, () => rng.below(256))];
    u8.set(bytes, CODE + OFFSET);
    const at = CODE + OFFSET;
    const insn = decode(u8, at, 15, 64);
    let count = decodeKnown();
    const key = u32[DECODED_KEY >>> 2] ?? 0;
    if (typeof insn !== 'string' && count === 0 && key !== NO_KEY) {
      learn({ u8, u32 }, key, insn, HANDLER);
      count = decodeKnown();
    }
    if (typeof insn === 'string') {
      if (count !== 0) wrong.push(`${bytes.map((b) => b.toString(16)).join(' ')}: ${insn}`);
      continue;
    }
    valid++;
    if (count === 0) continue;
    known++;
    const made = u8.slice(RECORDS, RECORDS + REC_SIZE).join();
    const name = `${bytes.map((b) => b.toString(16)).join(' ')}: ${formatInsn(insn, 0n)}`;
    writeRecord(view, RECORDS, insn, HANDLER, OFFSET, INDEX, 64);
    if (u8.slice(RECORDS, RECORDS + REC_SIZE).join() !== made) wrong.push(name);
    // What is said of the last instruction: when it is this one, it is known.
    if (count > 1) {
      if (insn.row.end === true) wrong.push(`${name}: does not end the block`);
      continue;
    }
    const state = u32[DECODED_STATE >>> 2] ?? 0;
    const isRelative = insn.operands.some((o) => o.kind === 'rel');
    if (((state & DECODED_END) !== 0) !== (insn.row.end === true) || ((state & DECODED_RELATIVE) !== 0) !== isRelative) wrong.push(`${name}: state ${state}`);
    if (isRelative && (u32[DECODED_IMM >>> 2] ?? 0) !== insn.immLow >>> 0) wrong.push(`${name}: goes elsewhere`);
    if (u32[DECODED_BYTES >>> 2] !== OFFSET + insn.length || u32[DECODED_RECORD >>> 2] !== RECORDS + REC_SIZE) wrong.push(`${name}: ends elsewhere`);
  }
  expect(wrong).toEqual([]);
  // Those with LOCK, VEX or an address size, of the x87, and the first of their kind are left to the decoder.
  expect(known / valid).toBeGreaterThan(0.5);
});
