/**
 * A machine to test the shadow MMU on: plain memory, soft TLBs that keep every translation until they are told to drop it, and a walker for the shadow
 * tables that knows only what a CPU would see. Every access is compared with the oracle.
 */
import { FAULT_FIXED, FAULT_MMIO, FAULT_PF, FAULT_TRACKED, MODE_LA57, ShadowMmu } from '../index.ts';
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../paging.ts';
import { type Kind, type OracleMachine, oracle, type Verdict } from './oracle.ts';

const MIB = 0x10_0000;
const KINDS: Record<Kind, number> = { read: ACCESS_READ, write: ACCESS_WRITE, exec: ACCESS_EXEC };

interface Translation {
  page: number;
  writable: boolean;
  executable: boolean;
}

export interface TestMachineOptions {
  vcpus?: number;
  poolFrames?: number;
  prefetch?: number;
  /** Guest RAM starts on a 2 MiB boundary of linear memory, so large shadow leaves are possible. */
  aligned?: boolean;
  largePages?: boolean;
}

/** Guest RAM: 6 MiB at 0 and 2 MiB at 4 GiB. Anything else is MMIO. */
const RAM_LOW = 6 * MIB;
const RAM_HIGH = 2 * MIB;
const FOUR_GIB = 0x1_0000_0000;
/** Where `store` keeps the value while it is emulated. */
const SCRATCH = 64;

export class TestMachine implements OracleMachine {
  readonly view: DataView;
  readonly mmu: ShadowMmu;
  readonly physicalAddressBits = 46;
  readonly poolBase = MIB;
  readonly ramBase: number;
  readonly tlb: Map<bigint, Translation>[][];
  /** Tables and mode each slot was loaded with. */
  readonly slots: { kernel: number; user: number; mode: number }[][];
  readonly vcpus: number;
  illegal = (_va: bigint): boolean => false;

  constructor(options: TestMachineOptions = {}) {
    const { vcpus = 1, poolFrames = 64, prefetch = 8, aligned = true, largePages = true } = options;
    this.vcpus = vcpus;
    this.ramBase = 4 * MIB + (aligned ? 0 : 0x3000);
    this.view = new DataView(new ArrayBuffer(this.ramBase + RAM_LOW + RAM_HIGH));
    this.tlb = Array.from({ length: vcpus }, () => Array.from({ length: 32 }, () => new Map()));
    this.slots = Array.from({ length: vcpus }, () => []);
    this.mmu = new ShadowMmu({
      memory: this.view.buffer,
      framePoolBase: this.poolBase,
      framePoolFrames: poolFrames,
      ramBase: this.ramBase,
      ramBytes: RAM_LOW + RAM_HIGH,
      gpaToHpa: this.gpaToHpa,
      vcpus,
      prefetch,
      largePages,
      flush: {
        flushArray: (vcpu, array) => this.array(vcpu, array).clear(),
        invlpg: (vcpu, array, low, high) => this.array(vcpu, array).delete(((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)) >> 12n),
        flushAll: (vcpu) => {
          for (let i = 0; i < 32; i++) this.array(vcpu, i).clear();
        },
      },
      isLegal: this.isLegal,
    });
  }

  readonly gpaToHpa = (gpa: number): number => {
    if (gpa < RAM_LOW) return this.ramBase + gpa;
    if (gpa >= FOUR_GIB && gpa < FOUR_GIB + RAM_HIGH) return this.ramBase + RAM_LOW + (gpa - FOUR_GIB);
    return -1;
  };

  readonly isLegal = (vaLow: number, vaHigh: number): boolean => !this.illegal((BigInt(vaHigh >>> 0) << 32n) | BigInt(vaLow >>> 0));

  array(vcpu: number, array: number): Map<bigint, Translation> {
    const map = this.tlb[vcpu]?.[array];
    if (map === undefined) throw new Error(`no TLB array ${array} of vCPU ${vcpu}`);
    return map;
  }

  load(cr3: number, mode: number, options: { vcpu?: number; userCr3?: number; flush?: boolean } = {}): void {
    const { vcpu = 0, userCr3 = cr3, flush = false } = options;
    const slot = this.mmu.load(vcpu, cr3, userCr3, mode, flush);
    const slots = this.slots[vcpu];
    if (slots !== undefined) slots[slot] = { kernel: cr3, user: userCr3, mode };
  }

  read(gpa: number): bigint {
    return this.view.getBigUint64(this.gpaToHpa(gpa), true);
  }

  /** A guest store by physical address, as it happens through whatever mapping the guest uses for its tables. */
  store(gpa: number, value: bigint, size = 8): void {
    const hpa = this.gpaToHpa(gpa);
    if (hpa < 0) return;
    this.view.setBigUint64(SCRATCH, value, true);
    const inPage = Math.min(size, 4096 - (gpa & 0xfff));
    if (this.mmu.isTracked(hpa)) this.mmu.emulateWrite(hpa, inPage, SCRATCH);
    else for (let i = 0; i < inPage; i++) this.view.setUint8(hpa + i, this.view.getUint8(SCRATCH + i));
    if (inPage < size) this.store(gpa + inPage, value >> BigInt(inPage * 8), size - inPage);
  }

  /** The shadow tables as the Wasm walker reads them. */
  private walkShadow(root: number, levels: number, va: bigint): Translation | undefined {
    let table = root;
    let writable = true;
    let executable = true;
    for (let level = levels; level >= 1; level--) {
      const shift = BigInt(12 + 9 * (level - 1));
      const entry = this.view.getBigUint64(table + Number((va >> shift) & 511n) * 8, true);
      if ((entry & 5n) !== 5n) return undefined;
      writable &&= (entry & 2n) !== 0n;
      executable &&= entry >> 63n === 0n;
      const address = entry & 0x000f_ffff_ffff_f000n;
      const mask = (1n << shift) - 1n;
      if (level > 1 && (entry & 0x80n) === 0n) table = Number(address);
      else if ((address & mask) !== 0n && level > 1) throw new Error('large shadow leaf is not aligned');
      else return { page: Number((address | (va & mask)) & ~0xfffn), writable, executable };
    }
    return undefined;
  }

  /** One access of guest code. Returns what happened; a store to a page table is emulated with `value`. */
  access(user: boolean, va: bigint, kind: Kind, value = 0n, vcpu = 0): Verdict {
    const { mmu } = this;
    const array = this.array(vcpu, mmu.slot(vcpu) * 2 + (user ? 1 : 0));
    const root = user ? mmu.userRoot(vcpu) : mmu.kernelRoot(vcpu);
    const offset = Number(va & 0xfffn);
    const permits = (t: Translation) => (kind === 'read' ? true : kind === 'write' ? t.writable : t.executable);
    for (let tries = 0; tries < 4; tries++) {
      let hit = array.get(va >> 12n);
      if (hit === undefined || !permits(hit)) {
        hit = this.walkShadow(root, mmu.levels(vcpu), va);
        if (hit !== undefined && permits(hit)) array.set(va >> 12n, hit);
        else hit = undefined;
      }
      if (hit !== undefined) {
        if (kind === 'write') this.view.setUint8(hit.page + offset, Number(value & 0xffn));
        return { kind: 'ram', hpa: hit.page + offset, marked: true };
      }
      switch (mmu.fault(vcpu, user ? 1 : 0, Number(BigInt.asIntN(32, va)), Number(BigInt.asIntN(32, va >> 32n)), KINDS[kind])) {
        case FAULT_FIXED:
          continue;
        case FAULT_PF:
          return { kind: 'fault', code: mmu.errorCode };
        case FAULT_MMIO:
          return { kind: 'mmio', gpa: mmu.faultGpa };
        case FAULT_TRACKED: {
          const hpa = mmu.faultHpa;
          this.view.setBigUint64(SCRATCH, value, true);
          mmu.emulateWrite(hpa, 1, SCRATCH);
          return { kind: 'ram', hpa, marked: true };
        }
      }
    }
    throw new Error(`access at ${va.toString(16)} does not come to an end`);
  }

  /** An access, compared with what the guest's tables say. Returns the verdict both agree on. */
  expect(user: boolean, va: bigint, kind: Kind, value = 0n, vcpu = 0): Verdict {
    const loaded = this.slots[vcpu]?.[this.mmu.slot(vcpu)];
    if (loaded === undefined) throw new Error('nothing is loaded');
    const cr3 = user ? loaded.user : loaded.kernel;
    const before = oracle(this, cr3, loaded.mode, user, va, kind);
    const entriesBefore = before.kind === 'ram' && kind === 'write' ? this.trace(cr3, loaded.mode, va) : [];
    const got = this.access(user, va, kind, value, vcpu);
    const where = `${user ? 'user' : 'kernel'} ${kind} at ${va.toString(16)}, cr3 ${cr3.toString(16)}, mode ${loaded.mode}`;
    if (got.kind !== before.kind) throw new Error(`${where}: tables say ${show(before)}, shadow ${show(got)}`);
    if (got.kind === 'fault' && before.kind === 'fault' && got.code !== before.code)
      throw new Error(`${where}: tables say ${show(before)}, shadow ${show(got)}`);
    if (got.kind === 'mmio' && before.kind === 'mmio' && got.gpa !== before.gpa) throw new Error(`${where}: tables say ${show(before)}, shadow ${show(got)}`);
    if (got.kind === 'ram' && before.kind === 'ram') {
      if (got.hpa !== before.hpa) throw new Error(`${where}: tables say ${show(before)}, shadow ${show(got)}`);
      // A write may have hit one of the very entries it was translated by; then the marks cannot be read back.
      const overwritten = entriesBefore.some((entry) => entry === (got.hpa & ~7));
      const after = overwritten ? undefined : oracle(this, cr3, loaded.mode, user, va, kind);
      if (after !== undefined && after.kind === 'ram' && !after.marked) throw new Error(`${where}: accessed or dirty bit is missing`);
    }
    return got;
  }

  /** HPAs of the guest entries a translation uses. */
  private trace(cr3: number, mode: number, va: bigint): number[] {
    const entries: number[] = [];
    let table = this.gpaToHpa(cr3);
    for (let level = (mode & MODE_LA57) !== 0 ? 5 : 4; level >= 1 && table >= 0; level--) {
      const at = table + Number((va >> BigInt(12 + 9 * (level - 1))) & 511n) * 8;
      entries.push(at);
      const entry = this.view.getBigUint64(at, true);
      if (level > 1 && (entry & 0x80n) !== 0n) break;
      table = this.gpaToHpa(Number(entry & 0x000f_ffff_ffff_f000n));
    }
    return entries;
  }

  /** Every translation still cached anywhere is one the guest's tables allow now, and none writes a page in use as a table. */
  checkTlbs(): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      for (let index = 0; index < 32; index++) {
        const loaded = this.slots[vcpu]?.[index >> 1];
        for (const [page, entry] of this.array(vcpu, index)) {
          if (loaded === undefined) throw new Error(`vCPU ${vcpu} array ${index} caches ${(page << 12n).toString(16)} although its slot is empty`);
          const user = (index & 1) !== 0;
          const kinds: Kind[] = ['read', ...(entry.writable ? (['write'] as const) : []), ...(entry.executable ? (['exec'] as const) : [])];
          for (const kind of kinds) {
            const verdict = oracle(this, user ? loaded.user : loaded.kernel, loaded.mode, user, page << 12n, kind);
            if (verdict.kind !== 'ram' || verdict.hpa !== entry.page || !verdict.marked) {
              throw new Error(`vCPU ${vcpu} array ${index} still allows ${kind} of ${(page << 12n).toString(16)}: tables say ${show(verdict)}`);
            }
          }
          if (entry.writable && this.mmu.isTracked(entry.page)) throw new Error(`vCPU ${vcpu} array ${index} may write a page table`);
        }
      }
    }
  }
}

function show(verdict: Verdict): string {
  return JSON.stringify(verdict, (_key, value) => (typeof value === 'number' ? `0x${value.toString(16)}` : value));
}
