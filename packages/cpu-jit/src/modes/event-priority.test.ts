import { afterAll, describe, expect, test } from 'vitest';
import { CS, EXIT_SHUTDOWN, S_IDTR, S_NMI, S_NMI_BLOCKED, SS, TR } from '../layout.ts';
import { AT, descriptor, END, EventMachine, FLAG, gate, le, type Mode, SEL, VEC } from '../testing/event-machine.ts';

/** Priorities, double faults, shadows and stacks of events (SDM vol. 3, 7.8, 7.9, tables 7-2, 7-5). */

const NOP = 0x90;

for (const jit of ['off', 'sync'] as const) {
  describe(`events (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());
    const run = (mode: Mode, code: readonly number[], prepare: () => void = () => {}) =>
      m.runCase(() => {
        m.reset(mode);
        m.bytes(AT.code, [...code, END]);
        prepare();
      });

    describe('exceptions and error codes', () => {
      const cases: readonly (readonly [string, Mode, readonly number[], () => void, number, number | undefined, number])[] = [
        ['division by zero', 'long', [0x31, 0xc9, 0xf7, 0xf1], () => {}, VEC.DE, undefined, 2],
        [
          'a quotient that does not fit',
          'long',
          [0xb8, ...le(-1, 4), 0x31, 0xd2, 0xff, 0xc2, 0x31, 0xc9, 0xff, 0xc1, 0xf7, 0xf1],
          () => {},
          VEC.DE,
          undefined,
          13,
        ],
        ['bound', 'protected', [0x62, 0x06], () => m.core.setReg(0, 0, 5n), VEC.BR, undefined, 0],
        ['ud2', 'long', [0x0f, 0x0b], () => {}, VEC.UD, undefined, 0],
        ['rsm outside of system management mode', 'long', [0x0f, 0xaa], () => {}, VEC.UD, undefined, 0],
        ['lock on a register', 'long', [0xf0, 0x01, 0xc0], () => {}, VEC.UD, undefined, 0],
        ['lock on an instruction without it', 'long', [0xf0, 0x8b, 0x06], () => {}, VEC.UD, undefined, 0],
        ['x87 with CR0.TS', 'long', [0xd9, 0xe8], () => m.cr0(8), VEC.NM, undefined, 0],
        ['SSE with CR0.TS', 'long', [0x0f, 0x58, 0xc0], () => m.cr0(8), VEC.NM, undefined, 0],
        ['SSE with CR0.EM', 'long', [0x0f, 0x58, 0xc0], () => m.cr0(4), VEC.UD, undefined, 0],
        ['x87 with CR0.EM', 'long', [0xd9, 0xe8], () => m.cr0(4), VEC.NM, undefined, 0],
        ['int of a vector beyond the IDT', 'protected', [0xcd, 0x70], () => m.field(S_IDTR + 8, 0x70 * 8 - 1), VEC.GP, 0x70 * 8 + 2, 0],
        ['int through a gate that is not present', 'long', [0xcd, 0x40], () => m.idt(0x40, gate(SEL.code0, AT.handlers, 0x6e)), VEC.NP, 0x40 * 8 + 2, 0],
        ['int through no gate', 'long', [0xcd, 0x40], () => m.idt(0x40, gate(SEL.code0, AT.handlers, 0x8c)), VEC.GP, 0x40 * 8 + 2, 0],
        ['int to a null selector', 'long', [0xcd, 0x40], () => m.idt(0x40, gate(0, AT.handlers, 0xee)), VEC.GP, 0, 0],
        ['int to data', 'protected', [0xcd, 0x40], () => m.idt(0x40, gate(SEL.data0, AT.handlers, 0xee)), VEC.GP, SEL.data0, 0],
        ['int to compatibility code in long mode', 'long', [0xcd, 0x40], () => m.idt(0x40, gate(SEL.compat0, AT.handlers, 0xee)), VEC.GP, SEL.compat0, 0],
        ['mov of a selector beyond the GDT', 'protected', [0x8e, 0xd8], () => m.core.setReg(0, 0, 0x208n), VEC.GP, 0x208, 0],
        ['mov of a null selector to SS', 'protected', [0x8e, 0xd0], () => m.core.setReg(0, 0, 0n), VEC.GP, 0, 0],
        [
          'mov of an absent segment',
          'protected',
          [0x8e, 0xd8],
          () => {
            m.gdt(SEL.gate, descriptor(0, 0xffff, 0x12));
            m.core.setReg(0, 0, BigInt(SEL.gate));
          },
          VEC.NP,
          SEL.gate,
          0,
        ],
        [
          'mov of an absent segment to SS',
          'protected',
          [0x8e, 0xd0],
          () => {
            m.gdt(SEL.gate, descriptor(0, 0xffff, 0x12));
            m.core.setReg(0, 0, BigInt(SEL.gate));
          },
          VEC.SS,
          SEL.gate,
          0,
        ],
        [
          'an access through a null segment',
          'protected',
          [0x8b, 0x06],
          () => m.core.setSegment(0, 3, { selector: 0, base: 0n, limit: 0, attr: 0x1_0000 }),
          VEC.GP,
          0,
          0,
        ],
      ];
      test.each(cases)('%s (%s mode)', (_, mode, code, prepare, vector, error, at) => {
        const o = run(mode, code, () => {
          m.core.setReg(0, 6, BigInt(AT.data));
          prepare();
        });
        expect(o).toMatchObject({ vector, error, ip: AT.code + at });
        // A fault says in RF that its instruction has not run.
        expect(o.flags & FLAG.RF).toBe(FLAG.RF);
      });
    });

    describe('of two reasons at one instruction the first counts', () => {
      const cases: readonly (readonly [string, readonly number[], () => void, number])[] = [
        // Decoding: #UD before what the operand would do.
        ['lock on mov before its page fault', [0xf0, 0x8b, 0x06], () => m.core.setReg(0, 6, 0x4000_0000n), VEC.UD],
        [
          'a privileged instruction at CPL 3 before its page fault',
          [0x0f, 0x01, 0x16],
          () => {
            m.toUser();
            m.core.setReg(0, 6, 0x4000_0000n);
          },
          VEC.GP,
        ],
        [
          '#NM before the page fault of the operand',
          [0xd9, 0x06],
          () => {
            m.cr0(8);
            m.core.setReg(0, 6, 0x4000_0000n);
          },
          VEC.NM,
        ],
        [
          '#NM before #GP for a misaligned operand',
          [0x0f, 0x58, 0x06],
          () => {
            m.cr0(8);
            m.core.setReg(0, 6, BigInt(AT.data + 1));
          },
          VEC.NM,
        ],
        ['#GP for a misaligned SSE operand before its page fault', [0x0f, 0x58, 0x06], () => m.core.setReg(0, 6, 0x4000_0001n), VEC.GP],
        ['the load of a division before its #DE', [0xf7, 0x36], () => m.core.setReg(0, 6, 0x4000_0000n), VEC.PF],
        [
          'the store of a call before anything of its target',
          [0xff, 0xd0],
          () => {
            m.core.setReg(0, 4, 0x4000_0000n);
            m.u64(AT.tss + 36, BigInt(AT.stack0));
            m.idt(VEC.PF, gate(SEL.code0, AT.handlers + VEC.PF * 16, 0x8e, 1));
            m.core.setReg(0, 0, 0x4100_0000n);
          },
          VEC.PF,
        ],
        ['the read of a read-modify-write reports a write', [0x01, 0x06], () => m.core.setReg(0, 6, 0x4000_0000n), VEC.PF],
      ];
      test.each(cases)('%s', (_, code, prepare, vector) => {
        const o = run('long', code, prepare);
        expect(o).toMatchObject({ vector, ip: AT.code });
        if (vector === VEC.PF) expect([o.error, m.cr2 >> 24n]).toEqual([code[0] === 0xf7 ? 0 : 2, code[0] === 0xff ? 0x3fn : 0x40n]);
      });
    });

    describe('double faults (table 7-5)', () => {
      const notPresent = gate(SEL.code0, AT.handlers, 0x0e);
      /** First: #UD benign, #DE and #GP contributory, #PF. */
      const first = { benign: [0x0f, 0x0b], contributory: [0x31, 0xc9, 0xf7, 0xf1], page: [0x8b, 0x04, 0x25, ...le(0x4000_0000, 4)] } as const;
      const vectorOf = { benign: VEC.UD, contributory: VEC.DE, page: VEC.PF } as const;
      test.each([
        ['benign', VEC.NP],
        ['contributory', VEC.DF],
        ['page', VEC.DF],
      ] as const)('a contributory fault while delivering a %s one ends as vector %i', (kind, expected) => {
        const o = run('long', first[kind], () => m.idt(vectorOf[kind], notPresent));
        expect(o.vector).toBe(expected);
        expect(o.error).toBe(expected === VEC.DF ? 0 : vectorOf[kind] * 8 + 3);
      });
      test.each([
        ['benign', VEC.PF],
        ['contributory', VEC.PF],
        ['page', VEC.DF],
      ] as const)('a page fault while delivering a %s one ends as vector %i', (kind, expected) => {
        // The handler's stack is not mapped: by IST for the first vector only.
        const o = run('long', first[kind], () => {
          m.u64(AT.tss + 36, 0x4100_0000n);
          m.idt(vectorOf[kind], gate(SEL.code0, AT.handlers + vectorOf[kind] * 16, 0x8e, 1));
        });
        if (kind === 'page') expect(o).toMatchObject({ vector: VEC.DF, error: 0 });
        else {
          expect(o).toMatchObject({ vector: expected, error: 2 });
          expect(m.cr2 >> 20n).toBe(0x40fn);
        }
      });
      test('a third fault is a shutdown', () => {
        const o = run('long', first.contributory, () => {
          m.idt(VEC.DE, notPresent);
          m.idt(VEC.DF, notPresent);
        });
        expect(o.reason).toBe(EXIT_SHUTDOWN);
      });
      test('an external interrupt that cannot be delivered raises its fault with EXT set', () => {
        const o = run('long', [0xfb, NOP, NOP], () => {
          m.idt(0x50, notPresent);
          m.core.setInterrupt(0, 0x50);
        });
        expect(o).toMatchObject({ vector: VEC.NP, error: 0x50 * 8 + 3 });
      });
    });

    describe('interrupts', () => {
      test('IST gives a fresh stack even at the same privilege, aligned to 16', () => {
        const o = run('long', [0xcd, 0x40], () => {
          m.u64(AT.tss + 28 + 3 * 8, 0x7008n);
          m.idt(0x40, gate(SEL.code0, AT.handlers + 0x40 * 16, 0xee, 3));
        });
        expect(o.vector).toBe(0x40);
        expect(m.reg(4)).toBe(0x7000 - 40);
        expect(m.selector(SS)).toBe(SEL.data0);
      });
      test('an interrupt gate clears IF and a trap gate does not', () => {
        for (const [type, kept] of [
          [0xee, 0],
          [0xef, FLAG.IF],
        ] as const) {
          const o = run('long', [0xfb, NOP, 0xcd, 0x40], () => m.idt(0x40, gate(SEL.code0, AT.handlers + 0x40 * 16, type)));
          expect(o.vector).toBe(0x40);
          expect(o.flags & FLAG.IF).toBe(FLAG.IF);
          expect(m.rflags & FLAG.IF).toBe(kept);
        }
      });
      test('an NMI comes before an interrupt', () => {
        const o = run('long', [0xfb, NOP, NOP], () => {
          m.core.setInterrupt(0, 0x50);
          m.core.setNmi(0);
        });
        expect(o.vector).toBe(VEC.NMI);
        expect(m.core.pendingInterrupt(0)).toBe(0x50);
      });
      test('a second NMI waits for IRET', () => {
        const first = run('long', [NOP, NOP], () => {
          m.core.setNmi(0);
          // hlt; iretq
          m.bytes(AT.handlers + 2 * 16, [0xf4, 0x48, 0xcf]);
        });
        expect([first.vector, m.get(S_NMI_BLOCKED)]).toEqual([VEC.NMI, 1]);
        const rsp = m.reg(4);
        m.core.setNmi(0);
        // It is not nested: the handler returns first.
        expect(m.run().vector).toBe(VEC.NMI);
        expect([m.reg(4), m.get(S_NMI), m.get(S_NMI_BLOCKED)]).toEqual([rsp, 0, 1]);
      });
      test.each([
        ['sti', [0xfb, NOP, NOP], 2],
        ['mov to SS', [0xfb, NOP, 0x8e, 0xd2, NOP, NOP], 2],
      ] as const)('are held off for one instruction after %s', (_, code, at) => {
        const o = run('long', code, () => {
          m.core.setReg(0, 2, BigInt(SEL.data0));
          m.core.setInterrupt(0, 0x50);
        });
        expect([o.vector, o.ip]).toEqual([0x50, AT.code + at]);
      });
      test('stop a repeated string instruction between iterations, with RF set', () => {
        let o = m.runCase(() => {
          m.reset('long');
          m.bytes(AT.code, [0xfb, 0xf3, 0xaa, END]);
          m.core.setReg(0, 1, 0x1_8000n);
          m.core.setReg(0, 7, BigInt(0x30_0800));
          m.core.setLimit(0, m.core.stats(0).instructions + 2n);
        });
        m.core.setInterrupt(0, 0x50);
        m.core.setLimit(0, m.core.stats(0).instructions + 1000n);
        o = m.run();
        expect(o).toMatchObject({ vector: 0x50, ip: AT.code + 1 });
        expect(o.flags & FLAG.RF).toBe(FLAG.RF);
        // What is left and where it goes on agree.
        expect(m.reg(1) + m.reg(7)).toBe(0x1_8000 + 0x30_0800);
        expect(m.reg(1)).toBeLessThan(0x1_8000);
        expect(m.reg(1)).toBeGreaterThan(0);
      });
    });

    describe('UMIP, TSD and the like keep users out', () => {
      const UMIP = 1 << 11;
      test.each([
        ['sgdt', [0x0f, 0x01, 0x06], UMIP],
        ['sidt', [0x0f, 0x01, 0x0e], UMIP],
        ['sldt', [0x0f, 0x00, 0xc0], UMIP],
        ['str', [0x0f, 0x00, 0xc8], UMIP],
        ['smsw', [0x0f, 0x01, 0xe0], UMIP],
        ['rdtsc', [0x0f, 0x31], 4],
        ['rdtscp', [0x0f, 0x01, 0xf9], 4],
      ] as const)('%s', (_, code, bit) => {
        const at3 = (cr4: number) =>
          run('long', code, () => {
            m.cr4(cr4);
            m.toUser();
            m.core.setReg(0, 6, BigInt(AT.data));
          });
        expect(at3(bit)).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code });
        expect(at3(0).vector).toBe(VEC.BP);
      });
    });
    test('a TSS without room for the stack pointer raises #TS', () => {
      const o = run('long', [0xcd, 0x40], () => {
        m.toUser();
        m.core.setSegment(0, TR, { selector: SEL.tss, base: BigInt(AT.tss), limit: 0x20, attr: 0x8b });
        // IST 1 would be at 24h..2bh.
        m.idt(0x40, gate(SEL.code0, AT.handlers + 0x40 * 16, 0xee, 1));
      });
      expect(o).toMatchObject({ vector: VEC.TS, error: SEL.tss, cs: SEL.code3 });
    });
    test('real mode has its own table, and raises #GP beyond it', () => {
      expect(run('real', [0xcd, 0x21])).toMatchObject({ vector: 0x21, ip: AT.code + 2, cs: 0 });
      expect(run('real', [0xcd, 0x21], () => m.field(S_IDTR + 8, 0x21 * 4 + 2))).toMatchObject({ vector: VEC.GP, ip: AT.code });
      for (const code of [
        [0x0f, 0x00, 0xc0],
        [0x0f, 0x00, 0xd8],
        [0x0f, 0x02, 0xc0],
        [0x63, 0xc0],
      ]) {
        expect(run('real', code)).toMatchObject({ vector: VEC.UD, ip: AT.code });
      }
      expect(m.selector(CS)).toBe(0);
    });
  });
}
