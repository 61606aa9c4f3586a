import { afterAll, describe, expect, test } from 'vitest';
import { CS, DS, ES, LDTR, SS } from '../layout.ts';
import { AT, descriptor, dpl, END, EventMachine, flat, gate, le, SEL, TYPE, VEC } from '../testing/event-machine.ts';

/** Far transfers between privilege levels (SDM vol. 3, 5.8). */

const TARGET = 0x5800;
const callf = (selector: number) => [0x9a, ...le(0, 4), ...le(selector, 2)];
const jmpf = (selector: number, offset = 0) => [0xea, ...le(offset, 4), ...le(selector, 2)];
const RETF = 0xcb;

for (const jit of ['off', 'sync'] as const) {
  describe(`call gates (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());

    describe('outside long mode', () => {
      const run = (code: readonly number[], prepare: () => void, at3 = true) =>
        m.runCase(() => {
          m.reset('protected');
          if (at3) m.toUser();
          m.bytes(AT.code, [...code, END]);
          m.bytes(TARGET, [END]);
          prepare();
        });
      const pushed = (top: number, width: 2 | 4, n: number) =>
        Array.from({ length: n }, (_, i) => (width === 4 ? m.read32(top - (i + 1) * 4) : m.read16(top - (i + 1) * 2)));

      test.each([
        ['32-bit', TYPE.callGate32, SEL.code0, 4],
        ['16-bit', TYPE.callGate16, SEL.code0, 2],
      ] as const)('a %s gate switches stacks and copies the parameters', (_, type, code, width) => {
        const o = run(callf(SEL.gate), () => {
          m.gdt(SEL.gate, gate(code, TARGET, type | dpl(3), 3));
          for (let i = 0; i < 3; i++) {
            if (width === 4) m.u32(AT.stack3 + i * 4, 0xaaaa_0000 + i);
            else m.u16(AT.stack3 + i * 2, 0xbb00 + i);
          }
          m.idt(3, gate(SEL.code0, AT.handlers + 48, 0xee));
        });
        expect(o).toMatchObject({ vector: VEC.BP, ip: TARGET + 1, cs: SEL.code0 });
        const first = width === 4 ? 0xaaaa_0000 : 0xbb00;
        expect(pushed(AT.stack0, width, 7)).toEqual([SEL.data3, AT.stack3, first + 2, first + 1, first, SEL.code3, AT.code + 7]);
        expect([m.selector(CS), m.selector(SS), m.cpl]).toEqual([SEL.code0, SEL.data0, 0]);
        expect(m.reg(4)).toBe(AT.stack0 - 7 * width - 12);
      });

      test('RETF n drops the parameters from both stacks and the segments that are too privileged', () => {
        const o = run(callf(SEL.gate), () => {
          m.gdt(SEL.gate, gate(SEL.code0, TARGET, TYPE.callGate32 | dpl(3), 2));
          // mov $data0, %eax; mov %eax, %ds; retf $8
          m.bytes(TARGET, [0xb8, ...le(SEL.data0, 4), 0x8e, 0xd8, 0xca, 0x08, 0x00]);
        });
        expect(o).toMatchObject({ vector: VEC.BP, ip: AT.code + 8, cs: SEL.code3, ss: SEL.data3, sp: AT.stack3 + 8 });
        expect([m.selector(DS), m.selector(ES)]).toEqual([0, SEL.data3]);
      });
      test('a gate to conforming code, or at the same privilege, changes neither stack nor level', () => {
        const conforming = run(callf(SEL.gate), () => m.gdt(SEL.gate, gate(SEL.conforming, TARGET, TYPE.callGate32 | dpl(3), 5)));
        expect(conforming).toMatchObject({ vector: VEC.BP, ip: TARGET + 1, cs: SEL.conforming | 3, ss: SEL.data3, sp: AT.stack3 - 8 });
        const same = run(callf(SEL.gate), () => m.gdt(SEL.gate, gate(SEL.code0, TARGET, TYPE.callGate32)), false);
        expect(same).toMatchObject({ vector: VEC.BP, ip: TARGET + 1, cs: SEL.code0 });
        expect(pushed(AT.stack0, 4, 2)).toEqual([SEL.code0, AT.code + 7]);
      });
      test('a gate to privilege 1 takes the stack of privilege 1', () => {
        const o = run(callf(SEL.gate), () => m.gdt(SEL.gate, gate(SEL.code1, TARGET, TYPE.callGate32 | dpl(3))));
        expect(o).toMatchObject({ vector: VEC.BP, ip: TARGET + 1, cs: SEL.code1, ss: SEL.data1, sp: AT.stack0 - 0x800 - 16 });
      });
      test('with a 16-bit TSS the stack comes from there', () => {
        const o = run(callf(SEL.gate), () => {
          m.gdt(SEL.gate, gate(SEL.code0, TARGET, TYPE.callGate32 | dpl(3)));
          m.core.setSegment(0, 7, { selector: SEL.tss, base: BigInt(AT.tss), limit: 43, attr: 0x83 });
          m.u16(AT.tss + 2, 0x7800);
          m.u16(AT.tss + 4, SEL.data0);
        });
        expect(o).toMatchObject({ vector: VEC.BP, ip: TARGET + 1, cs: SEL.code0 });
        expect(m.reg(4)).toBe(0x7800 - 16 - 12);
      });
      test.each([
        ['DPL of the gate below CPL', gate(SEL.code0, TARGET, TYPE.callGate32 | dpl(2)), VEC.GP, SEL.gate],
        ['a gate that is not present', gate(SEL.code0, TARGET, (TYPE.callGate32 & 0x7f) | dpl(3)), VEC.NP, SEL.gate],
        ['a gate to a null selector', gate(0, TARGET, TYPE.callGate32 | dpl(3)), VEC.GP, 0],
        ['a gate to data', gate(SEL.data0, TARGET, TYPE.callGate32 | dpl(3)), VEC.GP, SEL.data0],
        ['a gate beyond the GDT', gate(0x208, TARGET, TYPE.callGate32 | dpl(3)), VEC.GP, 0x208],
        ['a gate to code that is not present', gate(SEL.gate2, TARGET, TYPE.callGate32 | dpl(3)), VEC.NP, SEL.gate2],
        ['an offset beyond the limit', gate(SEL.code16, 0x1_0000, TYPE.callGate32 | dpl(3)), VEC.GP, 0],
      ] as const)('%s faults', (_, g, vector, error) => {
        const o = run(callf(SEL.gate), () => {
          m.gdt(SEL.gate, g);
          m.gdt(SEL.gate2, flat(TYPE.code & 0x7f));
        });
        expect(o).toMatchObject({ vector, error, ip: AT.code, cs: SEL.code3, sp: AT.stack3 });
      });
      test.each([
        ['too small for the stack', () => m.core.setSegment(0, 7, { selector: SEL.tss, base: BigInt(AT.tss), limit: 16, attr: 0x8b }), VEC.TS, SEL.tss],
        ['with a null SS', () => m.u32(AT.tss + 16, 0), VEC.TS, 0],
        ['with an SS of another privilege', () => m.u32(AT.tss + 16, SEL.data3), VEC.TS, SEL.data3 & ~3],
        ['with an SS that is not present', () => m.gdt(SEL.data1, flat(0x32)), VEC.SS, SEL.data1 & ~3],
        ['whose stack is full', () => m.gdt(SEL.data1, descriptor(0, 0x100, 0xb2, 0x40)), VEC.SS, SEL.data1 & ~3],
      ] as const)('a TSS %s faults', (_, prepare, vector, error) => {
        // To privilege 1, so that the fault finds a good stack at 0.
        const o = run(callf(SEL.gate), () => {
          m.gdt(SEL.gate, gate(SEL.code1, TARGET, TYPE.callGate32 | dpl(3)));
          prepare();
        });
        expect(o).toMatchObject({ vector, error, ip: AT.code, cs: SEL.code3, sp: AT.stack3 });
      });
      test('parameters beyond the old stack raise #SS', () => {
        const o = run(callf(SEL.gate), () => {
          m.gdt(SEL.gate, gate(SEL.code0, TARGET, TYPE.callGate32 | dpl(3), 4));
          m.core.setSegment(0, SS, { selector: SEL.data3, base: 0n, limit: AT.stack3 + 7, attr: 0x40f3 });
        });
        expect(o).toMatchObject({ vector: VEC.SS, error: 0, ip: AT.code });
      });
      test('JMP through a gate stays at its privilege', () => {
        const refused = run(jmpf(SEL.gate), () => m.gdt(SEL.gate, gate(SEL.code0, TARGET, TYPE.callGate32 | dpl(3))));
        expect(refused).toMatchObject({ vector: VEC.GP, error: SEL.code0 });
        const conforming = run(jmpf(SEL.gate), () => m.gdt(SEL.gate, gate(SEL.conforming, TARGET, TYPE.callGate32 | dpl(3))));
        expect(conforming).toMatchObject({ vector: VEC.BP, ip: TARGET + 1, cs: SEL.conforming | 3 });
      });
      test('a direct far jump reaches conforming code of an inner level, and no other', () => {
        expect(run(jmpf(SEL.conforming, TARGET), () => {})).toMatchObject({ vector: VEC.BP, ip: TARGET + 1, cs: SEL.conforming | 3 });
        expect(run(jmpf(SEL.code0, TARGET), () => {})).toMatchObject({ vector: VEC.GP, error: SEL.code0 });
        expect(run(jmpf(SEL.code3, TARGET), () => {}, false)).toMatchObject({ vector: VEC.GP, error: SEL.code3 & ~3 });
      });
      test.each([
        ['to an inner level', [AT.code + 1, SEL.code0], VEC.GP, SEL.code0, true],
        ['to a null CS', [AT.code + 1, 0], VEC.GP, 0, true],
        ['to data', [AT.code + 1, SEL.data3], VEC.GP, SEL.data3 & ~3, true],
        ['beyond the limit', [0x1_0000, SEL.code16], VEC.GP, 0, false],
        ['to an outer level with a null SS', [AT.code + 1, SEL.code3, AT.stack3, 0], VEC.GP, 0, false],
        ['to an outer level with an SS of another privilege', [AT.code + 1, SEL.code3, AT.stack3, SEL.data1], VEC.GP, SEL.data1 & ~3, false],
        ['to an outer level with an SS that is not present', [AT.code + 1, SEL.code3, AT.stack3, SEL.gate | 3], VEC.SS, SEL.gate, false],
      ] as const)('RETF %s faults', (_, frame, vector, error, at3) => {
        const top = at3 ? AT.stack3 : AT.stack0;
        const o = run(
          [RETF],
          () => {
            m.gdt(SEL.gate, flat(0x72));
            for (const [i, v] of frame.entries()) m.u32(top - 0x40 + i * 4, v);
            m.core.setReg(0, 4, BigInt(top - 0x40));
          },
          at3,
        );
        expect(o).toMatchObject({ vector, error, ip: AT.code });
      });
    });

    describe('in long mode', () => {
      const wide = (selector: number, type: number) => gate(selector, TARGET, type);
      // lcall *(AT.data): 32-bit offset, selector.
      const LCALL = [0xff, 0x1c, 0x25, ...le(AT.data, 4)];
      const run = (prepare: () => void, selector: number = SEL.gate) =>
        m.runCase(() => {
          m.reset('long');
          m.toUser();
          m.u16(AT.data + 4, selector);
          m.bytes(AT.code, [...LCALL, END]);
          m.bytes(TARGET, [END]);
          m.gdt(SEL.gate, wide(SEL.code0, TYPE.callGate32 | dpl(3)));
          m.gdt(SEL.gate + 8, 0n);
          prepare();
        });
      test('a gate switches to the stack of the TSS, with SS null', () => {
        const o = run(() => {});
        expect(o).toMatchObject({ vector: VEC.BP, cs: SEL.code0 });
        expect(m.read64(AT.stack0 - 8)).toBe(BigInt(SEL.data3));
        expect(m.read64(AT.stack0 - 16)).toBe(BigInt(AT.stack3));
        expect(m.read64(AT.stack0 - 24)).toBe(BigInt(SEL.code3));
        expect(m.read64(AT.stack0 - 32)).toBe(BigInt(AT.code + LCALL.length));
        expect(m.selector(SS)).toBe(0);
      });
      test('the gate may be in the LDT', () => {
        const o = run(() => {
          m.core.setSegment(0, LDTR, { selector: SEL.ldt, base: BigInt(AT.ldt), limit: 0xff, attr: 0x82 });
          m.u64(AT.ldt + 0x10, wide(SEL.code0, TYPE.callGate32 | dpl(3)));
          m.u64(AT.ldt + 0x18, 0n);
        }, 0x14);
        expect(o).toMatchObject({ vector: VEC.BP, cs: SEL.code0 });
      });
      test.each([
        ['a type in the upper half', () => m.gdt(SEL.gate + 8, 0x0100_0000_0000n), VEC.GP, SEL.gate],
        ['a 16-bit gate', () => m.gdt(SEL.gate, wide(SEL.code0, TYPE.callGate16 | dpl(3))), VEC.GP, SEL.gate],
        ['a target that is not 64-bit code', () => m.gdt(SEL.gate, wide(SEL.compat0, TYPE.callGate32 | dpl(3))), VEC.GP, SEL.compat0],
        ['an offset that is not canonical', () => m.gdt(SEL.gate + 8, 0x8000n), VEC.GP, 0],
        ['an RSP in the TSS that is not canonical', () => m.u64(AT.tss + 12, 1n << 47n), VEC.SS, 0],
      ] as const)('%s faults', (_, prepare, vector, error) => {
        const o = run(() => {
          if (vector === VEC.SS) m.gdt(SEL.gate, wide(SEL.code1, TYPE.callGate32 | dpl(3)));
          prepare();
        });
        expect(o).toMatchObject({ vector, error, ip: AT.code, cs: SEL.code3 });
      });
    });
  });
}
