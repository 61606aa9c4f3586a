// Decodes the instructions of 64-bit code that are like others before. The decoder proper is TypeScript (src/decoder), which takes several microseconds an instruction
// until V8 has optimised it; what it finds out about one instruction is kept as a template by what decides that: opcode, ModRM.reg, REX.W, mandatory prefix.
import {
  DECODE_OPCODES, DECODE_TEMPLATES, DECODED_BYTES, DECODED_END, DECODED_IMM, DECODED_INSNS, DECODED_KEY, DECODED_RECORD, DECODED_RELATIVE, DECODED_STATE, FILE_BYTE, FILE_GPR,
  FILE_MMX, FILE_XMM, IMM_64, IMM_S16, IMM_S32, IMM_S8, IMM_U16, IMM_U8, MAX_BLOCK_INSNS, NO_KEY, OPCODE_MODRM, R_BASE, R_DISP, R_HANDLER, R_IDX, R_IMM, R_INDEX,
  R_LEN, R_OFF, R_REG, R_RM, R_SCALE, R_SEG, REC_SIZE, S_BLOCK_RIP, S_GPR, S_SEG, S_X87, S_XMM, S_ZERO, SEG_BASE, SEG_STRIDE, TEMPLATE_END, TEMPLATE_HANDLER,
  TEMPLATE_IMM, TEMPLATE_NONE, TEMPLATE_REG, TEMPLATE_RELATIVE, TEMPLATE_RM,
} from "../src/layout";

/** Longest instruction (SDM vol. 2, 2.3.11); what is read of one beyond that does not matter. */
const MAX_LENGTH: u32 = 15;
const FS: u32 = 4;
const REX_B: u32 = 1;
const REX_X: u32 = 2;
const REX_R: u32 = 4;
const REX_W: u32 = 8;
const MOD_REGISTER: u32 = 0xc0;
/** NOP without REX.B, else XCHG: the one opcode of which a bit of REX makes another instruction. */
const NOP_OR_XCHG: u32 = 0x90;

/** Where the instruction at hand is read. */
let at: u32 = 0;
let rex: u32 = 0;
/** The record's address: state-block offsets of segment base, base and index, scale, displacement; is it relative to RIP? */
let segment: u32 = 0;
let base: u32 = 0;
let index: u32 = 0;
let scale: u32 = 0;
let displacement: i64 = 0;
let isRelative: bool = false;

@inline
function take(): u32 {
  const byte = <u32>load<u8>(at);
  at++;
  return byte;
}

/** Prefixes and REX up to the opcode, which is still to come; returns the mandatory prefix as in a key, or NO_KEY when these are left to the decoder proper. */
function takePrefixes(): u32 {
  let mandatory: u32 = 0;
  rex = 0;
  segment = S_ZERO;
  for (let n: u32 = 0; n < 5; n++) {
    const byte = <u32>load<u8>(at);
    let seen: u32 = 0;
    if (byte == 0x66) seen = 1;
    else if (byte == 0xf3) seen = 2;
    else if (byte == 0xf2) seen = 3;
    else if (byte == 0x64 || byte == 0x65) segment = S_SEG + (byte - 0x64 + FS) * SEG_STRIDE + SEG_BASE;
    else if (byte == 0x67 || byte == 0xf0) return NO_KEY;
    else if ((byte & 0xf0) == 0x40) {
      rex = byte;
      at++;
      return isPrefix(<u32>load<u8>(at)) ? NO_KEY : mandatory;
    } else if ((byte & 0xe7) != 0x26) return mandatory;
    if (seen) {
      if (mandatory && mandatory != seen) return NO_KEY;
      mandatory = seen;
    }
    at++;
  }
  return NO_KEY;
}

/** A byte that, after REX, makes this void. */
@inline
function isPrefix(byte: u32): bool {
  return (byte & 0xf0) == 0x40 || (byte & 0xe7) == 0x26 || (byte >= 0x64 && byte <= 0x67) || byte == 0xf0 || byte == 0xf2 || byte == 0xf3;
}

/** SIB byte and displacement of a ModRM byte with mod != 3. */
function takeAddress(modrm: u32): void {
  const mod = modrm >> 6;
  const rm = modrm & 7;
  let isWide = mod == 2;
  index = S_ZERO;
  scale = 0;
  isRelative = false;
  if (rm == 4) {
    const sib = take();
    const number = (sib >> 3 & 7) | (rex & REX_X) << 2;
    if (number != 4) {
      index = S_GPR + number * 8;
      scale = sib >> 6;
    }
    base = S_GPR + ((sib & 7) | (rex & REX_B) << 3) * 8;
    if (mod == 0 && (sib & 7) == 5) {
      base = S_ZERO;
      isWide = true;
    }
  } else if (mod == 0 && rm == 5) {
    base = S_BLOCK_RIP;
    isRelative = true;
    isWide = true;
  } else base = S_GPR + (rm | (rex & REX_B) << 3) * 8;
  displacement = 0;
  if (isWide) {
    displacement = load<i32>(at);
    at += 4;
  } else if (mod == 1) displacement = <i64>(<i8>take());
}

function takeImmediate(kind: u32): i64 {
  let value: i64 = 0;
  switch (kind) {
    case IMM_U8:
      return take();
    case IMM_S8:
      return <i64>(<i8>take());
    case IMM_U16:
      value = load<u16>(at);
      at += 2;
      return value;
    case IMM_S16:
      value = load<i16>(at);
      at += 2;
      return value;
    case IMM_S32:
      value = load<i32>(at);
      at += 4;
      return value;
    case IMM_64:
      value = load<i64>(at);
      at += 8;
      return value;
    default:
      return 0;
  }
}

/** State-block offset of a register. */
function registerAt(file: u32, number: u32): u32 {
  switch (file) {
    case FILE_BYTE:
      return !rex && number >= 4 ? S_GPR + (number - 4) * 8 + 1 : S_GPR + number * 8;
    case FILE_GPR:
      return S_GPR + number * 8;
    case FILE_XMM:
      return S_XMM + number * 16;
    case FILE_MMX:
      return S_X87 + (number & 7) * 16;
    default:
      return 0;
  }
}

/**
 * Goes on with the block at `hpa`, of which `room` bytes lie in its page, from DECODED_BYTES, DECODED_INSNS and DECODED_RECORD on: until it ends, or an instruction
 * comes that needs the decoder proper. DECODED_KEY is where that may leave a template.
 */
export function decodeKnown(hpa: u32, room: u32): void {
  let offset = load<u32>(DECODED_BYTES);
  let count = load<u32>(DECODED_INSNS);
  let record = load<u32>(DECODED_RECORD);
  let state: u32 = 0;
  let missing: u32 = NO_KEY;
  while (count < <u32>MAX_BLOCK_INSNS && offset + MAX_LENGTH <= room) {
    at = hpa + offset;
    const mandatory = takePrefixes();
    if (mandatory == NO_KEY) break;
    let opcode = take();
    if (opcode == 0x0f) {
      opcode = take();
      if (opcode == 0x38) opcode = 0x200 | take();
      else if (opcode == 0x3a) opcode = 0x300 | take();
      else opcode |= 0x100;
    } else if (opcode == NOP_OR_XCHG && rex & REX_B) break;
    let key = opcode << 7 | (rex & REX_W) >> 1 | mandatory;
    const hasModRm = load<u8>(DECODE_OPCODES + opcode) == OPCODE_MODRM;
    let modrm: u32 = MOD_REGISTER | (opcode & 7);
    if (hasModRm) {
      modrm = take();
      key |= (modrm & 0x38) | (modrm >= MOD_REGISTER ? 0x40 : 0);
    }
    const template = load<u32>(DECODE_TEMPLATES + (key << 2));
    if (template <= <u32>TEMPLATE_NONE) {
      if (!template) missing = key;
      break;
    }
    base = S_ZERO;
    index = S_ZERO;
    scale = 0;
    displacement = 0;
    isRelative = false;
    if (modrm < MOD_REGISTER) takeAddress(modrm);
    let immediate = takeImmediate(template >> TEMPLATE_IMM & 7);
    const length = at - hpa - offset;
    if (length > MAX_LENGTH) break;
    const next = offset + length;
    if (isRelative) displacement += next;
    if (displacement != <i64>(<i32>displacement)) break;
    state = (template & TEMPLATE_END ? DECODED_END : 0) | (template & TEMPLATE_RELATIVE ? DECODED_RELATIVE : 0);
    store<u32>(DECODED_IMM, <u32>immediate);
    if (template & TEMPLATE_RELATIVE) immediate += next;
    const rm = modrm >= MOD_REGISTER ? registerAt(template >> TEMPLATE_RM & 7, (modrm & 7) | (rex & REX_B) << 3) : 0;
    store<u32>(record, template >> TEMPLATE_HANDLER, R_HANDLER);
    store<u16>(record, registerAt(template >> TEMPLATE_REG & 7, (modrm >> 3 & 7) | (rex & REX_R) << 1), R_REG);
    store<u16>(record, rm, R_RM);
    store<u16>(record, base, R_BASE);
    store<u16>(record, index, R_INDEX);
    store<u16>(record, segment, R_SEG);
    store<u16>(record, scale, R_SCALE);
    store<i32>(record, <i32>displacement, R_DISP);
    store<u16>(record, offset, R_OFF);
    store<u8>(record, length, R_LEN);
    store<u8>(record, count, R_IDX);
    store<i64>(record, immediate, R_IMM);
    record += REC_SIZE;
    offset = next;
    count++;
    if (state & DECODED_END) break;
  }
  store<u32>(DECODED_BYTES, offset);
  store<u32>(DECODED_INSNS, count);
  store<u32>(DECODED_RECORD, record);
  store<u32>(DECODED_STATE, state);
  store<u32>(DECODED_KEY, missing);
}
