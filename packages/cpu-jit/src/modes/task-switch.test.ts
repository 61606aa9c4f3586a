import { afterAll, describe, expect, test } from 'vitest';
import { CS, DS, ES, FS, GS, LDTR, S_CR0, SS, TR } from '../layout.ts';
import { AT, descriptor, dpl, END, EventMachine, FLAG, flat, gate, le, SEL, TYPE, VEC } from '../testing/event-machine.ts';

/** SDM vol. 3, chapter 8. */

const NEW_CODE = 0x5800;
const NEW_STACK = 0x7000;
const CR0_TS = 8;
const LDT_SELECTOR = SEL.ldt;
const BUSY_BYTE = (selector: number) => AT.gdt + selector + 5;
const REGISTERS = ['eax', 'ecx', 'edx', 'ebx', 'esp', 'ebp', 'esi', 'edi'] as const;

interface NewTask {
  readonly cs?: number;
  readonly ss?: number;
  readonly ds?: number;
  readonly es?: number;
  readonly fs?: number;
  readonly gs?: number;
  readonly ldt?: number;
  readonly flags?: number;
  readonly ip?: number;
  readonly trap?: number;
}
/** Fills the TSS of the task that is switched to, in the 32-bit layout (SDM vol. 3, figure 8-2) or the 16-bit one (figure 8-10). */
function newTask(m: EventMachine, t: NewTask = {}, wide = true): void {
  const { cs = SEL.code0, ss = SEL.data0, ds = SEL.data0, es = SEL.data0, fs = 0, gs = 0, ldt = 0, flags = 2, ip = NEW_CODE } = t;
  const at = AT.tss2;
  if (wide) {
    m.u32(at + 32, ip);
    m.u32(at + 36, flags);
    for (let n = 0; n < 8; n++) m.u32(at + 40 + n * 4, n === 4 ? NEW_STACK : 0x1111_0000 + n);
    for (const [n, s] of [es, cs, ss, ds, fs, gs].entries()) m.u32(at + 72 + n * 4, s);
    m.u32(at + 96, ldt);
    m.u16(at + 100, t.trap ?? 0);
  } else {
    m.u16(at + 14, ip);
    m.u16(at + 16, flags);
    for (let n = 0; n < 8; n++) m.u16(at + 18 + n * 2, n === 4 ? NEW_STACK : 0x2220 + n);
    for (const [n, s] of [es, cs, ss, ds].entries()) m.u16(at + 34 + n * 2, s);
    m.u16(at + 42, ldt);
    m.gdt(SEL.tss2, descriptor(at, 43, TYPE.tss16));
  }
  m.bytes(ip & 0xffff, [END]);
}

const jmpf = (selector: number) => [0xea, ...le(0, 4), ...le(selector, 2)];
const callf = (selector: number) => [0x9a, ...le(0, 4), ...le(selector, 2)];
const IRET = 0xcf;
const taskGate = (selector: number, level = 0) => gate(selector, 0, TYPE.taskGate | dpl(level));

for (const jit of ['off', 'sync'] as const) {
  describe(`task switches (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());

    /** Code at AT.code in protected mode, `prepare` after the defaults. */
    const run = (code: readonly number[], prepare: () => void = () => {}, task: NewTask = {}, wide = true) =>
      m.runCase(() => {
        m.reset('protected');
        for (const [n] of REGISTERS.entries()) if (n !== 4) m.core.setReg(0, n, BigInt(0x100 + n));
        newTask(m, task, wide);
        prepare();
        m.bytes(AT.code, code);
      });

    test.each([
      ['JMP to a TSS', jmpf(SEL.tss2), 7, false],
      ['CALL to a TSS', callf(SEL.tss2), 7, true],
      ['JMP to a task gate', jmpf(SEL.gate), 7, false],
      ['CALL to a task gate', callf(SEL.gate), 7, true],
      ['INT n through a task gate', [0xcd, 0x40], 2, true],
    ])('%s saves the old task and loads the new one', (_, code, length, nests) => {
      const o = run(code, () => {
        m.gdt(SEL.gate, taskGate(SEL.tss2));
        m.idt(0x40, taskGate(SEL.tss2, 3));
        m.core.setRflags(0, 0x203n);
      });
      // int3 in the new task: the registers of the old one are in its TSS.
      expect(o).toMatchObject({ vector: VEC.BP, ip: NEW_CODE + 1, cs: SEL.code0 });
      expect(o.flags & FLAG.NT).toBe(nests ? FLAG.NT : 0);
      expect(m.read32(AT.tss + 32)).toBe(AT.code + length);
      expect(m.read32(AT.tss + 36)).toBe(0x203);
      expect(REGISTERS.map((_, n) => m.read32(AT.tss + 40 + n * 4))).toEqual(REGISTERS.map((_, n) => (n === 4 ? AT.stack0 : 0x100 + n)));
      expect([ES, CS, SS, DS, FS, GS].map((n) => m.read16(AT.tss + 72 + n * 4))).toEqual([0x10, 0x08, 0x10, 0x10, 0x10, 0x10]);
      expect(REGISTERS.map((_, n) => m.reg(n))).toEqual(REGISTERS.map((_, n) => (n === 4 ? NEW_STACK - 12 : 0x1111_0000 + n)));
      expect(m.selector(TR)).toBe(SEL.tss2);
      expect(m.get(S_CR0) & CR0_TS).toBe(CR0_TS);
      expect(m.read16(AT.tss2)).toBe(nests ? SEL.tss : 0);
      expect(m.core.u8[m.core.ramBase + BUSY_BYTE(SEL.tss)]).toBe(nests ? 0x8b : 0x89);
      expect(m.core.u8[m.core.ramBase + BUSY_BYTE(SEL.tss2)]).toBe(0x8b);
    });

    test('IRET with NT goes back to the task of the back link, and leaves the one it came from available', () => {
      const o = run([...callf(SEL.tss2), END], () => m.bytes(NEW_CODE, [0x40, IRET, END]));
      expect(o).toMatchObject({ vector: VEC.BP, ip: AT.code + 8 });
      expect(o.flags & FLAG.NT).toBe(0);
      expect(m.reg(0)).toBe(0x100);
      expect(m.selector(TR)).toBe(SEL.tss);
      expect(m.core.u8[m.core.ramBase + BUSY_BYTE(SEL.tss)]).toBe(0x8b);
      expect(m.core.u8[m.core.ramBase + BUSY_BYTE(SEL.tss2)]).toBe(0x89);
      // NT is cleared in the image that IRET saves; the next entry goes on after it.
      expect(m.read32(AT.tss2 + 36) & FLAG.NT).toBe(0);
      expect(m.read32(AT.tss2 + 32)).toBe(NEW_CODE + 2);
      expect(m.read32(AT.tss2 + 40)).toBe(0x1111_0001);
    });

    test('a 16-bit TSS holds the lower halves', () => {
      const o = run(jmpf(SEL.tss2), () => {}, { flags: 0x0202, ss: SEL.data16 }, false);
      expect(o).toMatchObject({ vector: VEC.BP, ip: NEW_CODE + 1 });
      expect(o.flags & 0xffff).toBe(0x0202);
      expect(REGISTERS.map((_, n) => m.reg(n) & 0xffff)).toEqual(REGISTERS.map((_, n) => (n === 4 ? NEW_STACK - 12 : 0x2220 + n)));
      expect([m.selector(FS), m.selector(GS)]).toEqual([0, 0]);
      expect(m.selector(TR)).toBe(SEL.tss2);
    });

    test('from a 16-bit TSS a task goes back to a 32-bit one', () => {
      const o = run([...callf(SEL.tss2), END], () => m.bytes(NEW_CODE, [0x43, IRET]), {}, false);
      expect(o).toMatchObject({ vector: VEC.BP, ip: AT.code + 8 });
      expect(m.read16(AT.tss2 + 14)).toBe(NEW_CODE + 2);
      expect(m.read16(AT.tss2 + 24)).toBe(0x2224);
      expect(m.reg(3)).toBe(0x103);
    });

    test('an exception with an error code pushes it on the stack of the new task', () => {
      // mov %ax, %ds with a bad selector
      const o = run([0x66, 0xb8, ...le(0x1f8, 2), 0x8e, 0xd8], () => m.idt(VEC.GP, taskGate(SEL.tss2)), { ip: NEW_CODE });
      expect(o.vector).toBe(VEC.BP);
      expect(m.read32(NEW_STACK - 4)).toBe(0x1f8);
      // The fault is at the instruction, RF set in what was saved.
      expect(m.read32(AT.tss + 32)).toBe(AT.code + 4);
      expect(m.read32(AT.tss + 36) & FLAG.RF).toBe(FLAG.RF);
    });

    test('a task at privilege 3 with an LDT runs with its segments', () => {
      const o = run(
        jmpf(SEL.tss2),
        () => {
          m.u64(AT.ldt, descriptor(AT.data, 0xfff, TYPE.data | dpl(3), 0x40));
          // mov %gs:0x10, %eax
          m.bytes(NEW_CODE, [0x65, 0xa1, ...le(0x10, 4), END]);
          m.u32(AT.data + 0x10, 0xcafe_f00d);
          m.u32(AT.tss2 + 4, AT.stack0);
          m.u32(AT.tss2 + 8, SEL.data0);
        },
        { cs: SEL.code3, ss: SEL.data3, ds: SEL.data3, es: SEL.data3, gs: 0x07, ldt: LDT_SELECTOR },
      );
      expect(m.reg(0)).toBe(0xcafe_f00d);
      expect(m.selector(LDTR)).toBe(LDT_SELECTOR);
      expect(o).toMatchObject({ vector: VEC.BP, ip: NEW_CODE + 7, cs: SEL.code3, ss: SEL.data3, sp: NEW_STACK });
    });

    test('the T flag of the new TSS traps before the first instruction', () => {
      const o = run(jmpf(SEL.tss2), () => {}, { trap: 1 });
      expect(o).toMatchObject({ vector: VEC.DB, ip: NEW_CODE });
      expect(o.flags & FLAG.RF).toBe(0);
    });

    const notPresent = (d: bigint) => d & ~(1n << 47n);
    /** Faults of the old task: nothing has changed. SDM vol. 3, table 8-1. */
    test.each([
      ['a TSS that is busy', jmpf(SEL.tss2), () => m.gdt(SEL.tss2, descriptor(AT.tss2, 0x7f, TYPE.tss32 | 2)), VEC.GP, SEL.tss2],
      ['the current TSS', callf(SEL.tss), () => {}, VEC.GP, SEL.tss],
      ['a TSS that is not present', jmpf(SEL.tss2), () => m.gdt(SEL.tss2, notPresent(descriptor(AT.tss2, 0x7f, TYPE.tss32))), VEC.NP, SEL.tss2],
      ['a TSS that is too small', callf(SEL.tss2), () => m.gdt(SEL.tss2, descriptor(AT.tss2, 102, TYPE.tss32)), VEC.TS, SEL.tss2],
      ['a 16-bit TSS that is too small', callf(SEL.tss2), () => m.gdt(SEL.tss2, descriptor(AT.tss2, 42, TYPE.tss16)), VEC.TS, SEL.tss2],
      ['a TSS by way of the LDT bit', jmpf(SEL.tss2 | 4), () => {}, VEC.GP, SEL.tss2 | 4],
      ['a task gate that is not present', jmpf(SEL.gate), () => m.gdt(SEL.gate, notPresent(taskGate(SEL.tss2))), VEC.NP, SEL.gate],
      ['a task gate to a TSS in the LDT', jmpf(SEL.gate), () => m.gdt(SEL.gate, taskGate(SEL.tss2 | 4)), VEC.GP, SEL.tss2 | 4],
      ['a task gate to no TSS', jmpf(SEL.gate), () => m.gdt(SEL.gate, taskGate(SEL.code0)), VEC.GP, SEL.code0],
      ['a task gate to a busy TSS', jmpf(SEL.gate), () => m.gdt(SEL.gate, taskGate(SEL.tss)), VEC.GP, SEL.tss],
      ['a task gate to a TSS beyond the GDT', jmpf(SEL.gate), () => m.gdt(SEL.gate, taskGate(0x208)), VEC.GP, 0x208],
      ['a task gate of the IDT to a busy TSS', [0xcd, 0x40], () => m.idt(0x40, taskGate(SEL.tss, 3)), VEC.GP, SEL.tss],
      ['a task gate of the IDT that is not present', [0xcd, 0x40], () => m.idt(0x40, notPresent(taskGate(SEL.tss2, 3))), VEC.NP, 0x40 * 8 + 2],
      [
        'IRET to a TSS that is not busy',
        [IRET],
        () => {
          m.u16(AT.tss, SEL.tss2);
          m.core.setRflags(0, BigInt(FLAG.NT | 2));
        },
        VEC.TS,
        SEL.tss2,
      ],
      [
        'IRET to a back link into the LDT',
        [IRET],
        () => {
          m.u16(AT.tss, SEL.tss2 | 4);
          m.core.setRflags(0, BigInt(FLAG.NT | 2));
        },
        VEC.TS,
        SEL.tss2 | 4,
      ],
    ] as const)('%s faults in the old task', (_, code, prepare, vector, error) => {
      const o = run(code, prepare);
      expect(o).toMatchObject({ vector, error, ip: AT.code, cs: SEL.code0 });
      expect(m.selector(TR)).toBe(SEL.tss);
      expect(m.reg(0)).toBe(0x100);
      expect(m.get(S_CR0) & CR0_TS).toBe(0);
    });

    test.each([
      ['CPL above the DPL of a TSS', jmpf(SEL.tss2), VEC.GP, SEL.tss2],
      ['CPL above the DPL of a task gate', callf(SEL.gate), VEC.GP, SEL.gate],
      ['CPL above the DPL of a task gate of the IDT', [0xcd, 0x41], VEC.GP, 0x41 * 8 + 2],
    ] as const)('%s raises #GP', (_, code, vector, error) => {
      const o = run(code, () => {
        m.gdt(SEL.gate, taskGate(SEL.tss2));
        m.idt(0x41, taskGate(SEL.tss2));
        m.toUser();
      });
      expect(o).toMatchObject({ vector, error, ip: AT.code });
    });

    /** Faults of the new task: RIP at its first instruction, handled by a task of its own would be usual; here the handler runs on the new task's stack. */
    test.each([
      ['an LDT selector that names no LDT', { ldt: SEL.data0 }, VEC.TS, SEL.data0],
      ['an LDT selector into the LDT', { ldt: SEL.ldt | 4 }, VEC.TS, SEL.ldt | 4],
      ['a null CS', { cs: 0 }, VEC.TS, 0],
      ['CS naming data', { cs: SEL.data0 }, VEC.TS, SEL.data0],
      ['CS of another privilege', { cs: SEL.code1 & ~3 }, VEC.TS, SEL.code1 & ~3],
      ['CS that is not present', { cs: SEL.gate }, VEC.NP, SEL.gate],
      ['CS beyond the GDT', { cs: 0x208 }, VEC.TS, 0x208],
      ['a null SS', { ss: 0 }, VEC.TS, 0],
      ['SS of another privilege', { ss: SEL.data3 }, VEC.TS, SEL.data3 & ~3],
      ['SS naming code', { ss: SEL.code0 }, VEC.TS, SEL.code0],
      ['SS that is not present', { ss: SEL.gate2 }, VEC.SS, SEL.gate2],
    ] as const)('%s faults in the new task', (_, task, vector, error) => {
      // SS may not be loaded yet, so the handlers are tasks: the first TSS, which JMP has left available.
      const o = run(
        jmpf(SEL.tss2),
        () => {
          m.gdt(SEL.gate, notPresent(flat(TYPE.code)));
          m.gdt(SEL.gate2, notPresent(flat(TYPE.data)));
          for (const v of [VEC.TS, VEC.NP, VEC.SS]) m.idt(v, taskGate(SEL.tss));
          m.bytes(AT.code + 7, [END]);
        },
        task,
      );
      expect(o).toMatchObject({ vector: VEC.BP, ip: AT.code + 8 });
      expect([m.read32(AT.stack0 - 4), vector]).toEqual([error, vector]);
      expect(m.read16(AT.tss)).toBe(SEL.tss2);
      expect(m.read32(AT.tss2 + 32)).toBe(NEW_CODE);
    });
    test.each([
      ['DS naming code that may not be read', { ds: SEL.gate }, VEC.TS, SEL.gate],
      ['DS that is not present', { ds: SEL.gate2 }, VEC.NP, SEL.gate2],
      ['ES beyond the GDT', { es: 0x208 }, VEC.TS, 0x208],
      ['FS naming a TSS', { fs: SEL.tss }, VEC.TS, SEL.tss],
      ['GS in a missing LDT', { gs: 0x0f }, VEC.TS, 0x0c],
      ['EIP beyond the limit of CS', { cs: SEL.code16, ip: 0x1_5800 }, VEC.GP, 0],
    ] as const)('%s faults in the new task', (_, task, vector, error) => {
      const o = run(
        jmpf(SEL.tss2),
        () => {
          m.gdt(SEL.gate, flat(0x98));
          m.gdt(SEL.gate2, notPresent(flat(TYPE.data)));
        },
        task,
      );
      expect(o).toMatchObject({ vector, error, ip: 'ip' in task ? task.ip : NEW_CODE });
      expect(m.selector(TR)).toBe(SEL.tss2);
    });
    test('there are no task switches in long mode', () => {
      for (const [code, error] of [
        [[0xff, 0x2c, 0x25, ...le(AT.data, 4)], SEL.tss2],
        [[0xcd, 0x40], 0x40 * 8 + 2],
      ] as const) {
        const o = m.runCase(() => {
          m.reset('long');
          m.u32(AT.data, 0);
          m.u16(AT.data + 4, SEL.tss2);
          m.idt(0x40, taskGate(SEL.tss2, 3));
          m.bytes(AT.code, code);
        });
        expect(o).toMatchObject({ vector: VEC.GP, error });
      }
      const o = m.runCase(() => {
        m.reset('long');
        m.core.setRflags(0, BigInt(FLAG.NT | 2));
        m.bytes(AT.code, [0x48, IRET]);
      });
      expect(o).toMatchObject({ vector: VEC.GP, error: 0 });
    });
  });
}
