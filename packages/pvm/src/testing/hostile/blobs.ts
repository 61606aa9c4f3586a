// What the hostile guest does outside long mode: 32-bit code at first, interrupts and faults lead back.
import type { Action } from './actions.ts';
import { le, movEax, SELECTORS, TRAMPOLINE } from './map.ts';

const push = (value: number): number[] => [0x68, ...le(value, 4)];
const setCr = (n: number): number[] => [0x0f, 0x22, 0xc0 | (n << 3)];

/** To another task, by JMP, CALL, an interrupt or IRET. */
const taskSwitch: Action = (h) => {
  const selector = h.chance(6) ? h.selector() : h.pick([SELECTORS.tss32, SELECTORS.otherTss32]);
  const ltr = h.chance(5) ? [] : [...movEax(SELECTORS.tss32), 0x0f, 0x00, 0xd8];
  const way = h.pick([
    [0xea, ...le(0, 4), ...le(selector, 2)],
    [0x9a, ...le(0, 4), ...le(selector, 2)],
    [0xcd, 0x60],
    [...push(0x4002), 0x9d, 0xcf],
  ]);
  return [...ltr, ...way];
};

const virtual8086: Action = (h, at) => {
  const frame = [0, 0, 0, 0, 0x800, 0x1000, 0x2_0002 | (h.below(4) << 12), h.pick([0, 0x800, h.below(0x1_0000)]), h.pick([0x8000, 0, h.below(0x1_0000)])];
  return [...movEax(SELECTORS.tss32), 0x0f, 0x00, 0xd8, 0xbc, ...le(at.stackTop, 4), ...frame.flatMap(push), 0xcf];
};

/** 16-bit protected mode, and on to real mode, whose interrupts lead to the trampoline. */
const realMode: Action = (h) => {
  // In the boot code's page: far jump to 16-bit code that clears PE, then 0000:8000 or elsewhere.
  const code = [
    0x0f,
    0x20,
    0xc0,
    0x66,
    0x25,
    ...le(0x7fff_fffe, 4),
    0x0f,
    0x22,
    0xc0,
    ...h.bytes(h.below(8)),
    0xea,
    ...le(h.chance(4) ? h.below(0x1_0000) : TRAMPOLINE, 2),
    ...le(0, 2),
  ];
  const copy = code.flatMap((byte, i) =>
    i % 4 === 0
      ? [0xc7, 0x05, ...le(0x9100 + i, 4), ...le(Number(Buffer.from([...code.slice(i, i + 4), 0, 0, 0]).readUInt32LE(0)), 4)]
      : byte === -1
        ? [0]
        : [],
  );
  return [...copy, 0xea, ...le(0x9100, 4), ...le(SELECTORS.code16, 2)];
};

/** 32-bit or PAE paging, with a table that is right or not. */
const otherPaging: Action = (h, at) => {
  const isPae = h.chance(2);
  const cr4 = (isPae ? 0x20 : 0x10) ^ (h.chance(3) ? 1 << h.below(8) : 0);
  const root = h.chance(5) ? h.physical() : isPae ? at.pae : at.pd32;
  const entry = h.chance(3) ? [0xc7, 0x05, ...le(root + 4 * h.below(isPae ? 8 : 1024), 4), ...le(h.value32(), 4)] : [];
  const flags = 0x8000_0031 ^ (h.chance(3) ? 1 << h.pick([16, 3, 2, 5, 1]) : 0);
  return [
    ...[...movEax(cr4), ...setCr(4), ...movEax(root), ...setCr(3), ...entry, ...movEax(flags >>> 0), ...setCr(0)],
    ...[
      0xbf,
      ...le(h.physical(), 4),
      ...h.pick([
        [0x8b, 0x07],
        [0x89, 0x07],
        [0xf0, 0xff, 0x07],
        [0xff, 0xd7],
        [0x0f, 0x01, 0x3f],
      ]),
    ],
  ];
};

const farReturn: Action = (h, at) => {
  const cs = h.chance(3) ? h.selector() : SELECTORS.userCode32;
  const frame = [h.chance(3) ? h.selector() : SELECTORS.userData, at.stackTop, h.flags(), cs, h.chance(3) ? h.value32() : at.back32];
  return [...frame.flatMap(push), h.pick([0xcf, 0xcb])];
};

const segments: Action = (h) => {
  const selector = h.selector();
  const load = [...movEax(selector), 0x8e, 0xc0 | (h.pick([0, 2, 3, 4, 5]) << 3)];
  return [
    ...load,
    0xbf,
    ...le(h.value32(), 4),
    h.pick([0x26, 0x36, 0x3e, 0x64, 0x65]),
    ...h.pick([[0x8b, 0x07], [0x89, 0x07], [0xa4], [0xc4, 0x07], [0x62, 0x07]]),
  ];
};

const anyBytes: Action = (h) => h.bytes(10 + h.below(30));
const longAgain: Action = (h) => [
  ...[0xb9, ...le(0xc000_0080, 4), ...movEax(h.pick([0x100, 0x500, 0x900, h.value32()])), 0x31, 0xd2, 0x0f, 0x30],
  ...[
    ...movEax(h.pick([0x20, 0x1020, 0])),
    ...setCr(4),
    ...movEax(0x8000_0011),
    ...setCr(0),
    0x0f,
    0x05,
    0xea,
    ...le(h.value32(), 4),
    ...le(SELECTORS.code64, 2),
  ],
];

export const blobActions: readonly Action[] = [
  taskSwitch,
  taskSwitch,
  virtual8086,
  realMode,
  otherPaging,
  otherPaging,
  farReturn,
  segments,
  segments,
  anyBytes,
  longAgain,
];
