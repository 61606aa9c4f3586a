// What the hostile guest does in 64-bit code, one thing a slot. A fault ends an action; what it has done stays.
import type { Hostility } from './hostility.ts';
import { BARE, MSRS, ON_MEMORY, PORTS, SPICE } from './instructions.ts';
import { type Area, GDT_BYTES, jump, le, movEax, SANE_CR0, SANE_CR4, SCRATCH, SELECTORS, SLOT_BYTES, USER_ALIAS, VICTIM } from './map.ts';

export type Action = (h: Hostility, at: Area) => number[];

const [RAX, RCX, RDX, RBX, RSP, RSI, RDI] = [0, 1, 2, 3, 4, 6, 7] as const;

/** Entries of a page table: flags of all kinds, to RAM, tables, devices, nothing; reserved bits. */
function tableEntry(h: Hostility, at: Area): bigint {
  const flags = BigInt(h.pick([1, 3, 7, 0x83, 0x87, 0xe7, 0x63, 0x1e3, 0, 0xffe, 0x23, 0x67, 5, 0x81]) ^ (h.chance(4) ? 1 << h.below(12) : 0));
  const target = h.chance(3) ? at.pml4 + 0x1000 * h.below(9) : h.physical();
  const high = h.chance(6) ? BigInt(h.below(0x1000)) << 52n : h.chance(12) ? 1n << BigInt(40 + h.below(24)) : 0n;
  return BigInt(target & ~0xfff & 0xffff_ffff) | flags | high;
}
function store64(address: bigint | number, value: bigint): number[] {
  return [0x48, 0xb8, ...le(value, 8), 0x48, 0xa3, ...le(address, 8)];
}
const touch = (h: Hostility): number[] => [...h.load(RDI), ...h.pick(ON_MEMORY)];
const invalidate = (h: Hostility, at: Area): number[] =>
  h.pick([
    [],
    [0x0f, 0x01, 0x3f],
    [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8],
    [...movEax(SANE_CR4 ^ 0x80), 0x0f, 0x22, 0xe0, ...movEax(SANE_CR4), 0x0f, 0x22, 0xe0],
    [...movEax(at.pml4), 0x0f, 0x22, 0xd8],
  ]);

/** One entry of the tables in use, mostly one of those whose loss can be survived. */
function pageTables(h: Hostility, at: Area): number[] {
  const [table, index, address] = h.pick([
    [at.victimPt, h.below(512), 0],
    [at.victimPt, 0, VICTIM],
    [at.lowPd, 2 + h.below(6), 0x40_0000],
    [at.userPd, h.below(8), Number(USER_ALIAS)],
    [at.pdpt, 1 + h.below(20), 2 ** 30],
    [at.pml4, 1 + h.below(511), Number(USER_ALIAS)],
    [at.pml4 + 0x1000 * h.below(7), h.below(512), VICTIM],
  ] as const);
  const entry = tableEntry(h, at);
  const where = h.chance(4) ? USER_ALIAS + BigInt(table + 8 * index) : BigInt(table + 8 * index);
  const write = h.chance(4)
    ? [
        ...h.load(RDI, where + BigInt(h.below(8))),
        ...h.load(RAX, entry),
        ...h.pick([
          [0x88, 0x07],
          [0x66, 0x89, 0x07],
          [0x89, 0x07],
          [0xf0, 0x48, 0x87, 0x07],
          [0xf3, 0x0f, 0x7f, 0x07],
        ]),
      ]
    : store64(where, entry);
  const used = h.chance(2) ? h.load(RDI, BigInt(address) + BigInt(index * 4096 + h.below(4096))) : h.load(RDI);
  return [...write, ...used, ...invalidate(h, at), ...h.pick(ON_MEMORY)];
}

/** A table root that is anything, or has our first entry. */
function tableRoot(h: Hostility, at: Area): number[] {
  const root = h.chance(3) ? h.value64() : BigInt((SCRATCH + 0x1000 * h.below(200)) | h.pick([0, 0, 8, 0x18, 5]));
  const keeps = h.chance(4) ? [] : [0x48, 0xa1, ...le(at.pml4, 8), 0x48, 0xa3, ...le(root & 0xff_f000n, 8)];
  const filled = h.chance(2) ? store64((root & 0xff_f000n) + BigInt(8 * h.below(512)), tableEntry(h, at)) : [];
  return [...keeps, ...filled, ...h.load(RAX, root), 0x0f, 0x22, 0xd8, ...touch(h)];
}

function controlRegister(h: Hostility): number[] {
  const register = h.pick([0, 0, 2, 3, 4, 4, 8, h.below(16)]);
  const modrm = ((register & 7) << 3) | 0xc0;
  const prefix = register >= 8 ? [0x44] : [];
  const right = register === 0 ? SANE_CR0 : register === 4 ? SANE_CR4 : 0;
  const value = h.chance(4) ? h.value64() : BigInt((right ^ (1 << h.below(32))) >>> 0);
  const read = h.chance(5) ? [...prefix, 0x0f, 0x20, modrm] : h.load(RAX, value);
  return [...read, ...prefix, 0x0f, 0x22, modrm, ...(h.chance(2) ? touch(h) : [])];
}

function debugRegister(h: Hostility): number[] {
  const set = (n: number, value: bigint) => [...h.load(RAX, value), 0x0f, h.chance(8) ? 0x21 : 0x23, 0xc0 | (n << 3)];
  return [...set(h.below(8), h.value64()), ...set(7, BigInt(h.value32())), ...touch(h)];
}

function modelSpecific(h: Hostility): number[] {
  const msr = h.chance(12) ? h.value32() : (h.pick(MSRS) + (h.chance(3) ? h.below(16) : 0)) >>> 0;
  const value = h.chance(3) ? BigInt(h.physical() | h.below(4)) : h.value64();
  const index = [0xb9, ...le(msr, 4)];
  if (h.chance(3)) return [...index, 0x0f, 0x32, ...(h.chance(2) ? [0x48, 0x0f, 0xba, 0xf8 | RAX, h.below(32), 0x0f, 0x30] : [])];
  return [...index, ...movEax(Number(value & 0xffff_ffffn)), 0xba, ...le(value >> 32n, 4), 0x0f, 0x30, ...(h.chance(3) ? touch(h) : [])];
}

function portIo(h: Hostility): number[] {
  const port = h.chance(8) ? h.below(0x1_0000) : h.pick(PORTS) + (h.chance(3) ? h.below(8) : 0);
  const set = [0xba, ...le(port, 4)];
  const value = movEax(port >= 0x600 && port < 0x610 && !h.chance(60) ? 0 : h.value32());
  const transfer = h.pick([[0xec], [0xed], [0x66, 0xed], [0xee], [0xef], [0x66, 0xef]]);
  if (h.chance(5)) return [...set, ...h.load(h.pick([RDI, RSI])), 0xb9, ...le(h.below(40), 4), h.pick([0xf3, 0x90]), h.pick([0x6c, 0x6d, 0x6e, 0x6f])];
  return [...set, ...value, ...transfer, ...(h.chance(3) ? [0xe4 + 2 * h.below(2), port & 0xff] : [])];
}

function selfModifying(h: Hostility, at: Area): number[] {
  const slot = h.slotAddress(at) + h.below(SLOT_BYTES);
  const where = h.chance(3) ? USER_ALIAS + BigInt(slot) : BigInt(slot);
  const patch = h.pick([h.pick(BARE), h.pick(ON_MEMORY), h.bytes(8)]);
  const to = [...h.load(RDI, where), ...h.load(RAX, BigInt(`0x${Buffer.from([...patch, ...h.bytes(8)].slice(0, 8)).toString('hex')}`))];
  const write = h.pick([
    [0x48, 0x89, 0x07],
    [0x88, 0x07],
    [0x66, 0x89, 0x07],
    [0x48, 0xab],
    [0xf0, 0x48, 0x87, 0x07],
    [0xb9, 20, 0, 0, 0, 0xf3, 0xaa],
  ]);
  // Or what follows in this very slot.
  if (h.chance(3)) return [0x48, 0x8d, 0x3d, ...le(h.below(12), 4), ...movEax(h.value32()), ...write, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];
  return [...to, ...write, ...(h.chance(2) ? jump(slot) : [])];
}

function interruptCall(h: Hostility): number[] {
  return h.pick([[0xcd, h.below(256)], [0xcd, 0x80], [0xcc], [0xf1], [0x0f, 0x0b], [0xcd, h.below(32)]]);
}

/** A frame on the stack, for IRET or a far return, or registers for SYSRET and SYSEXIT: to user mode, to a random place, to nothing. */
function returnElsewhere(h: Hostility, at: Area): number[] {
  const isUser = h.chance(2);
  const rip = h.chance(8) ? h.value64() : BigInt(h.slotAddress(at)) + (isUser ? USER_ALIAS : 0n);
  const cs = h.chance(4) ? h.selector() : isUser ? SELECTORS.userCode64 : SELECTORS.code64;
  const ss = h.chance(4) ? h.selector() : isUser ? SELECTORS.userData : SELECTORS.data;
  const rsp = h.chance(4) ? h.value64() : BigInt(at.stackTop) + (isUser ? USER_ALIAS : 0n);
  const push = (value: bigint | number) => [...h.load(RAX, BigInt(value)), 0x50];
  const kind = h.below(8);
  if (kind < 4)
    return [
      ...push(ss),
      ...push(rsp),
      ...push(h.flags()),
      ...push(cs),
      ...push(rip),
      ...h.pick([[0x48, 0xcf], [0x48, 0xcf], [0x48, 0xcf], [0xcf], [0x66, 0xcf]]),
    ];
  if (kind === 4) return [...push(ss), ...push(rsp), ...push(cs), ...push(rip), ...h.pick([[0x48, 0xcb], [0xcb], [0x48, 0xca, 8, 0], [0x66, 0xcb]])];
  if (kind === 5)
    return [
      ...h.load(RCX, rip),
      ...h.load(11, BigInt(h.flags())),
      ...h.load(RSP, rsp),
      ...h.pick([
        [0x48, 0x0f, 0x07],
        [0x0f, 0x07],
      ]),
    ];
  if (kind === 6)
    return [
      ...h.load(RDX, rip),
      ...h.load(RCX, rsp),
      ...h.pick([
        [0x48, 0x0f, 0x35],
        [0x0f, 0x35],
      ]),
    ];
  return [...push(cs), ...push(rip), 0xff, 0x2c, 0x24];
}

function farTransfer(h: Hostility, at: Area): number[] {
  const selector = h.pick([h.selector(), SELECTORS.callGate, SELECTORS.tss32, SELECTORS.code16]);
  const offset = h.chance(3) ? h.value32() : h.code(at);
  return [
    ...h.load(RDI, BigInt(SCRATCH)),
    0xc7,
    0x07,
    ...le(offset, 4),
    0x66,
    0xc7,
    0x47,
    4,
    ...le(selector, 2),
    h.pick([0x90, 0x66, 0x67]),
    0xff,
    h.pick([0x2f, 0x1f]),
  ];
}

function descriptorTables(h: Hostility, at: Area): number[] {
  const pick = h.below(6);
  if (pick === 0)
    return [
      ...store64(at.gdt + 8 * h.below(GDT_BYTES / 8), BigInt(`0x${Buffer.from(h.descriptors(8)).toString('hex')}`)),
      ...movEax(h.selector()),
      0x8e,
      0xc0 | (h.pick([0, 2, 3, 4, 5]) << 3),
    ];
  if (pick === 1) return [...movEax(h.selector()), 0x0f, 0x00, h.pick([0xd0, 0xd8, 0xe0, 0xe8, 0xc0, 0xc8])];
  if (pick === 2) return [...movEax(h.selector()), h.pick([0x8e, 0x8e, 0x8c]), 0xc0 | (h.below(8) << 3), ...touch(h)];
  if (pick === 3)
    return [
      ...movEax(SELECTORS.ldt),
      0x0f,
      0x00,
      0xd0,
      ...movEax((h.below(64) << 3) | 4 | h.below(4)),
      0x8e,
      0xc0 | (h.pick([0, 2, 3, 4, 5]) << 3),
      ...touch(h),
    ];
  if (pick === 4) return [...movEax(h.selector()), 0x0f, h.pick([2, 3]), 0xc8, ...h.pick([[0x0f, 0xa0, 0x0f, 0xa1], [0x0f, 0xa8, 0x0f, 0xa9], []])];
  const table = [...h.load(RDI, BigInt(SCRATCH + 0x100)), 0x66, 0xc7, 0x07, ...le(h.value32() & 0xffff, 2), ...h.load(RAX), 0x48, 0x89, 0x47, 2];
  return [...table, 0x0f, 0x01, h.pick([0x17, 0x1f]), ...h.pick([interruptCall(h), touch(h), []])];
}

function processorState(h: Hostility): number[] {
  const image = BigInt(h.chance(5) ? h.physical() : SCRATCH + 0x2000 + 0x400 * h.below(64));
  const mask = [...movEax(h.pick([7, 3, 2, 1, 0xff, h.value32()])), 0xba, ...le(h.chance(6) ? h.value32() : 0, 4)];
  const words: number[] = [];
  for (let n = h.below(3); n > 0; n--)
    words.push(0xc7, 0x87, ...le(h.pick([0, 24, 28, 512, 516, 520, 528, 4 * h.below(200)]), 4), ...le(h.chance(2) ? h.below(8) : h.value32(), 4));
  const use = h.pick([
    [0x0f, 0xae, 0x2f],
    [0x48, 0x0f, 0xae, 0x2f],
    [0x0f, 0xae, 0x0f],
    [0x48, 0x0f, 0xae, 0x0f],
    [0x0f, 0xae, 0x27],
    [0x0f, 0xae, 0x37],
    [0x0f, 0xc7, 0x27],
    [0x0f, 0xc7, 0x1f],
    [0xdd, 0x27],
    [0xd9, 0x27],
    [0x0f, 0xae, 0x17],
  ]);
  const after = h.pick([
    [0x0f, 0x58, 0xc1],
    [0xf2, 0x0f, 0x5e, 0xc1],
    [0xd9, 0xc0],
    [0xde, 0xc1],
    [0xc5, 0xfc, 0x58, 0xc1],
    [0x0f, 0xef, 0xc1],
    [0xdb, 0xe3],
    [0xd9, 0xfe],
  ]);
  const xsetbv = h.chance(6) ? [0x31, 0xc9, ...movEax(h.pick([1, 3, 7, 2, 6, 0, 0xff])), 0x31, 0xd2, 0x0f, 0x01, 0xd1] : [];
  return [...xsetbv, ...h.load(RDI, image), ...words, ...mask, ...use, ...after];
}

function invalidation(h: Hostility): number[] {
  const descriptor = [
    ...h.load(RDI, BigInt(SCRATCH + 0x200)),
    ...h.load(RAX, BigInt(h.chance(4) ? h.value64() : h.below(16))),
    0x48,
    0x89,
    0x07,
    ...h.load(RAX),
    0x48,
    0x89,
    0x47,
    8,
  ];
  if (h.chance(3)) return [...h.load(RDI), 0x0f, 0x01, 0x3f];
  return [...descriptor, ...movEax(h.chance(5) ? h.value32() : h.below(5)), 0x66, 0x0f, 0x38, 0x82, 0x07];
}

function hypercall(h: Hostility): number[] {
  const number = h.pick([h.below(16), 0x1708_8200 + h.below(12), h.value32(), 0x4b56_4d00]);
  return [
    ...h.load(RBX),
    ...h.load(RCX),
    ...h.load(RDX),
    ...h.load(RSI, BigInt(h.chance(2) ? h.below(0x800) : h.value32())),
    ...movEax(number),
    ...h.pick([
      [0x0f, 0x01, 0xc1],
      [0x0f, 0x01, 0xd9],
      [0x0f, 0x05],
    ]),
  ];
}

function anyBytes(h: Hostility): number[] {
  return Array.from({ length: 10 + h.below(20) }, () => (h.chance(4) ? h.pick(SPICE) : [h.below(256)])).flat();
}
function lockedWrongly(h: Hostility): number[] {
  return [...h.load(RDI, BigInt(SCRATCH + 0x300)), 0xf0, ...h.pick([...ON_MEMORY, ...BARE, h.bytes(4)])];
}

/** A loop that becomes hot, with something in it. */
function loop(h: Hostility): number[] {
  const plain: readonly (readonly number[])[] = [
    [0x48, 0x01, 0xc3],
    [0x48, 0x31, 0xd0],
    [0x8b, 0x06],
    [0x48, 0x89, 0x06],
    [0x0f, 0xaf, 0xc3],
    [0xd1, 0xc0],
    [0x48, 0x83, 0xc6, 0x08],
    [0x66, 0x0f, 0xfe, 0xc1],
    [0xf3, 0xa4],
    [0x9c, 0x9d],
    [0xfb],
    [0x01, 0x1e],
    [0x75, 0x02, 0xff, 0xc2],
    [0x0f, 0x38, 0xf0, 0x06],
    [0x0f, 0xc8],
  ];
  const body = Array.from({ length: 2 + h.below(5) }, () => (h.chance(6) ? [...h.pick(BARE)] : [...h.pick(plain)])).flat();
  const start = [...h.load(RSI, BigInt(h.chance(3) ? h.physical() : SCRATCH + h.below(0x8000))), 0xbd, ...le(h.below(h.chance(8) ? 4000 : 200), 4)];
  return [...start, ...body, 0xff, 0xcd, 0x75, 0x100 - (body.length + 4)];
}

function halt(h: Hostility): number[] {
  if (h.chance(200)) return [0xfa, 0xf4];
  if (h.chance(3)) return [...h.load(RAX), 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xc8, 0xfb, 0xb9, ...le(h.below(2), 4), 0x0f, 0x01, 0xc9];
  return [0xfb, 0xf4];
}

/** Interrupt commands of all kinds; with INIT and startup to any vector, but mostly to the one with code. */
function interruptCommand(h: Hostility): number[] {
  const to32 = (address: number, value: number) => [0x67, 0xc7, 0x04, 0x25, ...le(address, 4), ...le(value, 4)];
  const commands = [
    0x4500,
    0x4600 | (h.chance(3) ? h.below(256) : 8),
    0x4400,
    0x4000 | h.below(256),
    0x8500,
    0xc4000 | h.below(256),
    0x4_4000 | h.below(256),
    0x8_4000 | h.below(256),
    h.value32(),
  ];
  return [
    ...to32(0xfee0_0310, h.chance(4) ? h.value32() : h.below(2) << 24),
    ...to32(0xfee0_0300, h.pick(commands)),
    ...(h.chance(2) ? to32(0xfee0_0300, 0x4608) : []),
    0xfb,
  ];
}

function apic(h: Hostility): number[] {
  const register = h.pick([
    0x20,
    0x30,
    0x80,
    0xb0,
    0xd0,
    0xe0,
    0xf0,
    0x280,
    0x2f0,
    0x320,
    0x330,
    0x340,
    0x350,
    0x360,
    0x370,
    0x380,
    0x390,
    0x3e0,
    16 * h.below(64),
  ]);
  const value = h.pick([h.value32(), h.below(256), 0x2_0000 | h.below(256), 0x1ff, 1000]);
  const write = [0x67, 0xc7, 0x04, 0x25, ...le(0xfee0_0000 + register, 4), ...le(value, 4)];
  const ioApic = [0x67, 0xc7, 0x04, 0x25, ...le(0xfec0_0000, 4), ...le(h.below(0x42), 4), 0x67, 0xc7, 0x04, 0x25, ...le(0xfec0_0010, 4), ...le(h.value32(), 4)];
  return [...h.pick([write, ioApic]), 0xfb, ...(h.chance(3) ? [0xf4] : [])];
}

/** Out of long mode, to one of the blobs, which has the way back. */
function legacyMode(h: Hostility, at: Area): number[] {
  const blob = at.blobs + 128 * h.below(16);
  return [0xbf, ...le(blob, 4), 0x6a, SELECTORS.code32, 0x68, ...le(at.leaveLongMode, 4), 0x48, 0xcb];
}

const COMMON: readonly Action[] = [
  ...[pageTables, pageTables, pageTables, tableRoot, controlRegister, controlRegister, debugRegister, modelSpecific, modelSpecific, portIo, portIo],
  ...[touch, touch, touch, selfModifying, selfModifying, interruptCall, returnElsewhere, returnElsewhere, returnElsewhere, farTransfer],
  ...[descriptorTables, descriptorTables, processorState, processorState, invalidation, hypercall, anyBytes, anyBytes, lockedWrongly],
  ...[loop, loop, loop, halt, interruptCommand, apic, apic, legacyMode],
  (h: Hostility) => [...h.pick(BARE), ...h.pick(BARE)],
  (h: Hostility, at: Area) => jump(h.routineAddress(at)),
];
/** Every so often the watchdog gets its due, and the machine a chance. */
const SAVING: readonly Action[] = [(_, at) => jump(at.watchdog), (_, at) => jump(at.recover), () => [0xfb]];

export function actions(slot: number): readonly Action[] {
  return slot % 16 === 0 ? SAVING : COMMON;
}
