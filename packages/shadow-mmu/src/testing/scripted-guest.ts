/**
 * A guest that follows a test's script, in any MMU mode. It flushes as a guest must, so what the plain walker reads from its tables is what each access must come to.
 */
import { expect } from 'vitest';
import { gpaToHpa } from './guest-ram.ts';
import type { Tables, WalkerOptions } from './hypervisor-tables.ts';
import { EXEC, PlainGuest, READ, type Registers, type Verdict, WRITE } from './plain-guest.ts';
import { WalkerMachine } from './walker-machine.ts';

export const KINDS = { read: READ, write: WRITE, exec: EXEC } as const;
export type Kind = keyof typeof KINDS;

export class ScriptedGuest {
  readonly machine: WalkerMachine;
  private readonly plain: PlainGuest;

  private constructor(machine: WalkerMachine, isPvm: boolean) {
    this.machine = machine;
    this.plain = new PlainGuest(machine.memory.buffer, isPvm, machine.mmu !== undefined);
  }

  /** A guest with 4-level paging on, whose CR3 is `cr3`. */
  static async create(tables: Tables, cr3: number, options: WalkerOptions = {}, registers: Partial<Registers> = {}): Promise<ScriptedGuest> {
    const guest = new ScriptedGuest(await WalkerMachine.create(tables, options), tables === 'pvm');
    Object.assign(guest.plain.regs, { cr3, ...registers });
    guest.machine.setRegisters(guest.plain.regs);
    guest.plain.flushAll(true);
    return guest;
  }

  /** Writes an entry of a table. */
  set(table: number, index: number, entry: bigint): void {
    this.machine.store(table + index * 8, 8, Number(BigInt.asIntN(32, entry)), Number(BigInt.asIntN(32, entry >> 32n)));
    this.plain.touched(gpaToHpa(table + index * 8));
  }
  /** The entry as it is now, with the marks that walks have set. */
  entry(table: number, index: number): bigint {
    return this.machine.view.getBigUint64(gpaToHpa(table) + index * 8, true);
  }

  load(cr3: number, { pcid = 0, flush = true } = {}): void {
    this.machine.loadCr3(cr3, pcid, flush);
    this.plain.loadCr3(cr3, pcid, flush);
  }
  invlpg(va: bigint): void {
    const [low, high] = halves(va);
    this.machine.invlpg(low, high);
    this.plain.invlpg(low, high);
  }
  flushAll(): void {
    this.machine.flushAll();
    this.plain.flushAll();
  }

  /** One access, which must come to what the tables say now. A write stores `value`. */
  access(user: boolean, va: bigint, kind: Kind, value = 0): Verdict {
    const [low, high] = halves(va);
    const access = { low, high, user, kind: KINDS[kind], ac: false };
    const wanted = { ...this.plain.walk(access) };
    const { path } = this.plain;
    const got = { ...this.machine.access(access, value) };
    for (const hpa of path) this.plain.touched(hpa);
    if (kind === 'write' && got.kind === 'ram') this.plain.touched(got.value);
    expect(got, `${user ? 'user' : 'kernel'} ${kind} at ${va.toString(16)}`).toEqual(wanted);
    return got;
  }

  /** The structure of the tables under test is sound. */
  check(): void {
    this.machine.check();
  }
}

/** RAM at a guest-physical address, as a verdict. */
export function ram(gpa: number): Verdict {
  return { kind: 'ram', value: gpaToHpa(gpa) };
}

function halves(va: bigint): [low: number, high: number] {
  return [Number(BigInt.asIntN(32, va)), Number(BigInt.asIntN(32, va >> 32n))];
}
