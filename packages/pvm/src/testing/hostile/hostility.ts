import { FuzzRandom } from '../host-fuzz.ts';
import { actions } from './actions.ts';
import { blobActions } from './blobs.ts';
import { deviceRoutine } from './devices.ts';
import {
  AREA_BYTES,
  type Area,
  area,
  LOAD,
  le,
  RAM_BYTES,
  ROUTINE_BYTES,
  ROUTINES,
  SCRATCH,
  SCRATCH_BYTES,
  SELECTORS,
  SLOT_BYTES,
  SLOTS,
  USER_ALIAS,
  VCPUS,
  VICTIM,
  VICTIM_BYTES,
} from './map.ts';

const SPECIAL: readonly bigint[] = [
  ...[0n, 1n, 2n, 3n, 7n, 0x10n, 0x7fn, 0x80n, 0xffn, 0xfffn, 0x1000n, 0x8000n, 0xffffn, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 1n << 32n],
  ...[0x7fff_ffff_ffffn, 0x8000_0000_0000n, 0xffff_8000_0000_0000n, 0xffff_ffff_ffff_f000n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n, 1n << 46n],
];

/** What the hostile guest does, as machine code: the same for the same seed. */
export class Hostility {
  readonly random: FuzzRandom;
  readonly vcpus: number;
  readonly virtio: 'pci' | 'mmio';

  constructor(seed: number, vcpus: number, virtio: 'pci' | 'mmio') {
    this.random = new FuzzRandom(seed);
    this.vcpus = vcpus;
    this.virtio = virtio;
  }

  /** Registers, and one action. */
  slot(vcpu: number, index: number): number[] {
    const at = area(vcpu);
    const code = this.pick(actions(index))(this, at);
    const registers = [];
    for (let n = this.below(3); n > 0; n--) registers.push(...this.load(this.pick([0, 1, 2, 3, 5, 6, 7, 8, 15])));
    return [...registers, ...code];
  }
  routine(vcpu: number): number[] {
    return deviceRoutine(this, area(vcpu));
  }
  blob(vcpu: number): number[] {
    return this.pick(blobActions)(this, area(vcpu));
  }

  // ------------------------------------------------------------ random things
  below(limit: number): number {
    return this.random.below(limit);
  }
  chance(of: number): boolean {
    return this.below(of) === 0;
  }
  pick<T>(list: readonly T[]): T {
    return this.random.pick(list);
  }
  bytes(count: number): number[] {
    return Array.from({ length: count }, () => this.below(256));
  }
  value32(): number {
    return this.chance(2) ? Number(this.pick(SPECIAL) & 0xffff_ffffn) : this.random.next();
  }
  value64(): bigint {
    if (this.chance(3)) return this.pick(SPECIAL);
    if (this.chance(2)) return this.address();
    return BigInt(this.random.next()) | (this.chance(2) ? 0n : BigInt(this.random.next()) << 32n);
  }

  /** A guest-physical address: of something that matters, at the end of RAM, of a device, or of nothing. */
  physical(): number {
    const own = area(this.below(VCPUS));
    switch (this.below(12)) {
      case 0:
      case 1:
        return SCRATCH + this.below(SCRATCH_BYTES);
      case 2:
        return VICTIM + this.below(VICTIM_BYTES);
      case 3:
        return own.pml4 + this.below(0x7000);
      case 4:
        return this.code(own);
      case 5:
        return LOAD + this.below(AREA_BYTES * VCPUS);
      case 6:
        return RAM_BYTES - 16 + this.below(32);
      case 7:
        return RAM_BYTES + this.below(RAM_BYTES);
      case 8:
        return this.pick([0, 0x7000, 0x8000, 0x9000, 0xa_0000, 0xb_8000, 0xc_0000, 0xf_0000, 0x10_0000]) + this.below(0x100);
      case 9:
        return 0xe000_0000 + this.below(0x6_0000);
      default:
        return this.device();
    }
  }
  /** An address in one of the devices' windows, aligned more often than not. */
  device(): number {
    const base = this.pick([0xfee0_0000, 0xfee0_0000, 0xfec0_0000, 0xfeb0_0000 + (this.below(8) << 12), 0xe000_0000 + this.below(14) * 0x4000]);
    const offset = this.chance(2) ? this.below(0x400) : this.below(0x4000);
    return base + (this.chance(4) ? offset : offset & ~0xf);
  }
  /** A virtual address. */
  address(): bigint {
    const at = BigInt(this.physical());
    switch (this.below(10)) {
      case 0:
        return USER_ALIAS + at;
      case 1:
        return (at & ~0xfffn) | BigInt(0xfff - this.below(16));
      case 2:
        return this.pick(SPECIAL) + BigInt(this.below(16));
      default:
        return at;
    }
  }
  code(at: Area): number {
    return this.chance(4) ? at.recover + this.below(0x700) : this.slotAddress(at) + (this.chance(2) ? 0 : this.below(SLOT_BYTES));
  }
  slotAddress(at: Area): number {
    return at.slots + this.below(SLOTS) * SLOT_BYTES;
  }
  routineAddress(at: Area): number {
    return at.routines + this.below(ROUTINES) * ROUTINE_BYTES;
  }
  selector(): number {
    if (this.chance(4)) return this.below(0x400);
    return (this.chance(3) ? SELECTORS.firstRandom + 8 * this.below(15) : this.pick(Object.values(SELECTORS))) ^ (this.chance(4) ? this.below(4) : 0);
  }
  flags(): number {
    return this.pick([2, 0x202, 0x302, 0x4002, 0x3002, 0x3202, 0x4_0202, 0x2_0202, 0x1_0202]) ^ (this.chance(4) ? 1 << this.below(22) : 0);
  }

  /** Entries of a GDT or LDT: nearly right, or anything. */
  descriptors(bytes: number): number[] {
    const list: number[] = [];
    while (list.length < bytes) {
      const type = this.below(256);
      const base = this.physical();
      if (this.chance(4)) list.push(...this.bytes(8));
      else list.push(...le(this.value32() & 0xffff, 2), ...le(base & 0xff_ffff, 3), type, this.below(256), base >>> 24);
    }
    return list;
  }

  /** A 32-bit task: nearly right. */
  tss32(): number[] {
    const own = area(0);
    const wrong = (right: number) => (this.chance(12) ? this.value32() : right);
    const words = new Array<number>(26).fill(0);
    words[0] = this.pick([SELECTORS.tss32, SELECTORS.otherTss32, this.selector()]);
    words[1] = wrong(own.stackTop);
    words[2] = wrong(SELECTORS.data);
    words[7] = this.chance(2) ? 0 : this.physical();
    words[8] = wrong(own.back32);
    words[9] = this.flags();
    for (let i = 10; i < 18; i++) words[i] = i === 14 ? wrong(own.stackTop) : this.value32();
    [SELECTORS.data, SELECTORS.code32, SELECTORS.data, SELECTORS.data, 0, 0].forEach((selector, i) => {
      words[18 + i] = this.chance(8) ? this.selector() : selector;
    });
    words[24] = this.chance(3) ? this.selector() : 0;
    words[25] = this.chance(3) ? this.value32() : 0x68_0000;
    return words.flatMap((word) => le(word, 4));
  }

  /** MOV register, anything. */
  load(register: number, value = this.value64()): number[] {
    return [0x48 | (register >> 3), 0xb8 | (register & 7), ...le(value, 8)];
  }
}
