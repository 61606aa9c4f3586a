// Longer things that the hostile guest does to devices: straight code of stores and port accesses.
import type { Hostility } from './hostility.ts';
import { type Area, le, movEax, RAM_BYTES, ROUTINE_BYTES, SCRATCH } from './map.ts';

const DEVICES = 6;
const BAR_BYTES = 0x8000;
/** Where a virtio transport has what a driver uses. */
const FIELDS = {
  pci: { status: 0x14, featureSelect: 0x08, features: 0x0c, queueSelect: 0x16, size: 0x18, enable: 0x1c, rings: [0x20, 0x28, 0x30], notify: 0x3000 },
  mmio: { status: 0x70, featureSelect: 0x24, features: 0x20, queueSelect: 0x30, size: 0x38, enable: 0x44, rings: [0x80, 0x90, 0xa0], notify: 0x50 },
} as const;
/** Rings of the queues: descriptors, available, used, a page each. */
const RINGS = SCRATCH + 0x4_0000;

function store(address: number, value: number, size: 1 | 2 | 4 = 4): number[] {
  const at = [0x04, 0x25, ...le(address, 4), ...le(value, size)];
  return size === 4 ? [0x67, 0xc7, ...at] : size === 2 ? [0x67, 0x66, 0xc7, ...at] : [0x67, 0xc6, ...at];
}

/** As a driver begins, with rings that are mostly in RAM, and descriptors that are mostly wrong. */
function virtio(h: Hostility): number[] {
  const index = h.below(DEVICES);
  const base = h.virtio === 'mmio' ? 0xfeb0_0000 + index * 0x1000 : 0xe000_0000 + index * BAR_BYTES;
  const fields = FIELDS[h.virtio];
  const narrow = h.virtio === 'pci' ? 2 : 4;
  const status = (value: number) => store(base + fields.status, value, h.virtio === 'pci' ? 1 : 4);
  const code = [...status(0), ...status(3)];
  for (const word of [0, 1])
    code.push(
      ...store(base + fields.featureSelect, word),
      ...store(base + fields.features, word === 1 ? 1 : h.pick([0, 0x3000_0000, 0x1000_0000, 0x2000_0002])),
    );
  code.push(...status(11));
  const queues = 1 + h.below(3);
  for (let queue = 0; queue < queues; queue++) {
    code.push(...store(base + fields.queueSelect, queue, narrow), ...store(base + fields.size, h.chance(8) ? h.value32() & 0xffff : 16, narrow));
    fields.rings.forEach((at, i) => {
      code.push(
        ...store(base + at, h.chance(10) ? h.physical() : RINGS + queue * 0x3000 + i * 0x1000),
        ...store(base + at + 4, h.chance(20) ? h.value32() : 0),
      );
    });
    code.push(...store(base + fields.enable, 1, narrow));
  }
  code.push(...status(15));
  for (let n = 1 + h.below(3); n > 0; n--) {
    const queue = h.below(queues);
    code.push(...chain(h, RINGS + queue * 0x3000));
    code.push(...(h.virtio === 'pci' ? store(base + fields.notify + 4 * queue, queue, 2) : store(base + fields.notify, queue)));
  }
  return code;
}

function chain(h: Hostility, ring: number): number[] {
  const place = SCRATCH + 0x2_0000 + 0x1000 * h.below(4);
  const code = [
    ...store(place, h.pick([0, 1, 4, 8, 11, 13, h.value32()])),
    ...store(place + 4, h.value32()),
    ...store(place + 8, h.pick([0, 1, h.value32()])),
    ...store(place + 12, 0),
  ];
  const buffers = 1 + h.below(4);
  for (let i = 0; i < buffers; i++) {
    const at = ring + 16 * i;
    const next = i === buffers - 1 ? 0 : 1;
    code.push(...store(at, i === 0 ? place : h.chance(3) ? h.physical() : SCRATCH + 0x3_0000), ...store(at + 4, h.chance(30) ? h.value32() : 0));
    code.push(...store(at + 8, i === 0 ? 16 : h.pick([1, 20, 512, 4096, RAM_BYTES >> 1, h.value32()])));
    code.push(...store(at + 12, ((next | (i > 0 && h.chance(2) ? 2 : 0)) ^ (h.chance(12) ? 4 : 0)) | ((h.chance(12) ? h.below(20) : i + 1) << 16)));
  }
  // The index of the available ring, one more: inc word [ring + 0x1002].
  code.push(...store(ring + 0x1004, 0), 0x67, 0x66, 0xff, 0x04, 0x25, ...le(ring + 0x1002, 4));
  return code;
}

function configuration(h: Hostility): number[] {
  const code: number[] = [];
  for (let n = 0; n < 12; n++) {
    code.push(0xba, ...le(0xcf8, 4), ...movEax((0x8000_0000 | (h.below(10) << 11) | (h.below(64) << 2)) >>> 0), 0xef);
    code.push(0xba, ...le(0xcfc + h.below(4), 4), ...movEax(h.value32()), ...h.pick([[0xee], [0x66, 0xef], [0xef], [0xed], [0xec]]));
  }
  return code;
}

function windows(h: Hostility): number[] {
  const code: number[] = [];
  for (let n = 0; n < 40; n++) code.push(...store(h.device(), h.value32(), h.pick([1, 2, 4, 4])));
  return code;
}

export function deviceRoutine(h: Hostility, _at: Area): number[] {
  const code = h.pick([virtio, virtio, virtio, configuration, windows])(h);
  return code.length > ROUTINE_BYTES ? code.slice(0, ROUTINE_BYTES) : code;
}
