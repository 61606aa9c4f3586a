import { describe, expect, it } from 'vitest';
import * as rfc from '../../abi-rfc-v1/constants.ts';
import * as v2 from '../../abi-v2/constants.ts';
import { createVm, type VmOptions } from '../../index.ts';
import * as asm from '../../testing/assemble.ts';
import { at, CODE_SELECTOR, elfKernel, LOAD, type Pieces } from '../../testing/kernel-image.ts';

/** Page of the start-up IPI, and where the second vCPU has its 64-bit code, its stack and its PVCS. */
const SIPI_PAGE = 8;
const TRAMPOLINE = SIPI_PAGE << 12;
const second = { code: LOAD + 0x1_0000, event: LOAD + 0x1_1000, pvcs: LOAD + 0x1_3000, stack: LOAD + 0x1_8000 } as const;
/** Words that the vCPUs share: how far the second has come, a lock, a counter, and whether the second is done. */
const [FLAG, LOCK, COUNTER, DONE] = [at.user, at.user + 8, at.user + 16, at.user + 24];

const le = (n: number, size: number) => Array.from({ length: size }, (_, i) => Math.floor(n / 2 ** (8 * i)) & 0xff);
/** OUT of AL to COM1; the same of a character. */
const put = [0x66, 0xba, 0xf8, 0x03, 0xee];
const say = (c: string) => [0xb0, c.charCodeAt(0), ...put];
/** cli; hlt; jmp to the hlt: a kick that came too late ends one. */
const halt = [0xfa, 0xf4, 0xeb, 0xfd];
const powerOff = [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4];
const hypercall = (number: number, rbx: number | bigint = 0, r10: number | bigint = 0, rdx: number | bigint = 0) => [
  ...asm.mov('rax', number),
  ...asm.mov('rbx', rbx),
  ...asm.mov('r10', r10),
  ...asm.mov('rdx', rdx),
  ...asm.syscall,
];
const writeMsr = (index: number, value: number | bigint) => hypercall(v2.HC_WRMSR, index, value);
const put64 = (address: number, value: number | bigint) => [...asm.mov('rax', value), ...asm.store(address)];
/** pause; mov rax, [address]; cmp al, value; jne: until it is. */
const waitFor = (address: number, value: number) => [0xf3, 0x90, ...asm.load(address), 0x3c, value, 0x75, 0x100 - 16];

/** 16-bit code: long mode on the tables of the image, then 64-bit code at `second.code`. */
const trampoline: readonly number[] = [
  ...[0xfa, 0x66, 0x0f, 0x01, 0x16, ...le(TRAMPOLINE + 0x80, 2)],
  ...[0x0f, 0x20, 0xe0, 0x66, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0],
  ...[0x66, 0xb8, ...le(at.pml4, 4), 0x0f, 0x22, 0xd8],
  ...[0x66, 0xb9, ...le(0xc000_0080, 4), 0x0f, 0x32, 0x66, 0x0d, ...le(0x900, 4), 0x0f, 0x30],
  ...[0x0f, 0x20, 0xc0, 0x66, 0x0d, ...le(0x8000_0001, 4), 0x0f, 0x22, 0xc0],
  ...[0x66, 0xea, ...le(second.code, 4), ...le(CODE_SELECTOR, 2)],
];
const putBytes = (address: number, bytes: readonly number[]) =>
  Array.from({ length: Math.ceil(bytes.length / 8) }, (_, i) => {
    const word = bytes.slice(8 * i, 8 * i + 8).reduce((n, byte, j) => n | (BigInt(byte) << BigInt(8 * j)), 0n);
    return put64(address + 8 * i, word);
  }).flat();

const enableApic = [...writeMsr(0x1b, 0xfee0_0d00), ...writeMsr(0x80f, 0x1ff)];
const attach = (event: number, pvcs: number) => [...writeMsr(v2.MSR_PVM_EVENT_ENTRY, event), ...writeMsr(v2.MSR_PVM_VCPU_STRUCT, pvcs)];
/** INIT and start-up IPI by the x2APIC's command register. */
const startSecond = [
  ...putBytes(TRAMPOLINE, trampoline),
  ...putBytes(TRAMPOLINE + 0x80, [...le(CODE_SELECTOR + 7, 2), ...le(at.gdt, 4)]),
  ...writeMsr(0x830, 0x1_0000_4500n),
  ...writeMsr(0x830, 0x1_0000_4600n | BigInt(SIPI_PAGE)),
];

/** What the boot vCPU does once it has started the second, and what that does, each with APIC, PVCS and event entry of its own. */
function kernel(first: readonly number[], other: readonly number[], events: readonly number[] = asm.ud2): Pieces {
  return [
    [at.start64, asm.mov('rsp', at.stack), enableApic, attach(at.event, at.pvcs), startSecond, first],
    [second.code, asm.mov('rsp', second.stack), enableApic, attach(second.event, second.pvcs), other],
    [second.event + 512, events],
  ];
}

const machine = { design: 'pvm', abi: 'v2', vcpus: 2, jit: 'off', clock: 'icount', memory: '16M', shadowMemory: '1M' } satisfies VmOptions;

async function run(pieces: Pieces, options: VmOptions = {}): Promise<{ serial: string; stopReason: string; kicks: number }> {
  let serial = '';
  const vm = await createVm({
    kernel: elfKernel(pieces),
    ...machine,
    checkMmu: 100,
    maxInstructions: 3_000_000,
    onSerial: (chunk) => {
      serial += Buffer.from(chunk).toString('latin1');
    },
    ...options,
  });
  try {
    const { stopReason } = await vm.run();
    return { serial, stopReason, kicks: vm.ledger.count('HYPERCALL', 'KVM_KICK_CPU') };
  } finally {
    await vm.dispose();
  }
}

describe.each(['v2', 'rfc-v1', 'auto'] as const)('a kernel for ABI %s with two vCPUs', (abi) => {
  const vector = abi === 'rfc-v1' ? rfc.PVCS_EVENT_VECTOR : v2.PVCS_EVENT_VECTOR;

  it('starts the second by INIT and start-up IPI, through real mode, into smod', async () => {
    // CS & 3, and the x2APIC ID.
    const other = [
      0x8c,
      0xc8,
      0x24,
      3,
      0x04,
      0x30,
      ...put,
      ...asm.mov('rcx', 0x802),
      ...asm.rdmsr,
      0x04,
      0x30,
      ...put,
      ...put64(FLAG, 1),
      ...asm.cli,
      ...asm.hlt,
    ];
    const { serial } = await run(kernel([...waitFor(FLAG, 1), ...say('.'), ...powerOff], other), { abi });
    expect(serial).toBe('31.');
  });

  it('wakes one that halts with interrupts off by KICK_CPU, and ends its next HLT when it does not halt yet', async () => {
    const halts = (flag: number) => [...put64(FLAG, flag), ...asm.hlt];
    const first = [...waitFor(FLAG, 1), ...hypercall(v2.KVM_HC_KICK_CPU, 0, 1), ...waitFor(FLAG, 2)];
    // The flag says that the second has not halted when the kick comes: it waits for this one's answer first.
    const early = [...hypercall(v2.KVM_HC_KICK_CPU, 0, 1), ...put64(FLAG, 3), ...waitFor(FLAG, 4), ...powerOff];
    const other = [...halts(1), ...say('a'), ...put64(FLAG, 2), ...waitFor(FLAG, 3), ...asm.hlt, ...say('b'), ...put64(FLAG, 4), ...asm.hlt];
    const { serial, stopReason, kicks } = await run(kernel([...first, ...early], other), { abi });
    expect([serial, stopReason, kicks]).toEqual(['ab', 'poweroff', 2]);
  });

  it('interrupts one that waits in IRQ_HALT by SEND_IPI', async () => {
    const first = [...waitFor(FLAG, 1), ...asm.mov('rsi', 'I'.charCodeAt(0)), ...hypercall(v2.KVM_HC_SEND_IPI, 2), ...waitFor(FLAG, 2), ...powerOff];
    const other = [...put64(FLAG, 1), ...hypercall(v2.HC_IRQ_HALT), ...asm.ud2];
    const events = [...asm.load8(second.pvcs + vector), ...put, ...put64(FLAG, 2), ...halt];
    expect(await run(kernel(first, other, events), { abi })).toMatchObject({ serial: 'I', stopReason: 'poweroff' });
  });
});

/** A paravirtual spin lock: a waiter spins a little, then halts with interrupts off until the owner kicks it. */
const lockedRounds = (rounds: number, me: number) => {
  const neighbour = 1 - me;
  // try: mov rcx, LOCK; xor eax, eax; mov edx, 1; lock cmpxchg [rcx], rdx; je got; hlt; jmp try
  const take = [...asm.mov('rcx', LOCK), 0x31, 0xc0, 0xba, ...le(1, 4), 0xf0, 0x48, 0x0f, 0xb1, 0x11, 0x74, 3, ...asm.hlt, 0xeb, 0x100 - 27];
  // counter := counter + 1 in two steps with a pause between them.
  const work = [...asm.load(COUNTER), 0x48, 0xff, 0xc0, 0xf3, 0x90, ...asm.store(COUNTER)];
  const round = [...take, ...work, ...put64(LOCK, 0), ...hypercall(v2.KVM_HC_KICK_CPU, 0, neighbour)];
  // dec rbp; jnz rel32
  return [...asm.mov('rbp', rounds), ...round, 0x48, 0xff, 0xcd, 0x0f, 0x85, ...le((2 ** 32 - (round.length + 9)) >>> 0, 4)];
};

it.each(['off', 'sync'] as const)('a lock whose waiters halt and are kicked keeps a counter right (jit %s)', async (jit) => {
  const rounds = 500;
  const first = [...waitFor(FLAG, 1), ...lockedRounds(rounds, 0), ...waitFor(DONE, 1), ...asm.load(COUNTER), 0x48, 0xc1, 0xe8, 3, ...put, ...powerOff];
  const other = [...put64(FLAG, 1), ...lockedRounds(rounds, 1), ...put64(DONE, 1), ...halt];
  const { serial, kicks } = await run(kernel(first, other), { jit, checkMmu: false });
  // 1,000 / 8.
  expect(serial.charCodeAt(0)).toBe(125);
  expect(kicks).toBe(2 * rounds);
});

it('a page that one vCPU maps anew is the new one for the other at once, since the shadow follows the tables', async () => {
  const page = at.user + 0x1000;
  // The second page directory of the image has the 2 MiB page of umod; the third says where else it may lead.
  const entry = at.pml4 + 0x2000 + 8 * (at.user >> 21);
  const elsewhere = 0x80_0000;
  const first = [...put64(page, 'o'.charCodeAt(0)), ...waitFor(FLAG, 1), ...put64(elsewhere + 0x1000, 'n'.charCodeAt(0)), ...put64(elsewhere, 2)];
  const remap = put64(entry, BigInt(elsewhere) | 0x87n);
  const other = [...asm.load8(page), ...put, ...put64(FLAG, 1), ...waitFor(FLAG, 2), ...asm.load8(page), ...put, ...powerOff];
  expect(await run(kernel([...first, ...remap, ...halt], other))).toMatchObject({ serial: 'on', stopReason: 'poweroff' });
});

it('an INIT takes a vCPU out of PVM mode, and it can be started again', async () => {
  const other = [...say('s'), ...asm.load(FLAG), 0x48, 0xff, 0xc0, ...asm.store(FLAG), 0xf3, 0x90, 0xeb, 0xfc];
  const again = [...waitFor(FLAG, 1), ...startSecond, ...waitFor(FLAG, 2), ...powerOff];
  expect(await run(kernel(again, other))).toMatchObject({ serial: 'ss', stopReason: 'poweroff' });
});

it('goes on in the same way from a snapshot in which one vCPU waits to be started, and one in which both run', async () => {
  const rounds = 20;
  const first = [...waitFor(FLAG, 1), ...lockedRounds(rounds, 0), ...waitFor(DONE, 1), ...asm.load(COUNTER), 0x04, 0x30, ...put, ...powerOff];
  const other = [...put64(FLAG, 1), ...lockedRounds(rounds, 1), ...put64(DONE, 1), ...halt];
  const kernelImage = elfKernel(kernel(first, other));
  const options: VmOptions = {
    kernel: kernelImage,
    ...machine,
    maxInstructions: 1_000_000,
  };
  for (const place of [20, 120, 400, 1000]) {
    let serial = '';
    const onSerial = (chunk: Uint8Array) => {
      serial += Buffer.from(chunk).toString('latin1');
    };
    const vm = await createVm({ ...options, onSerial });
    const saved = vm.save({ at: place, stop: true });
    await vm.run();
    await vm.dispose();
    const next = await createVm({ restore: await saved, maxInstructions: 1_000_000, onSerial });
    expect((await next.run()).stopReason).toBe('poweroff');
    await next.dispose();
    expect(serial).toBe(String.fromCharCode(0x30 + 2 * rounds));
  }
});
