import { afterAll, describe, expect, it } from 'vitest';
import * as rfc from '../../abi-rfc-v1/constants.ts';
import * as v2 from '../../abi-v2/constants.ts';
import { createVm, type Vm, type VmOptions } from '../../index.ts';
import * as asm from '../../testing/assemble.ts';
import { at, bzImageKernel, elfKernel, multibootKernel, type Pieces, pvhKernel, WINDOW } from '../../testing/kernel-image.ts';

/** OUT of AL to COM1; AL := AL + n; RAX >>= n. */
const put = [0x66, 0xba, 0xf8, 0x03, 0xee];
const addAl = (n: number) => [0x04, n];
const shiftRight = (n: number) => [0x48, 0xc1, 0xe8, n];
const digit = [0x24, 3, ...addAl(0x30), ...put];
/** mov dx, PM1 control; mov ax, S5 | SLP_EN; out dx, ax; hlt. */
const powerOff = [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4];

const hypercall = (number: number, rbx: number | bigint, r10: number | bigint = 0, rdx: number | bigint = 0) => [
  ...asm.mov('rax', number),
  ...asm.mov('rbx', rbx),
  ...asm.mov('r10', r10),
  ...asm.mov('rdx', rdx),
  ...asm.syscall,
];
const writeByCall = (index: number, value: number | bigint) => hypercall(v2.HC_WRMSR, index, value);
const writeByInstruction = (index: number, value: number | bigint) => [
  ...asm.mov('rcx', index),
  ...asm.mov('rax', BigInt(value) & 0xffff_ffffn),
  ...asm.mov('rdx', BigInt(value) >> 32n),
  ...asm.wrmsr,
];
const put64 = (address: number, value: number | bigint) => [...asm.mov('rax', value), ...asm.store(address)];

/** mov edi, 'U'; syscall; ud2. */
const program = [0xbf, 0x55, 0, 0, 0, ...asm.syscall, ...asm.ud2];
const putBytes = (address: number, bytes: readonly number[]) =>
  Array.from({ length: Math.ceil(bytes.length / 8) }, (_, i) => {
    const word = bytes.slice(8 * i, 8 * i + 8).reduce((n, byte, j) => n | (BigInt(byte) << BigInt(8 * j)), 0n);
    return put64(address + 8 * i, word);
  }).flat();

/** What the kernel finds before it has told the hypervisor anything: IF, CPL, and the signature: "13PVM". */
const detect = [
  ...[...asm.mov('rsp', at.stack), ...asm.pushfq, ...asm.popRax, ...shiftRight(9), 0x24, 1, ...addAl(0x30), ...put],
  ...[0x8c, 0xc8, ...digit],
  ...[...asm.mov('rax', 0x4000_0002), ...asm.mov('rcx', 0), ...asm.syntheticCpuid],
  ...[...asm.movReg('rax', 'rbx'), ...put, ...shiftRight(8), ...put, ...shiftRight(8), ...put],
];

const upper = (address: number) => WINDOW + BigInt(address);
const toUser = [...asm.mov('rax', upper(at.retu)), ...asm.jmpRax];

/** Registers the kernel with its entry points in the upper half, half of the MSRs by instruction, and runs a program that makes a system call and a mistake. */
function kernel(abi: 'v2' | 'rfc-v1'): Pieces {
  const pvcs = abi === 'v2' ? v2 : rfc;
  const own: readonly number[] =
    abi === 'v2'
      ? []
      : [
          ...writeByCall(rfc.MSR_PVM_SWITCH_CR3, at.pml4 | 1),
          ...writeByInstruction(rfc.MSR_PVM_SUPERVISOR_RSP, upper(at.stack - 0x800)),
          ...writeByCall(rfc.MSR_PVM_RETS_RIP, upper(at.rets)),
          ...put64(at.pvcs + rfc.PVCS_RSP, at.user + 0x1_0000),
        ];
  return [
    [
      at.start64,
      detect,
      hypercall(v2.HC_LOAD_PGTBL, v2.LOAD_PGTBL_FLUSH, at.pml4, at.pml4 | 1),
      writeByInstruction(v2.MSR_PVM_VCPU_STRUCT, at.pvcs),
      writeByCall(v2.MSR_PVM_EVENT_ENTRY, upper(at.event)),
      writeByInstruction(v2.MSR_PVM_RETU_RIP, upper(at.retu)),
      writeByCall(0xc000_0082, upper(at.lstar)),
      own,
      put64(at.pvcs + v2.PVCS_USER_CS, v2.USER_CS_SS),
      put64(at.pvcs + pvcs.PVCS_EFLAGS, 0x202),
      put64(at.pvcs + pvcs.PVCS_RIP, at.user),
      putBytes(at.user, program),
      toUser,
    ],
    [at.lstar, [0x89, 0xf8], put, toUser],
    [at.event, asm.load8(at.pvcs + pvcs.PVCS_EVENT_VECTOR), addAl(0x61), put, powerOff],
    [at.retu, asm.syscall],
    [at.rets, asm.syscall],
  ];
}

const machines: Vm[] = [];
afterAll(() => Promise.all(machines.map((vm) => vm.dispose())));

async function run(image: Uint8Array, options: VmOptions = {}): Promise<{ serial: string; vm: Vm; stopReason: string }> {
  let serial = '';
  const vm = await createVm({
    kernel: image,
    design: 'pvm',
    abi: 'auto',
    jit: 'off',
    clock: 'icount',
    memory: '32M',
    onSerial: (chunk) => {
      serial += new TextDecoder().decode(chunk);
    },
    ...options,
  });
  machines.push(vm);
  const { stopReason } = await vm.run();
  return { serial, vm, stopReason };
}

const formats: readonly [name: string, build: (pieces: Pieces) => Uint8Array][] = [
  ['ELF64 by the Linux protocol', elfKernel],
  ['a bzImage with a 64-bit entry', (pieces) => bzImageKernel(pieces, true)],
  ['a bzImage with a 32-bit entry', (pieces) => bzImageKernel(pieces, false)],
  ['PVH', pvhKernel],
  ['multiboot', multibootKernel],
];

describe.each(['v2', 'rfc-v1'] as const)('a kernel of its own for ABI %s', (abi) => {
  it.each(formats)('boots as %s, finds PVM, registers itself and runs a program', async (_name, build) => {
    const { serial, stopReason } = await run(build(kernel(abi)), { abi });
    expect(serial).toBe('13PVMUg');
    expect(stopReason).toBe('poweroff');
  });

  it('is recognised by what it does', async () => {
    const { serial } = await run(elfKernel(kernel(abi)), { abi: 'auto' });
    expect(serial).toBe('13PVMUg');
  });
});

describe('the devices of the PC', () => {
  const EVENT_SMOD = at.event + 512;
  const attach = [...writeByCall(v2.MSR_PVM_EVENT_ENTRY, at.event), ...writeByCall(v2.MSR_PVM_VCPU_STRUCT, at.pvcs)];
  const loadTables = hypercall(v2.HC_LOAD_PGTBL, v2.LOAD_PGTBL_FLUSH, at.pml4, at.pml4 | 1);
  /** The local APIC in x2APIC mode, its timer on vector 'T' at TSC + 50000. */
  const armTimer = [
    ...writeByInstruction(0x1b, 0xfee0_0d00),
    ...writeByCall(0x80f, 0x1ff),
    ...writeByInstruction(0x832, 0x4_0000 | 'T'.charCodeAt(0)),
    ...[0x0f, 0x31, 0x05, 0x50, 0xc3, 0, 0, 0xb9, 0xe0, 0x06, 0, 0, 0x0f, 0x30],
  ];
  const vectorAt = { v2: v2.PVCS_EVENT_VECTOR, 'rfc-v1': rfc.PVCS_EVENT_VECTOR } as const;
  const handler = (abi: 'v2' | 'rfc-v1') => [...asm.load8(at.pvcs + vectorAt[abi]), ...put, ...powerOff];
  const stack = asm.mov('rsp', at.stack);

  it.each(['v2', 'rfc-v1'] as const)('the APIC timer ends IRQ_HALT (%s)', async (abi) => {
    const code = [...stack, ...loadTables, ...attach, ...armTimer, ...hypercall(v2.HC_IRQ_HALT, 0), ...asm.ud2];
    const { serial, vm } = await run(
      elfKernel([
        [at.start64, code],
        [EVENT_SMOD, handler(abi)],
      ]),
      { abi },
    );
    expect(serial).toBe('T');
    expect(vm.ledger.count('HYPERCALL', 'IRQ_HALT')).toBe(1);
  });

  it('the APIC timer interrupts a loop of smod', async () => {
    const code = [...stack, ...loadTables, ...attach, ...armTimer, ...asm.sti, 0xeb, 0xfe];
    const { serial, vm } = await run(
      elfKernel([
        [at.start64, code],
        [EVENT_SMOD, handler('v2')],
      ]),
    );
    expect(serial).toBe('T');
    expect(vm.ledger.count('INTERRUPT', 'timer')).toBe(1);
  });

  it('no interrupt comes before there is a PVCS, whatever RFLAGS.IF says; it waits in IP', async () => {
    const wait = [...asm.mov('rbp', 100_000), 0x48, 0xff, 0xcd, 0x75, 0xfb];
    const flags = [...asm.load(at.pvcs), ...shiftRight(8), 0x24, 3, ...addAl(0x30), ...put];
    const code = [...stack, ...loadTables, ...armTimer, ...wait, ...attach, ...flags, ...asm.sti, ...asm.ud2];
    const { serial } = await run(
      elfKernel([
        [at.start64, code],
        [EVENT_SMOD, handler('v2')],
      ]),
    );
    // IP without IF, then the interrupt.
    expect(serial).toBe('1T');
  });

  /** The local APIC in x2APIC mode, and an interrupt to itself on vector 'I' by SEND_IPI: APIC IDs from RDX on in RBX and R10, command in RSI. */
  const interruptItself = [
    ...writeByInstruction(0x1b, 0xfee0_0d00),
    ...writeByCall(0x80f, 0x1ff),
    ...asm.mov('rsi', 'I'.charCodeAt(0)),
    ...hypercall(10, 1, 0, 0),
  ];
  const put1 = (shift: number) => [...shiftRight(shift), 0x24, 1, ...addAl(0x30), ...put];

  it.each(['v2', 'rfc-v1'] as const)("KVM's hypercall sends an interrupt (%s)", async (abi) => {
    const code = [...stack, ...loadTables, ...attach, ...interruptItself, ...digit, ...asm.sti, ...asm.ud2];
    const image = elfKernel([
      [at.start64, code],
      [EVENT_SMOD, handler(abi)],
    ]);
    // One vCPU reached.
    expect((await run(image, { abi })).serial).toBe('1I');
  });

  it("KVM's steal time and end of interrupt without an exit are offered, and work", async () => {
    const [steal, eoi] = [at.user, at.user + 0x100];
    const features = [...asm.mov('rax', 0x4000_0001), ...asm.mov('rcx', 0), ...asm.syntheticCpuid, ...shiftRight(5), ...digit];
    const setUp = [...writeByCall(0x4b56_4d03, steal | 1), ...asm.load(steal + 8), ...digit, ...writeByInstruction(0x4b56_4d04, eoi | 1)];
    /** Whether 'I' is in service: bit 9 of the third register. */
    const inService = [...asm.mov('rcx', 0x812), ...asm.rdmsr, ...put1(9)];
    const image = elfKernel([
      [at.start64, [...stack, ...features, ...loadTables, ...attach, ...setUp, ...interruptItself, ...asm.sti, ...asm.ud2]],
      // The bit says that clearing it is the end of the interrupt.
      [EVENT_SMOD, [...asm.load(eoi), ...put1(0), ...put64(eoi, 0), ...inService, ...powerOff]],
    ]);
    expect((await run(image)).serial).toBe('3210');
  });

  it("KVM's interface is hidden on request, but for the clock", async () => {
    const features = [...asm.mov('rax', 0x4000_0001), ...asm.mov('rcx', 0), ...asm.syntheticCpuid];
    const code = [...stack, ...features, ...digit, ...features, ...shiftRight(5), ...digit, ...interruptItself, ...shiftRight(60), ...put1(0), ...powerOff];
    // -1000 of the hypercall is negative.
    expect((await run(elfKernel([[at.start64, code]]), { kvmPv: false })).serial).toBe('101');
  });

  it("memory outside RAM is the devices'", async () => {
    // Version of the local APIC, in its registers: read as 4 bytes.
    const code = [...stack, ...loadTables, ...asm.mov('rbx', upper(0xfee0_0030)), 0x8b, 0x03, ...put, ...powerOff];
    const { serial, vm } = await run(elfKernel([[at.start64, code]]));
    expect(serial.charCodeAt(0)).toBe(0x14);
    expect(vm.ledger.count('#PF', 'mmio')).toBe(1);
  });
});

describe('non-PVM mode', () => {
  /** mov dx, COM1; mov al, c; out dx, al. */
  const say = (c: string) => [0x66, 0xba, 0xf8, 0x03, 0xb0, c.charCodeAt(0), 0xee];
  const halt: Pieces = [[at.start64, powerOff]];

  it('is plain x86: privilege level 0, interrupts off, privileged instructions work, the synthetic CPUID is a CPUID', async () => {
    const level = [0x66, 0x8c, 0xc8, ...digit];
    // pushfd; pop eax; shr eax, 9; and al, 1
    const interrupts = [0xbc, 0, 0, 0x22, 0, 0x9c, 0x58, 0xc1, 0xe8, 9, 0x24, 1, ...addAl(0x30), ...put];
    const privileged = [0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0, 0x0f, 0x06, 0xfa];
    const signature = [0xb8, 2, 0, 0, 0x40, 0x31, 0xc9, ...asm.syntheticCpuid, 0x89, 0xd8, ...put];
    const { serial, vm } = await run(pvhKernel(halt, [...level, ...interrupts, ...privileged, ...signature]));
    expect(serial).toBe('00P');
    const reasons = vm.ledger.entries().map((e) => e.reason);
    expect(new Set(reasons.filter((reason) => reason !== '#PF'))).toEqual(new Set(['IO_INSTRUCTION', 'CR_ACCESS', '#GP']));
  });

  it('lasts through compatibility mode: the first 64-bit instruction is the first at level 3', async () => {
    const { serial } = await run(pvhKernel([[at.start64, [0x8c, 0xc8, ...digit], powerOff]], say('x')));
    expect(serial).toBe('x3');
  });

  it('leaves CR0, CR4, EFER and STAR as PVM has them', async () => {
    const low = (code: readonly number[]) => [...code, ...put, ...shiftRight(8), ...put, ...shiftRight(8), ...put, ...shiftRight(8), ...put];
    const rdmsr = (index: number) => [...asm.mov('rcx', index), ...asm.rdmsr];
    const code = [low(asm.getCr(0)), low(asm.getCr(4)), low(rdmsr(0xc000_0080)), low([...rdmsr(0xc000_0081), 0x48, 0x89, 0xd0])].flat();
    const bytes: number[] = [];
    await run(pvhKernel([[at.start64, code, powerOff]]), { onSerial: (chunk) => void bytes.push(...chunk) });
    const words = Array.from({ length: 4 }, (_, i) => new DataView(Uint8Array.from(bytes).buffer).getUint32(4 * i, true));
    expect(words.map((word) => word.toString(16))).toEqual(['80050033', '10020', 'd01', '230020']);
  });

  it('ends in a triple fault like any PC without an IDT', async () => {
    await expect(run(pvhKernel(halt, asm.ud2))).rejects.toThrow(/triple fault/);
  });

  it('has no SYSCALL, and no VMCALL: undefined instructions', async () => {
    for (const code of [asm.syscall, [0x0f, 0x01, 0xc1]]) {
      await expect(run(multibootKernel(halt, [...say('x'), ...code]))).rejects.toThrow(/triple fault/);
    }
  });
});
