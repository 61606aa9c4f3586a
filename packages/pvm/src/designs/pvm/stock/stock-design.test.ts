import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { map, NativeGuest } from '../../../testing/native-guest.ts';
import { TripleFault } from '../../design.ts';

type Exits = Readonly<Record<string, number>>;
const NONE: Exits = {};
const VECTOR = 0x40;
const FORMS = [
  { design: 'pvm', stock: 'auto' },
  { design: 'pvm', stock: 'trap' },
] as const;

/** What is left of a run; the guests share a CPU. */
interface Outcome {
  readonly state: Readonly<Record<string, unknown>>;
  readonly exits: Exits;
  readonly direct: { readonly syscalls: number; readonly returns: number };
  readonly regions: number;
}
async function outcome(start: (guest: NativeGuest) => void, options: Parameters<typeof NativeGuest.create>[0]): Promise<Outcome> {
  const guest = await NativeGuest.create(options);
  const before = guest.core.stats(0).jit?.regions ?? 0;
  start(guest);
  guest.run();
  const regions = (guest.core.stats(0).jit?.regions ?? 0) - before;
  return { state: guest.state(), exits: guest.exits(), direct: guest.directSwitches(), regions };
}

/** Runs the same guest on a plain CPU and in both forms: the same end to the last bit, and in each form the exits that it must have. */
async function compare(
  start: (guest: NativeGuest) => void,
  auto: Exits,
  trap: Exits,
  jit: 'off' | 'sync' = 'off',
): Promise<readonly [auto: Outcome, trap: Outcome]> {
  const want = await outcome(start, { design: 'bare', jit });
  const [first, second] = [await outcome(start, { ...FORMS[0], jit }), await outcome(start, { ...FORMS[1], jit })];
  expect(first.state).toEqual(want.state);
  expect(second.state).toEqual(want.state);
  expect([first.exits, second.exits]).toEqual([auto, trap]);
  return [first, second];
}

/** Name, code in the kernel (the comment says what it is), exits as `auto` and as `trap`. */
const KERNEL: readonly (readonly [string, string, Exits, Exits])[] = [
  // movl $0x801c,0x9400; movw $8,0x9404; ljmp *0x9400
  ['far JMP', 'c70425009400001c80000066c70425049400000800ff2c2500940000', NONE, { '#GP JMP far': 1 }],
  // lgdt 0x9100
  ['LGDT', '0f01142500910000', { '#GP LGDT': 1 }, { '#GP LGDT': 1 }],
  // lidt 0x9110
  ['LIDT', '0f011c2510910000', { '#GP LIDT': 1 }, { '#GP LIDT': 1 }],
  // xor %eax,%eax; lldt %ax
  ['LLDT', '31c00f00d0', { '#GP LLDT': 1 }, { '#GP LLDT': 1 }],
  // mov $0x40,%ax; ltr %ax
  ['LTR', '66b840000f00d8', { '#GP LTR': 1 }, { '#GP LTR': 1 }],
  // sgdt 0x9200; sidt 0x9210; str %eax; sldt %ecx; smsw %edx
  ['SGDT, SIDT, STR, SLDT, SMSW', '0f010425009200000f010c25109200000f00c80f00c10f01e2', NONE, NONE],
  // mov %cr0,%rax; mov %cr2,%rbx; mov %cr3,%rcx; mov %cr4,%rdx; mov %cr8,%rsi
  [
    'MOV from CR0, CR2, CR3, CR4, CR8',
    '0f20c00f20d30f20d90f20e2440f20c6',
    NONE,
    { '#GP MOV from CR0': 1, '#GP MOV from CR2': 1, '#GP MOV from CR3': 1, '#GP MOV from CR4': 1, '#GP MOV from CR8': 1 },
  ],
  // mov %cr0,%rax; mov %rax,%cr0
  ['MOV to CR0 of what it holds', '0f20c00f22c0', NONE, { '#GP MOV to CR0': 1, '#GP MOV from CR0': 1 }],
  // mov %cr0,%rax; btr $16,%eax; mov %rax,%cr0; movl $7,0x6000
  ['MOV to CR0 that clears WP', '0f20c00fbaf0100f22c0c704250060000007000000', { '#GP MOV to CR0': 1 }, { '#GP MOV to CR0': 1, '#GP MOV from CR0': 1 }],
  // mov $0x1234,%eax; mov %rax,%cr2
  ['MOV to CR2', 'b8341200000f22d0', NONE, { '#GP MOV to CR2': 1 }],
  // mov %cr3,%rax; mov %rax,%cr3
  ['MOV to CR3', '0f20d80f22d8', { 'HYPERCALL LOAD_PGTBL': 1 }, { '#GP MOV from CR3': 1, '#GP MOV to CR3': 1 }],
  // mov $-1,%rax; mov %rax,%cr3
  ['MOV to CR3 with reserved bits', '48c7c0ffffffff0f22d8', { 'HYPERCALL LOAD_PGTBL': 1 }, { '#GP MOV to CR3': 1 }],
  // mov %cr4,%rax; xor $0x80,%al; mov %rax,%cr4; xor $0x80,%al; mov %rax,%cr4
  ['a toggle of CR4.PGE', '0f20e034800f22e034800f22e0', { 'HYPERCALL TLB_FLUSH': 1 }, { '#GP MOV to CR4': 2, '#GP MOV from CR4': 1 }],
  // mov $5,%eax; mov %rax,%cr8
  ['MOV to CR8', 'b805000000440f22c0', NONE, { '#GP MOV to CR8': 1 }],
  // mov $-1,%rax; mov %rax,%cr4
  ['MOV to CR4 with reserved bits', '48c7c0ffffffff0f22e0', { '#GP MOV to CR4': 1 }, { '#GP MOV to CR4': 1 }],
  // clts; mov $1,%ax; lmsw %ax
  ['CLTS, LMSW', '0f0666b801000f01f0', { '#GP CLTS': 1, '#GP LMSW': 1 }, { '#GP CLTS': 1, '#GP LMSW': 1 }],
  // mov $0x400,%eax; mov %rax,%dr7; mov %dr7,%rcx
  ['MOV to and from DR7', 'b8000400000f23f80f21f9', { '#GP MOV from DR7': 1, '#GP MOV to DR7': 1 }, { '#GP MOV from DR7': 1, '#GP MOV to DR7': 1 }],
  // invlpg 0x5000
  ['INVLPG', '0f013c2500500000', { 'HYPERCALL TLB_INVLPG': 1 }, { '#GP INVLPG': 1 }],
  // mov $2,%ecx; invpcid 0x9300,%rcx
  ['INVPCID', 'b902000000660f38820c2500930000', { 'HYPERCALL TLB_FLUSH': 1 }, { '#GP INVPCID': 1 }],
  // wbinvd; invd
  ['WBINVD, INVD', '0f090f08', { '#GP INVD': 1, '#GP WBINVD': 1 }, { '#GP INVD': 1, '#GP WBINVD': 1 }],
  // mov $0xc0000081,%ecx; rdmsr
  ['RDMSR of an MSR of the CPU', 'b9810000c00f32', { 'HYPERCALL RDMSR 0xc0000081': 1 }, { '#GP RDMSR 0xc0000081': 1 }],
  // mov $0xc0000100,%ecx; mov $0x5000,%eax; xor %edx,%edx; wrmsr; mov %fs:8,%rbx
  ['WRMSR of FS_BASE', 'b9000100c0b80050000031d20f3064488b1c2508000000', { 'HYPERCALL WRMSR 0xc0000100': 1 }, { '#GP WRMSR 0xc0000100': 1 }],
  // mov $0x12345,%ecx; rdmsr
  ['RDMSR of an MSR that nobody has', 'b9452301000f32', { 'HYPERCALL RDMSR 0x12345': 1 }, { '#GP RDMSR 0x12345': 1 }],
  // mov $0xc0000082,%ecx; mov $0x80000000,%edx; wrmsr
  ['WRMSR of an address that is not canonical', 'b9820000c0ba000000800f30', { 'HYPERCALL WRMSR 0xc0000082': 1 }, { '#GP WRMSR 0xc0000082': 1 }],
  // sti; pushf; pop %rax; cli; pushf; pop %rbx; push %rax; popf; pushf; pop %rcx; cli
  ['CLI, STI, PUSHF, POPF', 'fb9c58fa9c5b509d9c59fa', NONE, { '#GP CLI': 2, '#GP POPF': 1, '#GP STI': 1 }],
  // mov $0x11,%eax; swapgs; swapgs
  ['SWAPGS', 'b8110000000f01f80f01f8', NONE, { '#GP SWAPGS': 2 }],
  // stac; pushf; pop %rax; clac
  ['STAC, CLAC', '0f01cb9c580f01ca', NONE, { '#GP CLAC': 1, '#GP STAC': 1 }],
  // mov $0x10,%eax; mov %eax,%ds; mov %eax,%ss; push %rax; pop %fs; xor %eax,%eax; mov %eax,%es
  ['MOV and POP to segment registers', 'b8100000008ed88ed0500fa131c08ec0', NONE, { '#GP MOV to segment register': 2, '#GP POP segment register': 1 }],
  // mov $8,%eax; lar %ax,%ecx; lsl %ax,%edx
  ['LAR, LSL', 'b8080000000f02c80f03d0', NONE, NONE],
  // mov %rsp,%rcx; push $0x10; push %rcx; push $0x2; push $8; push $0x8011; iretq
  ['IRET to the kernel', '4889e16a10516a026a08681180000048cf', NONE, { '#GP IRET': 1 }],
  // push $8; lea 3f(%rip),%rax; push %rax; lretq; 3:
  ['far RET to the kernel', '6a08488d05030000005048cb', NONE, { '#GP RET far': 1 }],
  // in $0x21,%al; out %al,$0x80; mov $0xcf8,%dx; out %eax,%dx; in %dx,%ax
  [
    'IN, OUT',
    'e421e68066baf80cef66ed',
    { '#GP IN 0x21': 1, '#GP IN 0xcf8': 1, '#GP OUT 0x80': 1, '#GP OUT 0xcf8': 1 },
    { '#GP IN 0x21': 1, '#GP IN 0xcf8': 1, '#GP OUT 0x80': 1, '#GP OUT 0xcf8': 1 },
  ],
  // mov $0x5000,%edi; mov $0x70,%edx; mov $3,%ecx; rep insb; mov $0x5000,%esi; mov $2,%ecx; rep outsb
  ['INS, OUTS', 'bf00500000ba70000000b903000000f36cbe00500000b902000000f36e', { '#GP IN 0x70': 3, '#GP OUT 0x70': 2 }, { '#GP IN 0x70': 3, '#GP OUT 0x70': 2 }],
  // xor %eax,%eax; cpuid; rdtsc
  ['CPUID, RDTSC', '31c00fa20f31', NONE, NONE],
  // ud2
  ['UD2', '0f0b', { '#UD': 1 }, { '#UD': 1 }],
  // xor %ecx,%ecx; div %ecx
  ['DIV by 0', '31c9f7f1', { '#DE': 1 }, { '#DE': 1 }],
  // int3
  ['INT3', 'cc', { '#BP': 1 }, { '#BP': 1 }],
  // int $0x41
  ['INT n', 'cd41', { 'vector 0x41': 1 }, { 'vector 0x41': 1 }],
  // int1
  ['INT1', 'f1', { '#DB': 1 }, { '#DB': 1 }],
  // mov 0x7fff0000,%rax
  ['a #PF of the kernel', '488b04250000ff7f', { '#PF guest': 1 }, { '#PF guest': 1 }],
  // mov $1,%rax; shl $63,%rax; mov (%rax),%rbx
  ['an access that is not canonical', '48c7c00100000048c1e03f488b18', { '#GP': 1 }, { '#GP': 1 }],
  // mov 0x1ff010,%eax; movb $7,0x1ff020
  ['memory of a device', '8b042510f01f00c6042520f01f0007', { '#PF mmio read': 1, '#PF mmio write': 1 }, { '#PF mmio read': 1, '#PF mmio write': 1 }],
];

/** push $0x23; push $0x10f000; push $0x202; push $0x2b; push $0x100000; iretq */
const IRET = '6a236800f0100068020200006a2b680000100048cf';
interface UserCase {
  readonly name: string;
  /** The kernel's way to user mode. */
  readonly enter: string;
  readonly code: string;
  /** Handlers and data: address to bytes. */
  readonly put: Readonly<Record<number, string>>;
  readonly auto: Exits;
  readonly trap: Exits;
  /** Direct switches as `auto`: to the kernel, and back. */
  readonly direct: readonly [syscalls: number, returns: number];
}
const USER: readonly UserCase[] = [
  // syscall
  { name: 'SYSCALL', enter: IRET, code: '0f05', put: {}, auto: NONE, trap: { '#GP IRET': 1, SYSCALL: 1 }, direct: [1, 1] },
  // mov $0x100000,%ecx; mov $0x202,%r11d; sysretq
  {
    name: 'SYSCALL, by SYSRET',
    enter: 'b90000100041bb02020000480f07',
    code: '0f05',
    put: {},
    auto: NONE,
    trap: { '#GP SYSRET': 1, SYSCALL: 1 },
    direct: [1, 1],
  },
  // push $0x23; push $0x10f000; push $0x2b; push $0x100000; lretq
  {
    name: 'SYSCALL, by RETF',
    enter: '6a236800f010006a2b680000100048cb',
    code: '0f05',
    put: {},
    auto: NONE,
    trap: { '#GP RET far': 1, SYSCALL: 1 },
    direct: [1, 1],
  },
  // mov $0x100000,%edx; mov $0x10f000,%ecx; rex.w sysexit
  {
    name: 'SYSENTER by SYSEXIT',
    enter: 'ba00001000b900f01000480f35',
    code: '0f34',
    put: {},
    auto: { SYSENTER: 1 },
    trap: { '#GP SYSENTER': 1, '#GP SYSEXIT': 1 },
    direct: [0, 1],
  },
  // int $0x80
  { name: 'INT 0x80', enter: IRET, code: 'cd80', put: {}, auto: { INT80: 1 }, trap: { '#GP IRET': 1, INT80: 1 }, direct: [0, 1] },
  // int $0x41
  { name: 'INT n without right', enter: IRET, code: 'cd41', put: {}, auto: { 'vector 0x41': 1 }, trap: { '#GP IRET': 1, 'vector 0x41': 1 }, direct: [0, 1] },
  // cli
  { name: 'a privileged instruction', enter: IRET, code: 'fa', put: {}, auto: { '#GP': 1 }, trap: { '#GP': 1, '#GP IRET': 1 }, direct: [0, 1] },
  // mov 0x5000,%rax
  { name: 'a #PF', enter: IRET, code: '488b042500500000', put: {}, auto: { '#PF guest': 1 }, trap: { '#GP IRET': 1, '#PF guest': 1 }, direct: [0, 1] },
  // ud2
  { name: 'UD2', enter: IRET, code: '0f0b', put: {}, auto: { '#UD': 1 }, trap: { '#GP IRET': 1, '#UD': 1 }, direct: [0, 1] },
  // lcall *0x100f00
  {
    name: 'a far CALL through a call gate',
    enter: IRET,
    code: 'ff1c25000f1000',
    put: { [map.user + 0xf00]: '000000005000' },
    auto: { '#GP CALL far': 1 },
    trap: { '#GP CALL far': 1, '#GP IRET': 1 },
    direct: [0, 1],
  },
  // mov $10,%ebx; 1: syscall; dec %ebx; jnz 1b; cli
  {
    name: 'ten system calls',
    enter: IRET,
    code: 'bb0a0000000f05ffcb75fafa',
    put: { [map.lstar]: '0f01f80f01f8480f07' },
    auto: { '#GP': 1 },
    trap: { '#GP SWAPGS': 20, '#GP SYSRET': 10, SYSCALL: 10, '#GP': 1, '#GP IRET': 1 },
    direct: [10, 11],
  },
  // mov 0x110008,%rax; cli
  {
    name: 'a page that the kernel maps',
    enter: IRET,
    code: '488b042508001100fa',
    put: { [map.handlers + 32 * 14]: '800c2580480000214883c40848cf' },
    auto: { '#GP': 1, '#PF guest': 1, ERETU: 1 },
    trap: { '#GP IRET': 2, '#GP': 1, '#PF guest': 1 },
    direct: [0, 1],
  },
];

/** Name, kernel code, user code, exits; the handler is `inc %r15; iretq`. */
const INTERRUPTS: readonly (readonly [string, string, string, Exits, Exits])[] = [
  // sti; nop; nop; cli
  ['an interrupt that waits for STI', 'fb9090fa', '', { 'HYPERCALL IRQ_WIN': 1 }, { '#GP CLI': 1, '#GP IRET': 1, '#GP STI': 1, INTERRUPT_WINDOW: 1 }],
  // sti; hlt; cli
  ['an interrupt in HLT', 'fbf4fa', '', NONE, { '#GP CLI': 1, '#GP IRET': 1, '#GP STI': 1 }],
  // push $0x202; popf; nop; nop; cli
  ['an interrupt that waits for POPF', '68020200009d9090fa', '', { 'HYPERCALL IRQ_WIN': 1 }, { '#GP CLI': 1, '#GP IRET': 1, '#GP POPF': 1 }],
  // push $0x23; push $0x10f000; push $0x202; push $0x2b; push $0x100000; iretq | nop; nop; cli; nop
  ['an interrupt that waits for user', '6a236800f0100068020200006a2b680000100048cf', '9090fa90', { '#GP': 1, ERETU: 1 }, { '#GP IRET': 2, '#GP': 1 }],
];

describe('an unmodified guest ends as on a plain CPU, with the exits of its form', () => {
  it.each(KERNEL)('kernel: %s', async (_, code, auto, trap) => {
    await compare((guest) => guest.startKernel(code), auto, trap);
  });

  it.each(USER)('user: $name', async ({ enter, code, put, auto, trap, direct }) => {
    const start = (guest: NativeGuest) => {
      guest.startKernel(enter).put(map.user, code);
      for (const [at, bytes] of Object.entries(put)) guest.put(Number(at), bytes);
    };
    const [first, second] = await compare(start, auto, trap);
    expect(first.direct).toEqual({ syscalls: direct[0], returns: direct[1] });
    expect(second.direct).toEqual({ syscalls: 0, returns: 0 });
  });

  it.each(INTERRUPTS)('%s', async (_, code, user, auto, trap) => {
    const start = (guest: NativeGuest) => {
      guest
        .startKernel(code)
        .put(map.user, user)
        .put(map.handlers + 32 * VECTOR, '49ffc748cf');
      guest.board.queue.add(VECTOR);
    };
    await compare(start, auto, trap);
  });
});

describe('a guest that goes from real mode through protected and compatibility mode to long mode', () => {
  it.each(FORMS)('finds everything right ($stock)', async (form) => {
    const guest = await NativeGuest.create({ ...form, ramBytes: 8 << 20 });
    guest.startReal(0x8000);
    guest.ram.bytes.set(readFileSync(new URL('../../../../../cpu-jit/tests/guests/long-mode.bin', import.meta.url)), 0x8000);
    guest.board.onWrite = (port) => {
      if (port === 0xea || port === 0xeb) guest.board.queue.add(0x55);
    };
    // It ends in a triple fault on purpose.
    expect(() => guest.run()).toThrow(TripleFault);
    const written = (port: number) => guest.board.writes.filter(([p]) => p === port).map(([, value]) => value);
    expect(written(0xe9)).toEqual(Array.from({ length: 14 }, (_, i) => i + 1));
    expect(written(0xf4)).toEqual(['K'.charCodeAt(0)]);
  });
});

it('a thousand system calls and returns, compiled, do not leave the guest', async () => {
  // mov $1000,%ebx; 1: syscall; dec %ebx; jnz 1b; cli. The kernel: swapgs; swapgs; sysretq.
  const start = (guest: NativeGuest) => guest.startKernel(IRET).put(map.user, 'bbe80300000f05ffcb75fafa').put(map.lstar, '0f01f80f01f8480f07');
  const trap = { '#GP': 1, '#GP IRET': 1, '#GP SWAPGS': 2000, '#GP SYSRET': 1000, SYSCALL: 1000 };
  const [auto] = await compare(start, { '#GP': 1 }, trap, 'sync');
  expect(auto.direct).toEqual({ syscalls: 1000, returns: 1001 });
  expect(auto.regions).toBeGreaterThan(1);
});

it('without direct switch, system calls and returns are exits', async () => {
  const guest = await NativeGuest.create({ design: 'pvm', directSwitch: false });
  guest.startKernel(IRET).put(map.user, '0f05').run();
  expect(guest.exits()).toEqual({ ERETU: 1, SYSCALL: 1 });
  expect(guest.directSwitches()).toEqual({ syscalls: 0, returns: 0 });
});

it('a page that the fault handler mapped is in the shadow before the program goes on, unless that is switched off', async () => {
  const shadowFaults = async (prefault: boolean) => {
    const guest = await NativeGuest.create({ design: 'pvm', prefault });
    // mov 0x110008,%rax; cli. The handler of #PF: orb $0x21,0x4880; add $8,%rsp; iretq
    guest
      .startKernel(IRET)
      .put(map.user, '488b042508001100fa')
      .put(map.handlers + 32 * 14, '800c2580480000214883c40848cf')
      .run();
    return guest.ledger.entries().find((e) => e.sub === 'shadow')?.count ?? 0;
  };
  expect(await shadowFaults(false)).toBe((await shadowFaults(true)) + 1);
});

it('SMAP and protection keys, which accesses at privilege level 3 know nothing of, are refused', async () => {
  const guest = await NativeGuest.create({ design: 'pvm' });
  // mov %cr4,%rax; bts $21,%rax; mov %rax,%cr4
  guest.startKernel('0f20e0480fbae8150f22e0').run();
  expect(guest.core.getRip(0)).toBe(BigInt(map.handlers + 32 * 13 + 1));
});
