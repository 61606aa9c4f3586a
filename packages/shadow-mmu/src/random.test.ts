import { describe, expect, it } from 'vitest';
import { MODE_LA57, MODE_NX, MODE_SMEP } from './index.ts';
import { TestMachine, type TestMachineOptions } from './testing/machine.ts';
import type { Kind } from './testing/oracle.ts';
import { Random } from './testing/random.ts';

/** Replay one run: SHADOW_SEED=n, and SHADOW_STEPS=n for its length. */
const FIXED_SEED = process.env.SHADOW_SEED;
const STEPS = Number(process.env.SHADOW_STEPS ?? 12_500);

/** Few frames and few indices, so that tables are shared, nested in each other and reused all the time. */
const TABLES = Array.from({ length: 14 }, (_, i) => 0x1000 * (i + 1)).concat(0x1_0000_0000, 0x20_1000);
const DATA = Array.from({ length: 8 }, (_, i) => 0x40_0000 + i * 0x1000).concat(0x1_0000_1000, 0x1000, 0x3000);
const TOP = [0, 1, 256, 511];
const MIDDLE = [0, 1, 511];
const LOW = [0, 1, 2, 3, 9];
const KINDS: readonly Kind[] = ['read', 'write', 'exec'];

class RandomGuest {
  readonly machine: TestMachine;
  private readonly random: Random;
  private readonly la57: boolean;
  private readonly vcpus: number;

  constructor(random: Random, options: TestMachineOptions, la57: boolean) {
    this.random = random;
    this.la57 = la57;
    this.vcpus = options.vcpus ?? 1;
    this.machine = new TestMachine(options);
    for (const table of TABLES) {
      for (const index of new Set([...TOP, ...MIDDLE, ...LOW])) this.machine.store(table + index * 8, this.entry());
    }
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) this.switchRoot(vcpu);
  }

  private mode(): number {
    const nx = this.random.chance(90) ? MODE_NX : 0;
    return nx | (this.random.chance(80) ? MODE_SMEP : 0) | (this.la57 ? MODE_LA57 : 0);
  }

  private switchRoot(vcpu: number): void {
    const { random } = this;
    const cr3 = random.chance(97) ? random.pick(TABLES) : 0x5000_0000;
    const userCr3 = random.chance(90) ? cr3 : random.pick(TABLES);
    this.machine.load(cr3, this.mode(), { vcpu, userCr3, flush: random.chance(50) });
  }

  va(): bigint {
    const { random } = this;
    const index = [random.pick(TOP), random.pick(MIDDLE), random.pick(MIDDLE), random.pick(LOW)];
    let va = this.la57 ? BigInt(random.pick([0, 1, 511])) : 0n;
    for (const i of index) va = (va << 9n) | BigInt(i);
    return BigInt.asUintN(64, BigInt.asIntN(this.la57 ? 57 : 48, va << 12n)) | BigInt(random.below(512) * 8);
  }

  private entry(): bigint {
    const { random } = this;
    let flags = random.chance(98) ? 1n : 0n;
    if (random.chance(90)) flags |= 2n;
    if (random.chance(85)) flags |= 4n;
    if (random.chance(60)) flags |= 0x20n;
    if (random.chance(50)) flags |= 0x40n;
    if (random.chance(5)) flags |= 1n << 63n;
    if (random.below(300) === 0) flags |= 1n << 50n;
    const what = random.below(100);
    if (what < 66) return flags | BigInt(random.pick(TABLES));
    if (what < 82) return flags | BigInt(random.pick(DATA));
    if (what < 94) return flags | 0x80n | BigInt(random.pick([0, 0x20_0000, 0x40_0000, 0x1_0000_0000, 0x4000_0000]));
    if (what < 96) return flags | 0x80n | BigInt(random.pick(TABLES));
    return flags | BigInt(random.pick([0x60_0000, 0xfee0_0000, 0x7_0000_0000]));
  }

  /** What a guest's fault handler does: makes the tables lead to a page, wherever they do not. */
  private map(cr3: number, va: bigint): void {
    let table = cr3;
    for (let level = this.la57 ? 5 : 4; level >= 1; level--) {
      const at = table + Number((va >> BigInt(12 + 9 * (level - 1))) & 511n) * 8;
      if (this.machine.gpaToHpa(at) < 0) return;
      let entry = this.machine.read(at);
      if ((entry & 1n) === 0n || (level > 3 && (entry & 0x80n) !== 0n) || (entry & (1n << 50n)) !== 0n) {
        entry = (this.entry() & ~0x000f_ffff_ffff_f080n) | BigInt(this.random.pick(level === 1 ? DATA : TABLES));
        this.machine.store(at, entry);
      }
      if (level > 1 && (entry & 0x80n) !== 0n) return;
      table = Number(entry & 0x000f_ffff_ffff_f000n);
    }
  }

  private slotOfTable(): number {
    return this.random.pick(TABLES) + this.random.pick([...TOP, ...MIDDLE, ...LOW]) * 8;
  }

  step(): void {
    const { random, machine } = this;
    const vcpu = random.below(this.vcpus);
    const at = this.slotOfTable();
    const old = machine.read(at);
    switch (random.below(20)) {
      case 0:
        this.switchRoot(vcpu);
        break;
      case 1:
        machine.store(at, 0n);
        break;
      case 2:
        machine.store(at, old ^ random.pick([1n, 2n, 4n, 0x80n, 1n << 63n]));
        break;
      case 3:
        machine.store(at, old & ~random.pick([0x20n, 0x40n, 0x60n]));
        break;
      case 4: // a partial or misaligned write, perhaps across two entries or two pages
        machine.store(at + random.below(8) - 4, this.entry(), random.pick([1, 2, 4, 8]));
        break;
      case 5: // the page is used for data, then (perhaps) as a table again
        if (random.chance(15))
          for (let i = 0, base = random.pick(TABLES); i < 12; i++)
            machine.store(base + random.pick([...TOP, ...LOW]) * 8, 0x5a5a_5a5a_0000_0000n | BigInt(i * 2));
        break;
      case 6: // a device writes, and says so afterwards
        machine.view.setBigUint64(machine.gpaToHpa(at), this.entry(), true);
        machine.mmu.guestWrote(machine.gpaToHpa(at) - 16, 32);
        break;
      case 7:
        machine.store(at, machine.read(this.slotOfTable()));
        break;
      case 8:
        if (random.chance(10)) machine.mmu.zapGfn(random.pick([...TABLES, ...DATA]));
        else if (random.chance(3)) machine.mmu.zapAll();
        else machine.mmu.invlpg(vcpu, 0, 0);
        break;
      case 9:
        machine.expect(random.chance(50), this.va(), 'write', BigInt(random.below(256)), vcpu);
        break;
      case 10: {
        const va = this.va();
        const user = random.below(2);
        const filled = machine.mmu.prefault(vcpu, user, Number(BigInt.asIntN(32, va)), Number(BigInt.asIntN(32, va >> 32n)), random.below(3));
        if (filled) machine.expect(user === 1, va, 'read', 0n, vcpu);
        break;
      }
      default:
        machine.store(at, this.entry());
    }
    for (let i = 0; i < 3; i++) {
      const on = random.below(this.vcpus);
      const va = this.va();
      const loaded = machine.slots[on]?.[machine.mmu.slot(on)];
      if (i > 0 && loaded !== undefined) this.map(loaded.kernel, va);
      machine.expect(random.chance(50), va, random.pick(KINDS), BigInt(random.below(256)), on);
    }
  }
}

interface Case {
  name: string;
  options: TestMachineOptions;
  la57: boolean;
}

const CASES: readonly Case[] = [
  { name: 'four levels, pool of 64 frames', options: {}, la57: false },
  { name: 'four levels, no prefetch, RAM not aligned to 2 MiB', options: { prefetch: 1, aligned: false }, la57: false },
  { name: 'four levels, two vCPUs, room for everything', options: { vcpus: 2, poolFrames: 600 }, la57: false },
  { name: 'five levels, two vCPUs, pool of 64 frames', options: { vcpus: 2, prefetch: 64 }, la57: true },
];

function seedsFor(index: number): number[] {
  if (FIXED_SEED !== undefined) return [Number(FIXED_SEED)];
  return [1000 + index, (Date.now() % 1_000_000) * 10 + index];
}

describe('random guests never see a difference between the shadow and their own tables', () => {
  for (const [index, { name, options, la57 }] of CASES.entries()) {
    for (const seed of seedsFor(index)) {
      it(`${name} (SHADOW_SEED=${seed})`, () => {
        const random = new Random(seed);
        const guest = new RandomGuest(random, options, la57);
        guest.machine.illegal = (va) => va >> 39n === 0x1ff_ffffn - 255n && !la57;
        for (let step = 0; step < STEPS; step++) {
          try {
            guest.step();
            if (step % 25 === 0) guest.machine.checkTlbs();
            if (step % 250 === 0) guest.machine.mmu.check();
          } catch (cause) {
            throw new Error(`SHADOW_SEED=${seed} step ${step}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
          }
        }
        const stats = guest.machine.mmu.stats();
        expect(stats.faultsFixed).toBeGreaterThan(STEPS / 20);
        expect(stats.pteWritesVisible).toBeGreaterThan(STEPS / 100);
      });
    }
  }
});
