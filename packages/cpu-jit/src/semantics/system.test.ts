import { describe, expect, test } from 'vitest';
import { CpuCore } from '../cpu.ts';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  EXIT_CPUID,
  EXIT_EMULATE,
  EXIT_EXCEPTION,
  EXIT_HLT,
  EXIT_IO,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  EXIT_PRIVILEGED,
  EXIT_SOFT_INT,
  EXIT_SYSCALL,
  FS,
  GS,
  INTERCEPT_CPUID,
  INTERCEPT_MSR,
  INTERCEPT_RDTSC,
  S_CPL,
  S_CR0,
  S_CR4,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_INSN_LEN,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_GDTR,
  S_HOT_THRESHOLD,
  S_ICOUNT,
  S_KERNEL_GS_BASE,
  S_PKRU,
  S_SEG,
  S_TSC_AUX,
  SEG_SELECTOR,
  SEG_STRIDE,
  V_INTERCEPTS,
} from '../layout.ts';

const CODE = 0x4000;
const DATA = 0x8000;
const STACK = 0x9000n;
/** No RAM here: the device hook raises #PF. */
const NOWHERE = 0x4000_0000n;
const HLT = 0xf4;
const IF = 1n << 9n;
const [GP, UD, PF, DE] = [13, 6, 14, 0];
const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const;
type Registers = Partial<Record<(typeof NAMES)[number] | 'rip' | 'rflags', bigint>>;

/** State-block fields of 4 or 8 bytes, by offset. */
type Fields = readonly (readonly [offset: number, size: 4 | 8, value: bigint])[];
interface Case {
  readonly what: string;
  readonly code: readonly number[];
  readonly cpl?: number;
  readonly from?: Registers;
  readonly fields?: Fields;
  readonly memory?: readonly bigint[];
  /** EXIT_*, or `fault`: the exception with this vector. Default EXIT_HLT: the code ran to its end. */
  readonly exit?: number;
  readonly fault?: number;
  /** Every register not named must be as before; RIP counts from the start of the code, default its end (its start for exits). */
  readonly to?: Registers;
  readonly after?: Fields;
  readonly stored?: readonly bigint[];
}

const FS_BASE = S_SEG + FS * SEG_STRIDE;
const GS_BASE = S_SEG + GS * SEG_STRIDE;
const DS_SELECTOR = S_SEG + 3 * SEG_STRIDE + SEG_SELECTOR;
const FSGSBASE: Fields = [[S_CR4, 8, 1n << 16n]];
const PKE: Fields = [[S_CR4, 8, 1n << 22n]];

const privilegedInstructions: readonly (readonly [string, readonly number[]])[] = [
  ['hlt', [0xf4]],
  ['cli', [0xfa]],
  ['sti', [0xfb]],
  ['rdmsr', [0x0f, 0x32]],
  ['wrmsr', [0x0f, 0x30]],
  ['mov %cr3,%rax', [0x0f, 0x20, 0xd8]],
  ['mov %rax,%cr3', [0x0f, 0x22, 0xd8]],
  ['mov %db7,%rax', [0x0f, 0x21, 0xf8]],
  ['invlpg (%rax)', [0x0f, 0x01, 0x38]],
  ['lgdt (%rdi)', [0x0f, 0x01, 0x17]],
  ['lmsw %ax', [0x0f, 0x01, 0xf0]],
  ['clts', [0x0f, 0x06]],
  ['swapgs', [0x0f, 0x01, 0xf8]],
  ['wbinvd', [0x0f, 0x09]],
  ['in $0x80,%al', [0xe4, 0x80]],
  ['out %al,(%dx)', [0xee]],
  ['insb', [0x6c]],
  ['sysretq', [0x48, 0x0f, 0x07]],
];

const cases: readonly Case[] = [
  ...privilegedInstructions.map(([what, code]): Case => ({ what: `${what} at CPL 3 raises #GP`, code, cpl: 3, fault: GP })),
  { what: 'stac at CPL 3 raises #UD', code: [0x0f, 0x01, 0xcb], cpl: 3, fault: UD },
  { what: 'ud2 raises #UD', code: [0x0f, 0x0b], fault: UD },
  { what: 'a division by zero raises #DE', code: [0x48, 0xf7, 0xf1], from: { rcx: 0n }, fault: DE },

  // ---- exits
  { what: 'mov to CR3 leaves', code: [0x0f, 0x22, 0xd8], exit: EXIT_PRIVILEGED, after: [[S_EXIT_INSN_LEN, 4, 3n]] },
  { what: 'invlpg leaves', code: [0x0f, 0x01, 0x38], exit: EXIT_PRIVILEGED },
  { what: 'rdmsr of another MSR leaves', code: [0x0f, 0x32], from: { rcx: 0x10n }, exit: EXIT_MSR_READ },
  { what: 'wrmsr of another MSR leaves', code: [0x0f, 0x30], from: { rcx: 0x1bn }, exit: EXIT_MSR_WRITE },
  {
    what: 'an intercepted MSR leaves',
    code: [0x0f, 0x32],
    from: { rcx: 0xc000_0100n },
    fields: [[V_INTERCEPTS, 4, BigInt(INTERCEPT_MSR)]],
    exit: EXIT_MSR_READ,
  },
  {
    what: 'int n leaves with its vector',
    code: [0xcd, 0x80],
    cpl: 3,
    exit: EXIT_SOFT_INT,
    after: [
      [S_EXIT_VA, 8, 0x80n],
      [S_EXIT_INSN_LEN, 4, 2n],
    ],
  },
  {
    what: 'int3 leaves with vector 3',
    code: [0xcc],
    cpl: 3,
    exit: EXIT_SOFT_INT,
    after: [
      [S_EXIT_VA, 8, 3n],
      [S_EXIT_INSN_LEN, 4, 1n],
    ],
  },
  { what: 'syscall leaves when nothing serves it', code: [0x0f, 0x05], cpl: 3, exit: EXIT_SYSCALL, after: [[S_EXIT_INSN_LEN, 4, 2n]] },
  { what: 'iretq leaves for emulation', code: [0x48, 0xcf], cpl: 3, exit: EXIT_EMULATE },
  { what: 'vmcall leaves from any privilege', code: [0x0f, 0x01, 0xc1], cpl: 3, exit: EXIT_PRIVILEGED },
  { what: 'lsl leaves for emulation', code: [0x0f, 0x03, 0xc1], cpl: 3, exit: EXIT_EMULATE },
  { what: 'a non-null selector leaves for emulation', code: [0x8e, 0xd8], cpl: 3, from: { rax: 0x2bn }, exit: EXIT_EMULATE },
  { what: 'any selector to SS leaves for emulation', code: [0x8e, 0xd0], cpl: 3, from: { rax: 0n }, exit: EXIT_EMULATE },
  { what: 'an intercepted CPUID leaves', code: [0x0f, 0xa2], fields: [[V_INTERCEPTS, 4, BigInt(INTERCEPT_CPUID)]], exit: EXIT_CPUID },
  { what: 'an intercepted RDTSC leaves', code: [0x0f, 0x31], fields: [[V_INTERCEPTS, 4, BigInt(INTERCEPT_RDTSC)]], exit: EXIT_PRIVILEGED },
  {
    what: 'in from an immediate port leaves with port, size and direction',
    code: [0xe4, 0x80],
    exit: EXIT_IO,
    after: [
      [S_EXIT_VA, 8, 0x80n],
      [S_EXIT_SIZE, 4, 1n],
      [S_EXIT_ACCESS, 4, BigInt(ACCESS_READ)],
      [S_EXIT_INSN_LEN, 4, 2n],
    ],
  },
  {
    what: 'out at CPL 3 with IOPL 3 leaves with the value',
    code: [0x66, 0xe7, 0xf0],
    cpl: 3,
    from: { rflags: 0x3002n, rax: 0x12_abcdn },
    exit: EXIT_IO,
    after: [
      [S_EXIT_VA, 8, 0xf0n],
      [S_EXIT_SIZE, 4, 2n],
      [S_EXIT_ACCESS, 4, BigInt(ACCESS_WRITE)],
      [S_EXIT_VALUE, 8, 0xabcdn],
    ],
  },
  {
    what: 'in takes its port from DX',
    code: [0xed],
    from: { rdx: 0x9_03f8n },
    exit: EXIT_IO,
    after: [
      [S_EXIT_VA, 8, 0x3f8n],
      [S_EXIT_SIZE, 4, 4n],
    ],
  },

  // ---- flags
  { what: 'popf at CPL 3 keeps IF and IOPL', code: [0x6a, 0x00, 0x9d], cpl: 3, from: { rflags: 0x202n }, to: { rflags: 0x202n } },
  { what: 'popf at CPL 0 changes IF, IOPL, DF and AC', code: [0x68, 0xd7, 0x36, 0x24, 0x00, 0x9d], from: { rflags: 2n }, to: { rflags: 0x24_36d7n & ~0x100n } },
  { what: 'a 16-bit popf leaves AC and ID', code: [0x66, 0x6a, 0x00, 0x66, 0x9d], from: { rflags: 0x24_0ed7n }, to: { rflags: 0x24_0002n } },
  { what: 'sti and cli at CPL 0', code: [0xfb, 0x90, 0xfa, 0xfb], from: { rflags: 2n }, to: { rflags: 2n | IF } },
  { what: 'sti at CPL 3 with IOPL 3', code: [0xfb], cpl: 3, from: { rflags: 0x3002n }, fault: GP, to: { rflags: 0x3202n, rip: 1n } },
  { what: 'pushf shows status and system flags', code: [0x9c, 0x58], from: { rflags: 0x24_0ed7n }, to: { rax: 0x24_0ed7n } },
  { what: 'std and cld', code: [0xfd, 0x9c, 0x58, 0xfc], from: { rflags: 2n }, to: { rax: 0x402n } },

  // ---- segment bases, MSRs, control registers
  {
    what: 'wrfsbase sets the base',
    code: [0xf3, 0x48, 0x0f, 0xae, 0xd0],
    cpl: 3,
    from: { rax: 0x7fff_ffff_f000n },
    fields: FSGSBASE,
    after: [[FS_BASE, 8, 0x7fff_ffff_f000n]],
  },
  {
    what: 'wrfsbase of a non-canonical address raises #GP',
    code: [0xf3, 0x48, 0x0f, 0xae, 0xd0],
    cpl: 3,
    from: { rax: 0x8000_0000_0000n },
    fields: FSGSBASE,
    fault: GP,
  },
  { what: 'wrfsbase without CR4.FSGSBASE raises #UD', code: [0xf3, 0x48, 0x0f, 0xae, 0xd0], cpl: 3, fault: UD },
  {
    what: 'a 32-bit wrgsbase zero-extends',
    code: [0xf3, 0x0f, 0xae, 0xd8],
    from: { rax: -1n & 0xffff_ffff_ffff_ffffn },
    fields: FSGSBASE,
    after: [[GS_BASE, 8, 0xffff_ffffn]],
  },
  { what: 'rdfsbase reads it', code: [0xf3, 0x48, 0x0f, 0xae, 0xc0], fields: [...FSGSBASE, [FS_BASE, 8, 0x1234_5678_9abcn]], to: { rax: 0x1234_5678_9abcn } },
  {
    what: 'swapgs exchanges the bases',
    code: [0x0f, 0x01, 0xf8],
    fields: [
      [GS_BASE, 8, 1n],
      [S_KERNEL_GS_BASE, 8, 2n],
    ],
    after: [
      [GS_BASE, 8, 2n],
      [S_KERNEL_GS_BASE, 8, 1n],
    ],
  },
  { what: 'wrmsr FS_BASE stays inside', code: [0x0f, 0x30], from: { rcx: 0xc000_0100n, rax: 0x9000n, rdx: 0x12n }, after: [[FS_BASE, 8, 0x12_0000_9000n]] },
  {
    what: 'rdmsr KERNEL_GS_BASE stays inside',
    code: [0x0f, 0x32],
    from: { rcx: 0xc000_0102n },
    fields: [[S_KERNEL_GS_BASE, 8, 0x12_8000_0001n]],
    to: { rax: 0x8000_0001n, rdx: 0x12n },
  },
  {
    what: 'mov of a null selector stays inside',
    code: [0x8e, 0xe0],
    cpl: 3,
    from: { rax: 3n },
    fields: [[FS_BASE, 8, 5n]],
    after: [
      [FS_BASE, 8, 0n],
      [FS_BASE + SEG_SELECTOR, 4, 3n],
    ],
  },
  { what: 'mov from a segment register zero-extends', code: [0x8c, 0xd8], fields: [[DS_SELECTOR, 4, 0x2bn]], to: { rax: 0x2bn } },
  { what: 'push of a segment register', code: [0x0f, 0xa0, 0x58], fields: [[FS_BASE + SEG_SELECTOR, 4, 0x33n]], to: { rax: 0x33n } },
  { what: 'mov from CR0 stays inside', code: [0x0f, 0x20, 0xc0], fields: [[S_CR0, 8, 0x8005_0033n]], to: { rax: 0x8005_0033n } },
  { what: 'smsw gives CR0', code: [0x0f, 0x01, 0xe0], cpl: 3, fields: [[S_CR0, 8, 0x8005_0033n]], to: { rax: 0x8005_0033n } },
  { what: 'smsw under UMIP raises #GP', code: [0x0f, 0x01, 0xe0], cpl: 3, fields: [[S_CR4, 8, 1n << 11n]], fault: GP },
  {
    what: 'lgdt loads ten bytes',
    code: [0x0f, 0x01, 0x17],
    memory: [0x5678_9abc_def0_0fffn, 0x1234n],
    after: [
      [S_GDTR, 8, 0x1234_5678_9abc_def0n],
      [S_GDTR + 8, 4, 0xfffn],
    ],
  },
  {
    what: 'sgdt stores them',
    code: [0x0f, 0x01, 0x07],
    fields: [
      [S_GDTR, 8, 0x1234_5678_9abc_def0n],
      [S_GDTR + 8, 4, 0xfffn],
    ],
    stored: [0x5678_9abc_def0_0fffn, 0x1234n],
  },
  {
    what: 'rdtscp gives TSC_AUX',
    code: [0x0f, 0x01, 0xf9, 0x31, 0xc0, 0x31, 0xd2],
    fields: [[S_TSC_AUX, 8, 7n]],
    to: { rcx: 7n, rax: 0n, rdx: 0n, rflags: 0x46n },
  },
  { what: 'rdpid gives TSC_AUX', code: [0xf3, 0x0f, 0xc7, 0xf8], cpl: 3, fields: [[S_TSC_AUX, 8, 7n]], to: { rax: 7n } },
  { what: 'rdpkru', code: [0x0f, 0x01, 0xee], cpl: 3, from: { rcx: 0n }, fields: [...PKE, [S_PKRU, 4, 0x5555_5554n]], to: { rax: 0x5555_5554n, rdx: 0n } },
  { what: 'wrpkru', code: [0x0f, 0x01, 0xef], cpl: 3, from: { rax: 0xcn, rcx: 0n, rdx: 0n }, fields: PKE, after: [[S_PKRU, 4, 0xcn]] },
  { what: 'wrpkru with EDX set raises #GP', code: [0x0f, 0x01, 0xef], from: { rcx: 0n, rdx: 1n }, fields: PKE, fault: GP },

  // ---- control transfers
  { what: 'call and ret n', code: [0xe8, 0x04, 0, 0, 0, HLT, 0x90, 0x90, 0x90, 0xc2, 0x10, 0x00], to: { rip: 5n, rsp: STACK + 16n } },
  {
    what: 'call through memory by RSP reads the target first',
    code: [0xff, 0x14, 0x24, HLT, 0x90, 0x90, 0x58, HLT],
    from: { rsp: BigInt(DATA + 8) },
    memory: [0n, BigInt(CODE + 6)],
    to: { rip: 7n, rax: BigInt(CODE + 3), rsp: BigInt(DATA + 8) },
  },
  { what: 'jmp through a register', code: [0xff, 0xe0, 0x90, 0x90, HLT], from: { rax: BigInt(CODE + 4) }, to: { rip: 4n } },

  // ---- faults leave everything as it was
  { what: 'push', code: [0x50], from: { rsp: NOWHERE }, fault: PF },
  { what: 'call', code: [0xe8, 0, 0, 0, 0], from: { rsp: NOWHERE }, fault: PF },
  { what: 'ret', code: [0xc3], from: { rsp: NOWHERE }, fault: PF },
  { what: 'pop to memory', code: [0x8f, 0x00], from: { rax: NOWHERE }, fault: PF },
  { what: 'enter', code: [0xc8, 0x10, 0, 0], from: { rsp: NOWHERE }, fault: PF },
  { what: 'xchg', code: [0x48, 0x87, 0x08], from: { rax: NOWHERE }, fault: PF },
  { what: 'add to memory', code: [0x48, 0x01, 0x08], from: { rax: NOWHERE }, fault: PF },
  { what: 'cmpxchg', code: [0x48, 0x0f, 0xb1, 0x0b], from: { rbx: NOWHERE }, fault: PF },
  { what: 'lock inc', code: [0xf0, 0xff, 0x00], from: { rax: NOWHERE }, fault: PF },
  { what: 'bts beyond its operand', code: [0x48, 0x0f, 0xab, 0x08], from: { rax: 0n, rcx: NOWHERE * 8n }, fault: PF },
  { what: 'movs with a bad destination', code: [0x48, 0xa5], from: { rsi: BigInt(DATA), rdi: NOWHERE }, fault: PF },
  { what: 'movsx', code: [0x0f, 0xbe, 0x08], from: { rax: NOWHERE }, fault: PF },
  {
    what: 'an addition after one that completed',
    code: [0x48, 0x01, 0xc8, 0x48, 0x01, 0x0b],
    from: { rax: 1n, rcx: 2n, rbx: NOWHERE, rflags: 2n },
    fault: PF,
    to: { rip: 3n, rax: 3n, rflags: 6n },
  },
  {
    what: 'rep movs after what it could copy',
    code: [0xf3, 0xa4],
    from: { rsi: 0xf_fff0n, rdi: BigInt(DATA), rcx: 0x20n },
    fault: PF,
    to: { rsi: 0x10_0000n, rdi: BigInt(DATA + 16), rcx: 0x10n },
  },
];

const DEFAULTS: Required<Registers> = {
  rax: 0x1111_2222_3333_4444n,
  rcx: 0x0102_0304_0506_0708n,
  rdx: 0x5555_6666_7777_8888n,
  rbx: 0x9999_aaaa_bbbb_ccccn,
  rsp: STACK,
  rbp: STACK + 0x100n,
  rsi: BigInt(DATA + 0x100),
  rdi: BigInt(DATA),
  rip: 0n,
  rflags: 0x8d7n,
};

async function createCore(jit: 'off' | 'sync'): Promise<CpuCore> {
  let core: CpuCore | undefined;
  const mmio = (vcpu: number) => {
    if (core === undefined) throw new Error('device access before the machine exists');
    const cpu = core.cpuAddress(vcpu);
    core.view.setUint32(cpu + S_EXC, PF + 1, true);
    core.view.setUint32(cpu + S_EXC_ERROR, 2, true);
    core.view.setBigUint64(cpu + S_EXC_ADDR, NOWHERE, true);
    return 1 as const;
  };
  core = await CpuCore.create({ ramBytes: 1 << 20, jit, hooks: { mmio } });
  return core;
}

function setField(core: CpuCore, offset: number, size: 4 | 8, value: bigint): void {
  const at = core.cpuAddress(0) + offset;
  if (size === 8) core.view.setBigUint64(at, value, true);
  else core.view.setUint32(at, Number(value), true);
}
function getField(core: CpuCore, offset: number, size: 4 | 8): bigint {
  const at = core.cpuAddress(0) + offset;
  return size === 8 ? core.view.getBigUint64(at, true) : BigInt(core.view.getUint32(at, true));
}

function prepare(core: CpuCore, c: Case, rip: number): void {
  for (const [i, word] of (c.memory ?? [0n, 0n]).entries()) core.view.setBigUint64(core.ramBase + DATA + i * 8, word, true);
  const r = { ...DEFAULTS, ...c.from };
  for (const [n, name] of NAMES.entries()) core.setReg(0, n, r[name]);
  core.setRflags(0, r.rflags);
  core.setRip(0, BigInt(rip));
  setField(core, S_CPL, 4, BigInt(c.cpl ?? 0));
  for (const field of c.fields ?? []) setField(core, ...field);
}

/** Runs the case from a fresh reset; compiled code needs one round to become hot. */
function runCase(core: CpuCore, c: Case, rounds: number): void {
  const code = core.ramBase + CODE;
  core.u8.fill(HLT, code, code + 64);
  core.u8.set(c.code, code);
  core.dirtyCode(code, 64);
  for (let round = 0; round < rounds; round++) {
    core.reset(0);
    if (rounds > 1) setField(core, S_HOT_THRESHOLD, 4, 1n);
    prepare(core, c, CODE);
    const reason = core.run(0);
    // A fault expected at CPL 3 may be that of the HLT after the code: `to.rip` says where.
    const wanted = c.fault !== undefined ? EXIT_EXCEPTION : (c.exit ?? ((c.cpl ?? 0) === 0 ? EXIT_HLT : EXIT_EXCEPTION));
    expect(reason).toBe(wanted);
    if (reason === EXIT_EXCEPTION) expect(getField(core, S_EXC, 4) - 1n).toBe(BigInt(c.fault ?? GP));
    const stays = c.fault !== undefined || c.exit !== undefined;
    const to = { ...DEFAULTS, ...c.from, rip: stays ? 0n : BigInt(c.code.length), ...c.to };
    const got = Object.fromEntries([
      ...NAMES.map((name, n) => [name, core.getReg(0, n)]),
      ['rip', core.getRip(0) - BigInt(CODE)],
      ['rflags', core.getRflags(0)],
    ]);
    expect(got).toEqual(to);
    for (const [offset, size, value] of c.after ?? []) expect(getField(core, offset, size)).toBe(value);
    for (const [i, word] of (c.stored ?? []).entries()) expect(core.view.getBigUint64(core.ramBase + DATA + i * 8, true)).toBe(word);
  }
}

for (const [tier, jit, rounds] of [
  ['interpreter', 'off', 1],
  ['compiled code', 'sync', 2],
] as const) {
  describe(tier, async () => {
    const core = await createCore(jit);
    for (const c of cases) test(c.what, () => runCase(core, c, rounds));

    test('the time-stamp counter counts the instructions before it', () => {
      // rdtsc; mov %eax,%ecx; nop; nop; rdtsc
      runCase(
        core,
        { what: '', code: [0x31, 0xd2, 0x0f, 0x31, 0x89, 0xc1, 0x90, 0x90, 0x0f, 0x31, 0x29, 0xc8], to: { rax: 4n, rcx: 1n, rdx: 0n, rflags: 2n } },
        rounds,
      );
      expect(getField(core, S_ICOUNT, 8)).toBe(7n);
    });
  });
}
