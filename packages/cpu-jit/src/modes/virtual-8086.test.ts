import { afterAll, describe, expect, test } from 'vitest';
import { CS, DS, ES, EXIT_IO, FS, GS, SS, TR } from '../layout.ts';
import { AT, descriptor, END, EventMachine, FLAG, gate, le, SEL, TYPE, VEC } from '../testing/event-machine.ts';

/** Virtual-8086 mode (SDM vol. 3, chapter 21), without the virtual interrupt flag: CPUID does not offer VME. */

const V_CS = 0x0500;
const V_IP = 0x800;
const V_CODE = V_CS * 16 + V_IP;
const V_SS = 0x0700;
const V_SP = 0x100;
const SEGMENTS = { ES: 0x611, DS: 0x622, FS: 0x633, GS: 0x644 };
const IRET = 0xcf;

for (const jit of ['off', 'sync'] as const) {
  describe(`virtual-8086 mode (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());

    /** IRET from CPL 0 to `code` at V_CS:V_IP. */
    const run = (code: readonly number[], iopl: number, prepare: () => void = () => {}, flags = 0) =>
      m.runCase(() => {
        m.reset('protected');
        const frame = [V_IP, V_CS, FLAG.VM | FLAG.iopl(iopl) | flags | 2, V_SP, V_SS, SEGMENTS.ES, SEGMENTS.DS, SEGMENTS.FS, SEGMENTS.GS];
        for (const [i, v] of frame.entries()) m.u32(AT.stack0 - 36 + i * 4, v);
        m.core.setReg(0, 4, BigInt(AT.stack0 - 36));
        m.bytes(AT.code, [IRET]);
        m.bytes(V_CODE, [...code, END]);
        prepare();
      });

    test('IRET enters it, and an interrupt saves and clears all segments', () => {
      const o = run([], 0);
      expect(o).toMatchObject({ vector: VEC.BP, ip: V_IP + 1, cs: V_CS, sp: V_SP, ss: V_SS });
      expect(o.flags & (FLAG.VM | FLAG.iopl(3))).toBe(FLAG.VM);
      // ES, DS, FS, GS above SS:ESP, at the top of the stack of privilege 0.
      expect([4, 3, 2, 1].map((n) => m.read32(AT.stack0 - n * 4))).toEqual([SEGMENTS.ES, SEGMENTS.DS, SEGMENTS.FS, SEGMENTS.GS]);
      expect([ES, DS, FS, GS].map((n) => m.selector(n))).toEqual([0, 0, 0, 0]);
      expect([m.selector(CS), m.selector(SS), m.cpl, m.rflags & FLAG.VM]).toEqual([SEL.code0, SEL.data0, 0, 0]);
    });

    test('the handler goes back by IRET', () => {
      // int3 in virtual mode; the handler returns; then the code goes on to the second one.
      const o = run([0xcc, 0x40, 0xcd, 0x41], 3, () => {
        m.bytes(AT.handlers + 3 * 16, [IRET]);
        m.idt(0x41, gate(SEL.code0, AT.handlers + 0x41 * 16, 0xee));
      });
      expect(o).toMatchObject({ vector: 0x41, ip: V_IP + 4, cs: V_CS, ss: V_SS, sp: V_SP });
      expect([4, 3, 2, 1].map((n) => m.read32(AT.stack0 - n * 4))).toEqual([SEGMENTS.ES, SEGMENTS.DS, SEGMENTS.FS, SEGMENTS.GS]);
    });

    test('segments are paragraphs with a limit of 64 KiB, and every one may be written', () => {
      // mov %ax, %ds; movb $0x5a, %cs:(0x10); mov %gs:(4), %bl
      const o = run([0xb8, ...le(0x600, 2), 0x8e, 0xd8, 0x2e, 0xc6, 0x06, 0x10, 0x00, 0x5a, 0x65, 0x8a, 0x1e, 0x04, 0x00], 0, () =>
        m.bytes(SEGMENTS.GS * 16 + 4, [0x77]),
      );
      expect(o.vector).toBe(VEC.BP);
      expect(m.core.u8[m.core.ramBase + V_CS * 16 + 0x10]).toBe(0x5a);
      expect(m.reg(3) & 0xff).toBe(0x77);
    });
    test.each([
      ['a word at offset FFFF', [0xbb, 0xff, 0xff, 0x8b, 0x07], VEC.GP, 3],
      ['a push at SP = 1', [0xbc, 0x01, 0x00, 0x50], VEC.SS, 3],
    ] as const)('%s faults', (_, code, vector, at) => {
      expect(run(code, 0)).toMatchObject({ vector, error: 0, ip: V_IP + at });
    });

    /** SDM vol. 3, 21.2.2: what IOPL below 3 leaves to the monitor. */
    const sensitive: readonly (readonly [string, readonly number[]])[] = [
      ['cli', [0xfa]],
      ['sti', [0xfb]],
      ['pushf', [0x9c]],
      ['pushfl', [0x66, 0x9c]],
      ['popf', [0x9d]],
      ['int n', [0xcd, 0x40]],
      ['iret', [IRET]],
    ];
    test.each(sensitive)('%s with IOPL below 3 raises #GP', (_, code) => {
      expect(run(code, 2)).toMatchObject({ vector: VEC.GP, error: 0, ip: V_IP, cs: V_CS });
    });
    test('with IOPL 3 they work, IOPL and VM staying as they are', () => {
      // sti; pushf; pop %ax; cli; pushf; pop %bx; push $0; popf; pushfl; pop %ecx
      const o = run([0xfb, 0x9c, 0x58, 0xfa, 0x9c, 0x5b, 0x6a, 0x00, 0x9d, 0x66, 0x9c, 0x66, 0x59], 3);
      expect(o.vector).toBe(VEC.BP);
      expect([m.reg(0) & 0xffff, m.reg(3) & 0xffff, m.reg(1)]).toEqual([0x3202, 0x3002, 0x3002]);
      expect(o.flags & (FLAG.VM | FLAG.iopl(3))).toBe(FLAG.VM | FLAG.iopl(3));
    });
    test('IRET with IOPL 3 stays in it', () => {
      const o = run([IRET], 3, () => {
        m.u16(V_SS * 16 + V_SP, 0x10);
        m.u16(V_SS * 16 + V_SP + 2, V_CS + 1);
        m.u16(V_SS * 16 + V_SP + 4, 0x0ed7);
        m.bytes((V_CS + 1) * 16 + 0x10, [END]);
      });
      expect(o).toMatchObject({ vector: VEC.BP, ip: 0x11, cs: V_CS + 1, sp: V_SP + 6 });
      expect(o.flags & 0x2_3fff).toBe(0x2_3ed7);
    });
    test.each([
      ['int3', [0xcc], VEC.BP, 1],
      ['into', [0xb0, 0x7f, 0x04, 0x01, 0xce], VEC.OF, 5],
      ['int1', [0xf1], VEC.DB, 1],
    ] as const)('%s goes through the IDT whatever IOPL is', (_, code, vector, length) => {
      const o = run(code, 0, () => m.idt(VEC.OF, gate(SEL.code0, AT.handlers + VEC.OF * 16, 0xee)));
      expect(o).toMatchObject({ vector, ip: V_IP + length });
    });
    test('int n with IOPL 3 asks for the DPL of its gate', () => {
      expect(run([0xcd, 0x41], 3)).toMatchObject({ vector: VEC.GP, error: 0x41 * 8 + 2, ip: V_IP });
    });

    /** Instructions of protected mode alone, and privileged ones: CPL is 3. */
    test.each([
      ['arpl', [0x63, 0xc0], VEC.UD],
      ['lar', [0x0f, 0x02, 0xc0], VEC.UD],
      ['lsl', [0x0f, 0x03, 0xc0], VEC.UD],
      ['verr', [0x0f, 0x00, 0xe0], VEC.UD],
      ['verw', [0x0f, 0x00, 0xe8], VEC.UD],
      ['sldt', [0x0f, 0x00, 0xc0], VEC.UD],
      ['str', [0x0f, 0x00, 0xc8], VEC.UD],
      ['lldt', [0x0f, 0x00, 0xd0], VEC.UD],
      ['ltr', [0x0f, 0x00, 0xd8], VEC.UD],
      ['hlt', [0xf4], VEC.GP],
      ['lgdt', [0x0f, 0x01, 0x16, 0x00, 0x00], VEC.GP],
      ['mov to CR0', [0x0f, 0x22, 0xc0], VEC.GP],
      ['mov from CR0', [0x0f, 0x20, 0xc0], VEC.GP],
      ['mov to DR7', [0x0f, 0x23, 0xf8], VEC.GP],
      ['lmsw', [0x0f, 0x01, 0xf0], VEC.GP],
      ['clts', [0x0f, 0x06], VEC.GP],
      ['rdmsr', [0x0f, 0x32], VEC.GP],
      ['syscall', [0x0f, 0x05], VEC.UD],
      ['sysexit', [0x0f, 0x35], VEC.GP],
    ] as const)('%s faults', (_, code, vector) => {
      expect(run(code, 3)).toMatchObject({ vector, ip: V_IP });
    });

    describe('port I/O goes by the bitmap of the TSS alone', () => {
      const withBitmap = (open: readonly number[]) => () => {
        const at = AT.tss;
        m.core.setSegment(0, TR, { selector: SEL.tss, base: BigInt(at), limit: 0x88, attr: 0x8b });
        m.u16(at + 102, 0x68);
        for (let i = 0; i < 0x21; i++) m.core.u8[m.core.ramBase + at + 0x68 + i] = 0xff;
        for (const port of open) {
          const byte = m.core.ramBase + at + 0x68 + (port >> 3);
          m.core.u8[byte] = (m.core.u8[byte] ?? 0) & ~(1 << (port & 7));
        }
      };
      test.each([
        ['a closed port with IOPL 3', [0xe4, 0x21], 3, [0x20], VEC.GP],
        ['two ports of which one is closed', [0xe5, 0x20], 3, [0x20], VEC.GP],
        ['a port beyond the bitmap', [0xba, 0xf8, 0x03, 0xec], 3, [], VEC.GP],
      ] as const)('%s raises #GP', (_, code, iopl, open, vector) => {
        expect(run(code, iopl, withBitmap(open))).toMatchObject({ vector, error: 0 });
      });
      test('an open port works with IOPL 0', () => {
        const o = run([0xe4, 0x20], 0, withBitmap([0x20]));
        expect(o.reason).toBe(EXIT_IO);
      });
    });

    test('an interrupt handler must be code of privilege 0 that is not conforming', () => {
      for (const selector of [SEL.conforming, SEL.code1]) {
        const o = run([0xcd, 0x40], 3, () => m.idt(0x40, gate(selector, AT.handlers, 0xee)));
        expect(o).toMatchObject({ vector: VEC.GP, error: selector & 0xfffc, ip: V_IP });
      }
    });
    test('through a 16-bit gate words are pushed', () => {
      const o = run([0xcd, 0x40], 3, () => m.idt(0x40, gate(SEL.code16, AT.handlers + 0x40 * 16, 0xe6)));
      expect(o).toMatchObject({ vector: 0x40, ip: V_IP + 2, cs: V_CS, sp: V_SP, ss: V_SS });
      expect([4, 3, 2, 1].map((n) => m.read16(AT.stack0 - n * 2))).toEqual([SEGMENTS.ES, SEGMENTS.DS, SEGMENTS.FS, SEGMENTS.GS]);
    });
    test('a task gate takes it out of virtual mode, and IRET with NT back in', () => {
      const o = run([0xcc, 0x41], 0, () => {
        const t = AT.tss2;
        m.idt(3, gate(SEL.tss2, 0, TYPE.taskGate | 0x60));
        m.gdt(SEL.tss2, descriptor(t, 0x7f, TYPE.tss32));
        m.u32(t + 32, 0x5c00);
        m.u32(t + 36, 2);
        m.u32(t + 56, 0x7f00);
        for (const [n, s] of [SEL.data0, SEL.code0, SEL.data0, SEL.data0, 0, 0].entries()) m.u32(t + 72 + n * 4, s);
        // The handler's task stops the second time round.
        m.bytes(0x5c00, [0x40, 0x3c, 0x02, 0x74, 0x03, IRET, 0xeb, 0xf8, 0xf4]);
        m.bytes(V_CODE + 1, [0xcc]);
      });
      expect(o).toMatchObject({ vector: undefined, ip: 0x5c09 });
      expect(m.read32(AT.tss + 32)).toBe(V_IP + 2);
      expect(m.read32(AT.tss + 36) & FLAG.VM).toBe(FLAG.VM);
      expect(m.read16(AT.tss + 76)).toBe(V_CS);
    });
    test('IRET at privilege above 0 does not enter it', () => {
      const o = m.runCase(() => {
        m.reset('protected');
        m.toUser(FLAG.iopl(3));
        for (const [i, v] of [AT.code + 1, SEL.code3, FLAG.VM | 2].entries()) m.u32(AT.stack3 - 12 + i * 4, v);
        m.core.setReg(0, 4, BigInt(AT.stack3 - 12));
        m.bytes(AT.code, [IRET, END]);
      });
      expect(o).toMatchObject({ vector: VEC.BP, ip: AT.code + 2, cs: SEL.code3 });
      expect(o.flags & FLAG.VM).toBe(0);
    });
  });
}
