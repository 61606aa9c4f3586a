import { afterAll, describe, expect, test } from 'vitest';
import { CS, EXIT_IO, S_DR, S_MSR, TR } from '../layout.ts';
import { AT, END, EventMachine, FLAG, le, type Mode, type Outcome, SEL, VEC } from '../testing/event-machine.ts';

/** Debug registers and single-step (SDM vol. 3, chapter 18). */

const DR6 = S_DR + 48;
const DR7 = S_DR + 56;
const DEBUGCTL = S_MSR + 29 * 8;
const COUNTER = AT.data + 0x800;
const LOG = AT.data + 0x900;
/** mov %eax, %db0; mov %ebx, %db7: the same bytes in 32- and 64-bit code. */
const ARM = [0x0f, 0x23, 0xc0, 0x0f, 0x23, 0xfb];
const START = AT.code + ARM.length;
const NOP = 0x90;
/** R/W and LEN of breakpoint 0, with L0. */
const L0 = 1;
const EXECUTE = L0;
const write = (n: 1 | 2 | 4 | 8) => L0 | (1 << 16) | (LEN[n] << 18);
const access = (n: 1 | 2 | 4 | 8) => L0 | (3 << 16) | (LEN[n] << 18);
const LEN = { 1: 0, 2: 1, 4: 3, 8: 2 } as const;
const IO_BYTE = L0 | (2 << 16);
const CR4_DE = 8;

for (const jit of ['off', 'sync'] as const) {
  describe(`debug exceptions (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());

    /** `code` with breakpoint 0 armed at `at`. */
    const run = (code: readonly number[], at: number, dr7: number, prepare: () => void = () => {}, mode: Mode = 'long') =>
      m.runCase(() => {
        m.reset(mode);
        m.core.setReg(0, 0, BigInt(at));
        m.core.setReg(0, 3, BigInt(dr7));
        m.bytes(AT.code, [...ARM, ...code, END]);
        prepare();
      });
    /** The handler of #DB counts, notes the RIP it was called with, and goes back. */
    const counting = (mode: Mode) => () => {
      const inc = mode === 'long' ? [0xff, 0x04, 0x25] : [0xff, 0x05];
      const wide = mode === 'long' ? [0x48] : [];
      // push %rax; push %rcx; mov 16(%rsp),%eax; mov COUNTER,%ecx; mov %eax,LOG(,%rcx,4); incl COUNTER; pop %rcx; pop %rax; iret
      const load = mode === 'long' ? [0x8b, 0x0c, 0x25, ...le(COUNTER, 4)] : [0x8b, 0x0d, ...le(COUNTER, 4)];
      m.bytes(0x4800, [
        ...[0x50, 0x51, 0x8b, 0x44, 0x24, mode === 'long' ? 16 : 8],
        ...load,
        ...[0x89, 0x04, 0x8d, ...le(LOG, 4)],
        ...[...inc, ...le(COUNTER, 4)],
        ...[0x59, 0x58, ...wide, 0xcf],
      ]);
      m.idt(VEC.DB, BigInt(0x4800) | (BigInt(SEL.code0) << 16n) | (0x8en << 40n));
    };
    const log = () => Array.from({ length: m.read32(COUNTER) }, (_, i) => m.read32(LOG + i * 4));
    const dr6 = () => Number(m.get64(DR6) & 0xf00fn);

    describe.each(['long', 'protected'] as const)('instruction breakpoints in %s mode', (mode) => {
      test('fault before the instruction, with RF in the saved flags', () => {
        const o = run([NOP, NOP, NOP], START + 1, EXECUTE, () => {}, mode);
        expect(o).toMatchObject({ vector: VEC.DB, ip: START + 1 });
        expect(o.flags & FLAG.RF).toBe(FLAG.RF);
        expect(dr6()).toBe(1);
      });
      test('are passed once when RF is set, and hit again the next time round', () => {
        // mov $5, %ecx; l: nop; loop l
        const o = run([0xb9, ...le(5, 4), NOP, 0xe2, 0xfd], START + 5, EXECUTE, counting(mode), mode);
        expect(o).toMatchObject({ vector: VEC.BP, ip: START + 9 });
        expect(log()).toEqual([START + 5, START + 5, START + 5, START + 5, START + 5]);
      });
      test('are heard in code that has long been compiled', () => {
        // mov $3000, %ecx; call f; loop; mov %eax,%db0; mov %ebx,%db7; call f; int3; f: nop; nop; ret
        const body = [0xb9, ...le(3000, 4), 0xe8, ...le(14, 4), 0xe2, 0xf9, ...ARM, 0xe8, ...le(1, 4), END, NOP, NOP, 0xc3];
        const o = m.runCase(() => {
          m.reset(mode);
          m.core.setReg(0, 0, BigInt(AT.code + 25));
          m.core.setReg(0, 3, BigInt(EXECUTE));
          m.bytes(AT.code, body);
        });
        expect(o).toMatchObject({ vector: VEC.DB, ip: AT.code + 25 });
      });
      test('and a function in another page is stopped in a loop of a page without any', () => {
        const f = AT.data;
        const rel = (from: number, to: number) => [0xe8, ...le(to - from - 5, 4)];
        // mov $2000,%ecx; l: call f; loop l; arm; mov $2,%ecx; m: call f; loop m; int3
        const body = [0xb9, ...le(2000, 4), ...rel(AT.code + 5, f), 0xe2, 0xf9, ...ARM, 0xb9, ...le(2, 4), ...rel(AT.code + 23, f), 0xe2, 0xf9, END];
        const o = m.runCase(() => {
          m.reset(mode);
          counting(mode)();
          m.core.setReg(0, 0, BigInt(f + 1));
          m.core.setReg(0, 3, BigInt(EXECUTE));
          m.bytes(AT.code, body);
          m.bytes(f, [NOP, NOP, 0xc3]);
        });
        expect(o.vector).toBe(VEC.BP);
        expect(log()).toEqual([f + 1, f + 1]);
      });
      test('within an instruction do not hit', () => {
        expect(run([0xb9, ...le(5, 4)], START + 1, EXECUTE, () => {}, mode)).toMatchObject({ vector: VEC.BP });
      });
      test('are suppressed after a load of SS', () => {
        // mov %edx, %ss; nop; nop
        const o = run([0x8e, 0xd2, NOP, NOP], START + 2, EXECUTE, () => m.core.setReg(0, 2, BigInt(SEL.data0)), mode);
        expect(o).toMatchObject({ vector: VEC.BP });
      });
      test('stop a repeated string instruction once', () => {
        const o = run(
          [0xf3, 0xa4],
          START,
          EXECUTE,
          () => {
            counting(mode)();
            m.core.setReg(0, 1, 4n);
            m.core.setReg(0, 6, BigInt(AT.data));
            m.core.setReg(0, 7, BigInt(AT.data + 0x100));
          },
          mode,
        );
        expect(o.vector).toBe(VEC.BP);
        expect(log()).toEqual([START]);
      });
    });
    test('an instruction breakpoint is by linear address', () => {
      const base = 0x1000;
      const o = run(
        [],
        START + base + 1,
        EXECUTE,
        () => {
          m.bytes(AT.code + base, [...ARM, NOP, NOP, END]);
          m.core.setSegment(0, CS, { selector: SEL.code0, base: BigInt(base), limit: 0xffff_ffff, attr: 0xc09b });
          m.core.modeChanged(0);
        },
        'protected',
      );
      expect(o).toMatchObject({ vector: VEC.DB, ip: START + 1 });
    });

    describe('data breakpoints', () => {
      const D = AT.data + 0x40;
      /** movb/movw/movl/movq of AL.. to and from (%rsi), by size. */
      const store = { 1: [0x88, 0x06], 2: [0x66, 0x89, 0x06], 4: [0x89, 0x06], 8: [0x48, 0x89, 0x06], 16: [0x0f, 0x11, 0x06] } as const;
      const load = { 1: [0x8a, 0x0e], 2: [0x66, 0x8b, 0x0e], 4: [0x8b, 0x0e], 8: [0x48, 0x8b, 0x0e], 16: [0x0f, 0x10, 0x0e] } as const;
      const cases: readonly (readonly [at: number, len: 1 | 2 | 4 | 8, to: number, size: 1 | 2 | 4 | 8 | 16, hit: boolean])[] = [
        [D, 1, D, 1, true],
        [D, 1, D + 1, 1, false],
        [D, 1, D - 1, 2, true],
        [D + 3, 1, D, 4, true],
        [D + 3, 1, D, 2, false],
        [D, 2, D + 1, 1, true],
        [D, 2, D + 2, 1, false],
        [D, 4, D + 3, 1, true],
        [D, 4, D - 1, 1, false],
        [D, 4, D - 3, 4, true],
        [D, 8, D + 7, 1, true],
        [D, 8, D + 8, 8, false],
        [D, 8, D - 8, 16, true],
        // The address is taken down to a multiple of the length.
        [D + 3, 4, D, 1, true],
        [D + 5, 8, D, 1, true],
        // An access across two pages.
        [AT.data + 0xfff, 1, AT.data + 0xffe, 4, true],
        [AT.data + 0x1000, 1, AT.data + 0xffe, 4, true],
        [AT.data + 0x1002, 1, AT.data + 0xffe, 4, false],
      ];
      test.each(cases)('at %i of %i bytes, access at %i of %i bytes: %s', (at, len, to, size, hit) => {
        const kinds: readonly (readonly [readonly number[], number, boolean])[] = [
          [store[size], write(len), hit],
          [store[size], access(len), hit],
          [load[size], access(len), hit],
          [load[size], write(len), false],
        ];
        for (const [code, dr7, expected] of kinds) {
          const o = run([...code, NOP], at, dr7, () => m.core.setReg(0, 6, BigInt(to)));
          expect([o.vector, o.ip]).toEqual(expected ? [VEC.DB, START + code.length] : [VEC.BP, START + code.length + 2]);
          if (expected) {
            expect(o.flags & FLAG.RF).toBe(0);
            expect(dr6()).toBe(1);
          }
        }
      });
      const hits = (code: readonly number[], at: number, dr7: number, prepare = () => {}): Outcome => {
        const o = run(code, at, dr7, prepare);
        expect(o.vector).toBe(VEC.DB);
        return o;
      };
      test.each([
        ['push', [0x50], AT.stack0 - 8, write(8)],
        ['call', [0xe8, 0, 0, 0, 0], AT.stack0 - 8, write(8)],
        ['pop', [0x58], AT.stack0, access(8)],
        ['xchg', [0x87, 0x06], D, write(4)],
        ['lock add', [0xf0, 0x01, 0x06], D, write(4)],
        ['add to memory', [0x01, 0x06], D, write(4)],
        ['movs', [0xa4], AT.data + 0x200, write(1)],
        ['fstp', [0xdd, 0x1e], D, write(8)],
        ['fxsave', [0x0f, 0xae, 0x06], D + 4, write(4)],
        ['a far call', [0xff, 0x1c, 0x25, ...le(AT.data + 0x300, 4)], AT.stack0 - 8, write(4)],
      ] as const)('are seen by %s', (_, code, at, dr7) => {
        hits([...code, NOP], at, dr7, () => {
          m.core.setReg(0, 6, BigInt(D));
          m.core.setReg(0, 7, BigInt(AT.data + 0x200));
          m.u32(AT.data + 0x300, START + code.length);
          m.u16(AT.data + 0x304, SEL.code0);
        });
      });
      test('stop a repeated string instruction after the iteration that hit', () => {
        const o = hits([0xf3, 0xa4, NOP], AT.data + 0x105, write(1), () => {
          m.core.setReg(0, 1, 20n);
          m.core.setReg(0, 6, BigInt(AT.data));
          m.core.setReg(0, 7, BigInt(AT.data + 0x100));
        });
        expect([o.ip, m.reg(1), m.reg(7)]).toEqual([START, 14, AT.data + 0x106]);
      });
      test('in a compiled loop every hit is reported', () => {
        // mov $3000,%ecx; mov %ecx,(%rsi); loop; arm; mov $3,%ecx; mov %ecx,(%rsi); loop; int3
        const body = [0xb9, ...le(3000, 4), 0x89, 0x0e, 0xe2, 0xfc, ...ARM, 0xb9, ...le(3, 4), 0x89, 0x0e, 0xe2, 0xfc, END];
        const o = m.runCase(() => {
          m.reset('long');
          counting('long')();
          m.core.setReg(0, 0, BigInt(D));
          m.core.setReg(0, 3, BigInt(write(4)));
          m.core.setReg(0, 6, BigInt(D));
          m.bytes(AT.code, body);
        });
        expect(o.vector).toBe(VEC.BP);
        expect(log()).toEqual([AT.code + 22, AT.code + 22, AT.code + 22]);
      });
      test('a hit by the operand of a load of SS waits for the instruction after it', () => {
        // mov (%rsi), %ss; nop; nop
        const o = hits([0x8e, 0x16, NOP, NOP], D, access(2), () => {
          m.core.setReg(0, 6, BigInt(D));
          m.u16(D, SEL.data0);
        });
        expect(o.ip).toBe(START + 3);
      });
      test('an instruction that faults reports no hit', () => {
        // div (%rsi) by zero
        const o = run([0xf7, 0x36], D, access(4), () => m.core.setReg(0, 6, BigInt(D)));
        expect(o).toMatchObject({ vector: VEC.DE, ip: START });
        expect(dr6()).toBe(0);
      });
      test('global and local enable alike, and a breakpoint that is not enabled does nothing', () => {
        expect(hits([0x88, 0x06, NOP], D, write(1) + 1, () => m.core.setReg(0, 6, BigInt(D))).ip).toBe(START + 2);
        expect(run([0x88, 0x06, NOP], D, write(1) - 1, () => m.core.setReg(0, 6, BigInt(D))).vector).toBe(VEC.BP);
      });
      test('several that hit are all named', () => {
        // mov %eax, %db3 too, and both enabled: write of 1 byte, access of 4
        const dr7 = write(1) | (1 << 6) | (3 << 28) | (3 << 30);
        const o = run([0x0f, 0x23, 0xd8, 0x0f, 0x23, 0xfb, 0x88, 0x06, NOP], D, dr7 >>> 0, () => m.core.setReg(0, 6, BigInt(D)));
        expect(o.vector).toBe(VEC.DB);
        expect(dr6()).toBe(9);
      });
    });

    describe('I/O breakpoints', () => {
      const withPorts = (code: readonly number[], port: number, dr7: number, cr4: number, flags = 2) => {
        let o = m.runCase(() => {
          m.reset('long');
          m.cr4(cr4);
          m.core.setReg(0, 0, BigInt(port));
          m.core.setReg(0, 3, BigInt(dr7));
          m.core.setReg(0, 2, BigInt(port));
          m.core.setRflags(0, BigInt(flags));
          m.bytes(AT.code, [...ARM, ...code, END]);
        });
        while (o.reason === EXIT_IO) {
          m.core.completeIo(0, 0x5a);
          o = m.run();
        }
        return o;
      };
      test.each([
        ['in of the port', [0xec, NOP], 0x80, IO_BYTE, CR4_DE, VEC.DB, 1],
        ['out to the port', [0xe6, 0x80, NOP], 0x80, IO_BYTE, CR4_DE, VEC.DB, 2],
        ['a wider access that covers it', [0xe5, 0x7e, NOP], 0x80, IO_BYTE, CR4_DE, VEC.DB, 2],
        ['another port', [0xe4, 0x81, NOP], 0x80, IO_BYTE, CR4_DE, VEC.BP, 4],
        ['without CR4.DE', [0xec, NOP], 0x80, IO_BYTE, 0, VEC.BP, 3],
      ] as const)('%s', (_, code, port, dr7, cr4, vector, length) => {
        const o = withPorts(code, port, dr7, cr4);
        expect([o.vector, o.ip]).toEqual([vector, START + length]);
      });
      test('a single-stepped IN traps after it', () => {
        const o = m.runCase(() => {
          m.reset('long');
          m.core.setRflags(0, BigInt(FLAG.TF | 2));
          m.bytes(AT.code, [0xec, NOP, NOP]);
        });
        expect(o.reason).toBe(EXIT_IO);
        m.core.completeIo(0, 1);
        expect(m.run()).toMatchObject({ vector: VEC.DB, ip: AT.code + 1 });
        expect(dr6()).toBe(0x4000);
      });
    });

    describe('debug registers', () => {
      test.each([
        ['mov from DR0', [0x0f, 0x21, 0xc1]],
        ['mov to DR1', [0x0f, 0x23, 0xc9]],
        ['mov from DR7', [0x0f, 0x21, 0xf9]],
      ] as const)('with DR7.GD %s raises #DB, and the handler may use them', (_, code) => {
        const o = run(code, 0, 1 << 13);
        expect(o).toMatchObject({ vector: VEC.DB, ip: START });
        expect(dr6()).toBe(0x2000);
        expect(m.get64(DR7) & 0x2000n).toBe(0n);
      });
      test('DR4 and DR5 are DR6 and DR7, unless CR4.DE makes them undefined', () => {
        // mov %db5, %rcx
        const o = run([0x0f, 0x21, 0xe9], AT.data, EXECUTE);
        expect([o.vector, m.reg(1)]).toEqual([VEC.BP, 0x401]);
        for (const code of [
          [0x0f, 0x21, 0xe1],
          [0x0f, 0x23, 0xe9],
        ])
          expect(run(code, 0, 0, () => m.cr4(CR4_DE))).toMatchObject({ vector: VEC.UD, ip: START });
      });
      test('bits above 31 of DR6 and DR7 raise #GP, and reserved ones read as they must', () => {
        for (const modrm of [0xf1, 0xf9])
          expect(run([0x0f, 0x23, modrm], 0, 0, () => m.core.setReg(0, 1, 1n << 32n))).toMatchObject({ vector: VEC.GP, error: 0 });
        // mov $-1 (32 bits), %ecx; mov to DR6 and DR7; read them
        run(
          [0xb9, ...le(-1, 4), 0x0f, 0x23, 0xf1, 0x0f, 0x21, 0xf2, 0x81, 0xe1, ...le(0xffff_dfff | 0, 4), 0x31, 0xc9, 0x0f, 0x23, 0xf9, 0x0f, 0x21, 0xfe],
          0,
          0,
        );
        expect([m.reg(2) >>> 0, m.reg(6)]).toEqual([0xffff_efff, 0x400]);
      });
      test('are for privilege 0', () => {
        const o = m.runCase(() => {
          m.reset('long');
          m.toUser();
          m.bytes(AT.code, [0x0f, 0x21, 0xf9]);
        });
        expect(o).toMatchObject({ vector: VEC.GP, error: 0 });
      });
    });

    describe.each(['long', 'protected'] as const)('single-step in %s mode', (mode) => {
      /** push $302; popf; then the code: the first trap comes after its first instruction. */
      const SET_TF = [0x68, ...le(FLAG.TF | 2, 4), 0x9d];
      const traced = (code: readonly number[], prepare: () => void = () => {}) => {
        const o = m.runCase(() => {
          m.reset(mode);
          counting(mode)();
          m.bytes(AT.code, [...SET_TF, ...code, END]);
          prepare();
        });
        return { o, steps: log().map((ip) => ip - AT.code - SET_TF.length) };
      };
      test('POPF sets TF: every instruction after the next traps', () => {
        const { o, steps } = traced([NOP, NOP, 0x31, 0xc9, NOP]);
        expect(steps).toEqual([1, 2, 4, 5]);
        expect(o.vector).toBe(VEC.BP);
        expect(dr6()).toBe(0x4000);
      });
      test('IRET sets it too', () => {
        const wide = mode === 'long';
        const width = wide ? 8 : 4;
        const o = m.runCase(() => {
          m.reset(mode);
          counting(mode)();
          const frame = wide ? [AT.code + 0x20, SEL.code0, FLAG.TF | 2, AT.stack0, SEL.data0] : [AT.code + 0x20, SEL.code0, FLAG.TF | 2];
          for (const [i, v] of frame.entries()) m.u32(AT.stack0 - 64 + i * width, v);
          m.core.setReg(0, 4, BigInt(AT.stack0 - 64));
          m.bytes(AT.code, wide ? [0x48, 0xcf] : [0xcf]);
          m.bytes(AT.code + 0x20, [NOP, NOP, END]);
        });
        expect(o.vector).toBe(VEC.BP);
        expect(log().map((ip) => ip - AT.code)).toEqual([0x21, 0x22]);
      });
      test('the POPF that clears it is the last to trap', () => {
        const { steps } = traced([NOP, 0x6a, 0x02, 0x9d, NOP, NOP]);
        expect(steps).toEqual([1, 3, 4]);
      });
      test('a repeated string instruction traps after each iteration', () => {
        const { steps } = traced([0xf3, 0xaa, NOP], () => {
          m.core.setReg(0, 1, 3n);
          m.core.setReg(0, 7, BigInt(AT.data));
        });
        expect(steps).toEqual([0, 0, 2, 3]);
      });
      test('there is no trap between a load of SS and the next instruction', () => {
        const { steps } = traced([0x8e, 0xd2, NOP, NOP], () => m.core.setReg(0, 2, BigInt(SEL.data0)));
        expect(steps).toEqual([3, 4]);
      });
      test('an instruction that faults does not trap; an interrupt clears TF for its handler', () => {
        const { o, steps } = traced([NOP, 0x0f, 0x0b]);
        expect(o).toMatchObject({ vector: VEC.UD });
        expect(steps).toEqual([1]);
        expect(o.flags & FLAG.TF).toBe(FLAG.TF);
        expect(m.rflags & FLAG.TF).toBe(0);
      });
      test('with DEBUGCTL.BTF only branches that are taken trap, once', () => {
        // jz (not taken); nop; jmp +1; (skipped); nop
        const { steps } = traced([0x85, 0xe4, 0x74, 0x00, NOP, 0xeb, 0x01, 0xf4, NOP, NOP], () => m.field(DEBUGCTL, 2));
        // The handler finds BTF cleared, so every instruction traps from then on.
        expect(steps).toEqual([8, 9, 10]);
      });
      test('INT1 and INT3 are no single-step: DR6 says nothing', () => {
        const o = m.runCase(() => {
          m.reset(mode);
          m.bytes(AT.code, [NOP, 0xf1]);
        });
        expect(o).toMatchObject({ vector: VEC.DB, ip: AT.code + 2 });
        expect(dr6()).toBe(0);
      });
    });
    test('INTO traps only on overflow, with the RIP after it', () => {
      for (const [al, vector, length] of [
        [0x7f, VEC.OF, 5],
        [0x10, VEC.BP, 6],
      ] as const) {
        const o = m.runCase(() => {
          m.reset('protected');
          m.bytes(AT.code, [0xb0, al, 0x04, 0x01, 0xce, END]);
        });
        expect(o).toMatchObject({ vector, ip: AT.code + length });
      }
    });
    test('a trap comes before an interrupt that waits, and the interrupt next', () => {
      // A store that hits, with an external interrupt pending all along: its handler is entered with the handler of #DB not yet begun.
      const o = run([0xfb, 0x88, 0x06, NOP, NOP], AT.data, write(1), () => {
        m.core.setReg(0, 6, BigInt(AT.data));
        m.core.setSegment(0, TR, { selector: SEL.tss, base: BigInt(AT.tss), limit: 0x7f, attr: 0x8b });
        m.core.setInterrupt(0, 0x50);
      });
      expect(o).toMatchObject({ vector: VEC.DB, ip: START + 3 });
      expect(m.core.pendingInterrupt(0)).toBe(0x50);
    });
  });
}
