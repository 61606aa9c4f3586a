/**
 * x87 instructions: guards, operand access and order of effects. The arithmetic is in the runtime (assembly/x87*.ts).
 *
 * Memory is read before the unit changes; results for memory are computed, stored, and only then committed (flags and pop),
 * so every fault is precise. Arithmetic exceptions are recorded by the helpers; an unmasked one is raised as #MF by the
 * next waiting instruction, whatever CR0.NE says. The instruction pointer is kept, one store beside a call; as on processors
 * that announce "FDP only on x87 exceptions" (CPUID.7.0:EBX[6]) operand pointer and opcode only of what raised an unmasked one.
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { S_CR0, S_SCRATCH, S_X87_CW, S_X87_FDP, S_X87_FIP, S_X87_SW } from '../layout.ts';
import { bit, CF, PF, ZF } from './common.ts';

const NM = 7;
const MF = 16;
const CR0_EM = 1 << 2;
const CR0_TS = 1 << 3;
/** Error summary bit of the status word. */
const ES = 1 << 7;

/** #NM while the unit is not available, then #MF for an exception that is still pending. */
function guard(e: Emitter, waits: boolean): void {
  const absent = e.let(e.and(e.state(S_CR0, 4), e.i32(CR0_EM | CR0_TS)));
  if (!waits) {
    e.if(absent, () => e.raise(NM));
    return;
  }
  e.if(e.or(absent, e.and(e.state(S_X87_SW, 4), e.i32(ES))), () => {
    e.if(absent, () => e.raise(NM));
    e.raise(MF);
  });
}

/** Instructions that compute: they wait, and leave their address behind once they can no longer fault. */
function computing(f: (e: Emitter, ready: () => void) => void): Semantics {
  return (e) => {
    guard(e, true);
    f(e, () => e.setState(S_X87_FIP, 8, e.thisRip()));
    // None was pending before, or the guard had raised #MF.
    e.if(e.and(e.state(S_X87_SW, 4), e.i32(ES)), () => {
      e.call('fx_opcode', 'none', []);
      if (e.isMem(0)) e.setState(S_X87_FDP, 8, e.address(0, { segment: false }));
    });
  };
}
/** One helper call, with constants and the registers `st` (operand numbers of STi) as arguments. */
function calls(name: string, ...args: readonly (number | { readonly st: number })[]): Semantics {
  return computing((e, ready) => {
    ready();
    e.call(
      name,
      'none',
      args.map((a) => (typeof a === 'number' ? e.i32(a) : e.stIndex(a.st))),
    );
  });
}
function control(waits: boolean, f: (e: Emitter) => void): Semantics {
  return (e) => {
    guard(e, waits);
    f(e);
  };
}

/** Integer operands are sign-extended to 32 bits. */
function readOperand(e: Emitter, format: string): Val {
  const value = e.let(e.read(0));
  return format === 'm16' ? e.sext32(value, 2) : value;
}

// ------------------------------------------------------------------ arithmetic and comparison
const OPERATIONS = { add: 0, mul: 1, sub: 4, subr: 5, div: 6, divr: 7 } as const;
/** Memory formats: prefix and suffix of the mnemonic, suffix of the helper. */
const FORMATS = [
  { prefix: 'f', format: 'm32', helper: 'f32' },
  { prefix: 'f', format: 'm64', helper: 'f64' },
  { prefix: 'fi', format: 'm16', helper: 'int' },
  { prefix: 'fi', format: 'm32', helper: 'int' },
] as const;

function arithmetic(): Record<string, Semantics> {
  const all: Record<string, Semantics> = {};
  for (const [name, op] of Object.entries(OPERATIONS)) {
    all[`f${name}_st0_sti`] = calls('fx_arith', op, 0, { st: 1 }, 0);
    all[`f${name}_sti_st0`] = calls('fx_arith', op, { st: 0 }, 0, 0);
    all[`f${name}p`] = calls('fx_arith', op, { st: 0 }, 0, 1);
    for (const { prefix, format, helper } of FORMATS) {
      all[`${prefix}${name}_${format}`] = computing((e, ready) => {
        const value = readOperand(e, format);
        ready();
        e.call(`fx_arith_${helper}`, 'none', [e.i32(op), value]);
      });
    }
  }
  for (const { prefix, format, helper } of FORMATS) {
    for (const pops of [0, 1]) {
      all[`${prefix}com${pops === 1 ? 'p' : ''}_${format}`] = computing((e, ready) => {
        const value = readOperand(e, format);
        ready();
        e.call(`fx_com_${helper}`, 'none', [value, e.i32(pops)]);
      });
    }
  }
  return all;
}

/** FCOMI and its like: ZF, PF, CF; the other status flags are cleared. */
function compareFlags(quiet: number, pops: number): Semantics {
  return computing((e, ready) => {
    ready();
    const flags = e.call('fx_comi', 'i32', [e.stIndex(1), e.i32(quiet), e.i32(pops)]);
    e.setStatusFlags(flags);
  });
}

/** FCMOVcc on any of the flags in `mask`. */
function conditionalMove(mask: number, when: 0 | 1): Semantics {
  return computing((e, ready) => {
    let any: Val = e.i32(0);
    if (mask & CF) any = e.or(any, e.flag('c'));
    if (mask & ZF) any = e.or(any, e.flag('z'));
    if (mask & PF) any = e.or(any, e.flag('p'));
    ready();
    e.call('fx_cmov', 'none', [e.stIndex(1), when === 1 ? any : e.xor(any, e.i32(1))]);
  });
}

// ------------------------------------------------------------------ loads and stores
function loadsOf(helper: string, format: string, wide: boolean): Semantics {
  return computing((e, ready) => {
    const value = readOperand(e, format);
    ready();
    e.call(helper, 'none', [wide ? e.sext64(value, 4) : value]);
  });
}
/** 10-byte operands: significand or low digits, and the last two bytes. Both accesses come before any effect. */
function load10(helper: string): Semantics {
  return computing((e, ready) => {
    const address = e.let(e.address(0));
    const low = e.let(e.load(address, 8));
    const high = e.let(e.load(e.add(address, e.i64(8)), 2));
    ready();
    e.call(helper, 'none', [low, high]);
  });
}
/** Compute into the scratch area, store unless an unmasked exception forbids it, then record exceptions and pop. */
function storesOf(helper: string, args: readonly number[], pops: number): Semantics {
  return computing((e, ready) => {
    const status = e.call(
      helper,
      'i32',
      args.map((a) => e.i32(a)),
    );
    const size = e.size(0);
    const value = e.state(S_SCRATCH, size === 8 || size === 10 ? 8 : 4);
    const high = size === 10 ? e.state(S_SCRATCH + 8, 4) : undefined;
    e.if(e.geS(status, e.i32(0)), () => {
      if (high === undefined) e.write(0, e.trunc(value, size));
      else {
        const address = e.let(e.address(0, { write: true }));
        e.if(e.gtU(e.and(e.wrap(address), e.i32(0xfff)), e.i32(0x1000 - 10)), () => {
          e.call('probeWrite', 'i32', [address, e.i32(10)]);
          e.checkException();
        });
        e.store(address, 8, value);
        e.store(e.add(address, e.i64(8)), 2, high);
      }
    });
    ready();
    e.call('fx_commit', 'none', [status, e.i32(pops)]);
  });
}
/** FNSTENV and its like; `wide` images have 32-bit fields. */
function image(name: string, waits: boolean, write: boolean, after?: string): Semantics {
  return control(waits, (e) => {
    e.call(name, 'none', [e.address(0, { write }), e.i32(e.form.opSize === 2 ? 0 : 1)]);
    e.checkException();
    if (after !== undefined) e.call(after, 'none', []);
  });
}

/** Status word as FNSTSW stores it. */
const statusWord = (e: Emitter): Val => e.call('fx_sw', 'i32', []);

const CONSTANTS = ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'];

export const x87: Record<string, Semantics> = {
  ...arithmetic(),
  ...Object.fromEntries(CONSTANTS.map((name, i) => [name, calls('fx_ld_const', i)])),

  fcom_sti: calls('fx_com', { st: 0 }, 0, 0),
  fcomp_sti: calls('fx_com', { st: 0 }, 0, 1),
  fcompp: calls('fx_com', 1, 0, 2),
  fucom: calls('fx_com', { st: 0 }, 1, 0),
  fucomp: calls('fx_com', { st: 0 }, 1, 1),
  fucompp: calls('fx_com', 1, 1, 2),
  fcomi: compareFlags(0, 0),
  fcomip: compareFlags(0, 1),
  fucomi: compareFlags(1, 0),
  fucomip: compareFlags(1, 1),
  ftst: calls('fx_tst'),
  fxam: calls('fx_xam'),

  fcmovb: conditionalMove(CF, 1),
  fcmove: conditionalMove(ZF, 1),
  fcmovbe: conditionalMove(CF | ZF, 1),
  fcmovu: conditionalMove(PF, 1),
  fcmovnb: conditionalMove(CF, 0),
  fcmovne: conditionalMove(ZF, 0),
  fcmovnbe: conditionalMove(CF | ZF, 0),
  fcmovnu: conditionalMove(PF, 0),

  fld_m32: loadsOf('fx_ld_f32', 'm32', false),
  fld_m64: loadsOf('fx_ld_f64', 'm64', false),
  fld_m80: load10('fx_ld_f80'),
  fbld: load10('fx_ld_bcd'),
  fild_m16: loadsOf('fx_ld_int', 'm16', true),
  fild_m32: loadsOf('fx_ld_int', 'm32', true),
  fild_m64: loadsOf('fx_ld_int', 'm64', true),
  fld_sti: calls('fx_ld_st', { st: 0 }),

  fst_m32: storesOf('fx_st_f32', [], 0),
  fstp_m32: storesOf('fx_st_f32', [], 1),
  fst_m64: storesOf('fx_st_f64', [], 0),
  fstp_m64: storesOf('fx_st_f64', [], 1),
  fstp_m80: storesOf('fx_st_f80', [], 1),
  fbstp: storesOf('fx_st_bcd', [], 1),
  fist_m16: storesOf('fx_st_int', [2, 0], 0),
  fist_m32: storesOf('fx_st_int', [4, 0], 0),
  fistp_m16: storesOf('fx_st_int', [2, 0], 1),
  fistp_m32: storesOf('fx_st_int', [4, 0], 1),
  fistp_m64: storesOf('fx_st_int', [8, 0], 1),
  fisttp_m16: storesOf('fx_st_int', [2, 1], 1),
  fisttp_m32: storesOf('fx_st_int', [4, 1], 1),
  fisttp_m64: storesOf('fx_st_int', [8, 1], 1),
  fst_sti: calls('fx_st_st', { st: 0 }, 0),
  fstp_sti: calls('fx_st_st', { st: 0 }, 1),
  fstp1: calls('fx_st_unchecked', { st: 0 }),

  fxch: calls('fx_xch', { st: 0 }),
  ffree: calls('fx_free', { st: 0 }, 0),
  ffreep: calls('fx_free', { st: 0 }, 1),
  fincstp: calls('fx_rotate', 1),
  fdecstp: calls('fx_rotate', 7),
  fnop: computing((_e, ready) => ready()),
  fneni: control(false, () => {}),

  fchs: calls('fx_sign', 0xffff, 0x8000),
  fabs: calls('fx_sign', 0x7fff, 0),
  fsqrt: calls('fx_sqrt'),
  frndint: calls('fx_rndint'),
  fscale: calls('fx_scale'),
  fxtract: calls('fx_xtract'),
  fprem: calls('fx_rem', 0),
  fprem1: calls('fx_rem', 1),
  f2xm1: calls('fx_f2xm1'),
  fyl2x: calls('fx_yl2x'),
  fyl2xp1: calls('fx_yl2xp1'),
  fptan: calls('fx_ptan'),
  fpatan: calls('fx_patan'),
  fsin: calls('fx_sin'),
  fcos: calls('fx_cos'),
  fsincos: calls('fx_sincos'),

  fninit: control(false, (e) => void e.call('fx_init', 'none', [])),
  fnclex: control(false, (e) => void e.call('fx_clex', 'none', [])),
  fldcw: control(true, (e) => {
    const value = e.let(e.read(0));
    e.call('fx_ldcw', 'none', [value]);
  }),
  fnstcw: control(false, (e) => e.write(0, e.trunc(e.state(S_X87_CW, 4), 2))),
  fnstsw: control(false, (e) => e.write(0, statusWord(e))),
  fnstsw_ax: control(false, (e) => e.write(0, statusWord(e))),
  fnstenv: image('fx_stenv', false, true),
  fldenv: image('fx_ldenv', true, false),
  fnsave: image('fx_save', false, true, 'fx_init'),
  frstor: image('fx_rstor', true, false),

  /** FWAIT: #NM needs both MP and TS. */
  wait: (e) => {
    const cr0 = e.let(e.state(S_CR0, 4));
    e.if(e.and(bit(e, cr0, 1), bit(e, cr0, 3)), () => e.raise(NM));
    e.if(e.and(e.state(S_X87_SW, 4), e.i32(ES)), () => e.raise(MF));
  },
};
