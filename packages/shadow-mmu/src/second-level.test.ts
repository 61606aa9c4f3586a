import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_WRITE,
  EPT_QUAL_MISCONFIG,
  PAGING_EPT,
  S_CR0,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_QUAL,
  V_EPT_ROOT,
  V_PAGING,
} from '@pvm/cpu-jit/layout';
import { CPU, RAM_BASE, RAM_BYTES, RuntimeMachine } from '@pvm/cpu-jit/testing';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { EPT_R, EPT_RWX, EPT_W, EPT_X, SECOND_LEVEL_FIXED, SECOND_LEVEL_MMIO, SecondLevel } from './index.ts';
import { EPT_A, EPT_D } from './second-level-entry.ts';
import { Random } from './testing/random.ts';

const PAGE = 0x1000;
const MIB = 0x10_0000;
const GIB = 0x4000_0000;
const POOL_FRAMES = 32;
/** 12 MiB of RAM at 0, 1 GiB at 1 GiB (of which no byte is there to be touched), one page just below 4 GiB. */
const RAM_LOW = 12 * MIB;
const FAR = 0xffff_f000;
const gpaToHpa = (gpa: number): number => {
  if (gpa < RAM_LOW) return RAM_BASE + gpa;
  if (gpa >= GIB && gpa < 2 * GIB) return gpa;
  return gpa >= FAR && gpa < FAR + PAGE ? RAM_BASE + RAM_LOW + (gpa - FAR) : -1;
};
const NEED: Record<number, number> = { [ACCESS_READ]: EPT_R, [ACCESS_WRITE]: EPT_W, [ACCESS_EXEC]: EPT_X };
type Answer = 'fixed' | 'mmio' | 'denied' | 'misconfiguration';

let m: RuntimeMachine;
let table: SecondLevel;
/** What the exits of the last access were. */
let exits: Answer[] = [];
beforeAll(async () => {
  m = await RuntimeMachine.create();
});

function start(largestLevel: 1 | 2 | 3 = 3): void {
  m.reset();
  table = new SecondLevel({
    memory: m.memory.buffer,
    framePoolBase: RAM_BASE + RAM_BYTES - POOL_FRAMES * PAGE,
    framePoolFrames: POOL_FRAMES,
    gpaToHpa,
    flush: () => m.rt.tlbFlushAll(CPU),
    largestLevel,
  });
  m.set(V_PAGING, PAGING_EPT);
  m.set(V_EPT_ROOT, table.root);
  // Paging off: linear addresses are guest-physical.
  m.set(S_CR0, 1);
  m.hooks.mmuFault = () => {
    const gpa = Number(m.get64(S_EXIT_GPA));
    if ((m.get(S_EXIT_QUAL) & EPT_QUAL_MISCONFIG) !== 0) {
      const result = table.misconfiguration(gpa);
      exits.push('misconfiguration');
      return result === SECOND_LEVEL_FIXED ? 0 : 3;
    }
    const result = table.violation(gpa, NEED[m.get(S_EXIT_ACCESS)] ?? 0);
    exits.push(result === SECOND_LEVEL_FIXED ? 'fixed' : result === SECOND_LEVEL_MMIO ? 'mmio' : 'denied');
    return result === SECOND_LEVEL_FIXED ? 0 : 3;
  };
}
beforeEach(() => start());

/** One access by the CPU: the HPA, or 0. */
function access(gpa: number, kind: number): number {
  exits = [];
  const hpa = m.rt.translate(CPU, BigInt(gpa), kind) >>> 0;
  m.takeException();
  return hpa;
}
const dirtyPages = (bits: Uint32Array) =>
  [...bits].flatMap((word, w) => Array.from({ length: 32 }, (_, n) => n).flatMap((n) => ((word >>> n) & 1 ? [w * 32 + n] : [])));

describe('second-level tables, as the CPU walks them', () => {
  it('takes the largest page that is aligned and all RAM: 1 GiB, 2 MiB, 4 KiB', () => {
    expect(access(GIB + 0x1234_5678, ACCESS_READ)).toBe(GIB + 0x1234_5678);
    expect(access(5 * MIB, ACCESS_WRITE)).toBe(RAM_BASE + 5 * MIB);
    expect(access(FAR + 8, ACCESS_EXEC)).toBe(RAM_BASE + RAM_LOW + 8);
    expect([GIB, 5 * MIB, FAR].map((gpa) => table.lookup(gpa).level)).toEqual([3, 2, 1]);
    expect(table.stats()).toMatchObject({ leaves1G: 1, leaves2M: 1, leaves4K: 1, flushes: 0 });
    table.check();
  });

  it('exits once for each page, and not again', () => {
    for (const kind of [ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC]) {
      access(MIB, kind);
      expect(exits).toEqual(kind === ACCESS_READ ? ['fixed'] : []);
    }
  });

  it('marks device memory on the first access, so that later ones are misconfigurations', () => {
    expect(access(0xfee0_0000, ACCESS_READ)).toBe(0);
    expect(exits).toEqual(['mmio']);
    access(0xfee0_0ff8, ACCESS_WRITE);
    expect(exits).toEqual(['misconfiguration']);
    table.check();
  });

  it('says which entry was overwritten instead of taking it for device memory', () => {
    access(0, ACCESS_READ);
    const view = new DataView(m.memory.buffer);
    view.setUint32(table.root, view.getUint32(table.root, true) | 0x40, true);
    expect(() => table.check()).toThrow('reserved bits 3-6');
    expect(() => table.misconfiguration(0)).toThrow('reserved bits 3-6 of a table entry');
  });

  it('gives a range the rights set for it, and splits pages around it', () => {
    access(MIB, ACCESS_WRITE);
    table.setRights(MIB, PAGE, EPT_R);
    expect(access(MIB, ACCESS_READ)).not.toBe(0);
    expect(access(MIB, ACCESS_WRITE)).toBe(0);
    expect(exits).toEqual(['denied']);
    expect(access(MIB, ACCESS_EXEC)).toBe(0);
    expect(access(MIB + PAGE, ACCESS_WRITE)).not.toBe(0);
    table.setRights(MIB, PAGE, EPT_RWX);
    expect(access(MIB, ACCESS_WRITE)).not.toBe(0);
    table.check();
    expect(() => table.setRights(0, PAGE, EPT_W)).toThrow(RangeError);
    expect(() => table.setRights(0, 100, EPT_R)).toThrow('whole 4 KiB pages');
  });

  it('hands the marks of a split page to its parts', () => {
    access(3 * MIB, ACCESS_WRITE);
    table.unmap(2 * MIB, PAGE);
    const { low, level } = table.lookup(3 * MIB);
    expect([level, low & (EPT_A | EPT_D)]).toEqual([1, EPT_A | EPT_D]);
    expect(table.lookup(2 * MIB).low).toBe(0);
    table.check();
  });

  it('logs the pages written, once each, and drops no write when a page is unmapped in between', () => {
    for (const gpa of [0, 2 * MIB]) access(gpa, ACCESS_WRITE);
    table.startDirtyLog(0, 4 * MIB);
    expect(dirtyPages(table.takeDirty())).toEqual([]);
    access(0x5000, ACCESS_WRITE);
    access(0x6000, ACCESS_READ);
    access(3 * MIB, ACCESS_WRITE);
    table.unmap(3 * MIB, PAGE);
    table.markDirty(0x9_0ff0, 32);
    expect(dirtyPages(table.takeDirty())).toEqual([5, 0x90, 0x91, 768]);
    expect(dirtyPages(table.takeDirty())).toEqual([]);
    access(0x5000, ACCESS_WRITE);
    expect(dirtyPages(table.takeDirty())).toEqual([5]);
    table.check();
    table.stopDirtyLog();
    access(0x5000, ACCESS_WRITE);
    expect(table.lookup(0x5000).level).toBe(2);
    expect(() => table.takeDirty()).toThrow('startDirtyLog');
  });

  it('counts the pages used since it was last asked', () => {
    access(0, ACCESS_READ);
    access(4 * MIB, ACCESS_READ);
    expect(table.takeAccessed(0, RAM_LOW)).toBe(2);
    expect(table.takeAccessed(0, RAM_LOW)).toBe(0);
    access(0, ACCESS_READ);
    expect(table.takeAccessed(0, RAM_LOW)).toBe(1);
  });

  it('with every frame in use drops everything and goes on', () => {
    start(1);
    // Each 2 MiB needs a table of its own, and so do addresses far apart in which there is nothing.
    for (let i = 0; i < 64; i++) {
      expect(access((i % 6) * 2 * MIB, ACCESS_WRITE)).toBe(RAM_BASE + (i % 6) * 2 * MIB);
      expect(table.violation(0x10_0000_0000 * (i + 1), EPT_R)).toBe(SECOND_LEVEL_MMIO);
      table.check();
    }
    expect(table.stats().reclaims).toBeGreaterThan(2);
  });
});

describe('random second-level tables agree with a plain model', () => {
  for (const seed of [1, Date.now() % 1_000_000]) {
    it(`SECOND_LEVEL_SEED=${process.env.SECOND_LEVEL_SEED ?? seed}`, () => {
      const random = new Random(Number(process.env.SECOND_LEVEL_SEED ?? seed));
      const rights = new Map<number, number>();
      const written = new Set<number>();
      let log: [number, number] | undefined;
      const address = () =>
        random.pick([0, 0x1000, 0x1f_f000, 0x20_0000, 0x5f_f000, 0xbf_f000, 0xc0_0000, GIB, GIB + 0x20_0000, FAR, 0xfee0_0000]) + random.below(512) * 8;
      const block = () => random.below(6) * 0x20_0000 + random.pick([0, 0x1000, 0x1f_f000]);
      for (let step = 0; step < 20_000; step++) {
        const gpa = address();
        switch (random.below(100)) {
          case 0:
            table.unmap(block(), random.pick([PAGE, 0x20_0000]));
            break;
          case 1: {
            const [at, right] = [block(), random.pick([EPT_R, EPT_RWX, EPT_R | EPT_W, 0, EPT_X])];
            table.setRights(at, PAGE, right);
            rights.set(at, right);
            break;
          }
          case 2:
            log = [block(), random.pick([PAGE, 0x20_0000])];
            table.startDirtyLog(...log);
            written.clear();
            break;
          case 3:
            if (log === undefined) break;
            expect(dirtyPages(table.takeDirty()).map((page) => (log?.[0] ?? 0) + page * PAGE)).toEqual([...written].sort((a, b) => a - b));
            written.clear();
            break;
          case 4:
            table.stopDirtyLog();
            log = undefined;
            break;
          case 5:
            table.check();
            break;
          default: {
            const kind = random.pick([ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC]);
            const page = gpa - (gpa % PAGE);
            const allowed = gpaToHpa(gpa) >= 0 && ((rights.get(page) ?? EPT_RWX) & (NEED[kind] ?? 0)) !== 0;
            expect(access(gpa, kind)).toBe(allowed ? gpaToHpa(gpa) : 0);
            if (allowed && kind === ACCESS_WRITE && log !== undefined && page >= log[0] && page < log[0] + log[1]) written.add(page);
          }
        }
      }
      table.check();
    });
  }
});
