import { describe, expect, it } from 'vitest';
import { out, outImmediate, powerOff, runStock, start, stockKernel, TIMER_VECTOR, word } from '../../testing/stock-guest.ts';

const movEax = (value: number): number[] => [0xb8, ...word(value, 4)];
const movEcx = (value: number): number[] => [0xb9, ...word(value, 4)];
const MIB = 1 << 20;
/** Sends AL or AH to COM1. */
const send = [0x66, 0xba, 0xf8, 0x03, 0xee];
/** MOV AL, [abs32] and MOV [abs32], AL, for addresses below 4 GiB. */
const load8 = (at: number): number[] => [0xa0, ...word(at, 8)];
const store8 = (at: number): number[] => [0xa2, ...word(at, 8)];
const store32 = (at: number): number[] => [0xa3, ...word(at, 8)];
/** Maps 4 KiB-aligned device memory at `gpa` through the last entry of the boot page directory: a 2 MiB page at 0x3fe00000. */
const WINDOW = 0x3fe0_0000;
const mapDevice = (gpa: number): number[] => [
  // mov rax, cr3; mov rax, [rax]; and al, 0; mov rax, [rax]; and al, 0; mov ebx, gpa | P RW PS; mov [rax + 0xff8], rbx
  ...[0x0f, 0x20, 0xd8, 0x48, 0x8b, 0x00, 0x24, 0x00, 0x48, 0x8b, 0x00, 0x24, 0x00, 0xbb, ...word(gpa - (gpa % (2 * MIB)) + 0x83, 4)],
  ...[0x48, 0x89, 0x98, ...word(0xff8, 4)],
];

/** Exits of `code` beyond those of a guest that does nothing. */
async function exitsOf(code: readonly number[], more: Parameters<typeof runStock>[0] = {}, handlers: Record<number, readonly number[]> = {}) {
  const run = (body: readonly number[]) => runStock({ design: 'kvm-ept', ...more, kernel: stockKernel([...start, ...body, ...powerOff], handlers) });
  const [base, all] = [await run([]), await run(code)];
  const exits = Object.entries(all.exits).map(([name, count]) => [name, count - (base.exits[name] ?? 0)] as const);
  return { serial: all.serial, exits: Object.fromEntries(exits.filter(([, count]) => count !== 0)) };
}

describe('exits of kvm-ept', () => {
  it.each([
    ['CPUID', [...movEax(0), 0x0f, 0xa2, ...movEax(1), 0x0f, 0xa2], { 'CPUID 0x0': 1, 'CPUID 0x1': 1 }],
    ['VMCALL', [...movEax(0x1234), 0x0f, 0x01, 0xc1], { 'VMCALL unknown': 1 }],
    ['WBINVD', [0x0f, 0x09], { WBINVD: 1 }],
    ['MONITOR and MWAIT', [0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9], { MONITOR_INSTRUCTION: 1, MWAIT_INSTRUCTION: 1 }],
    // mov rax, cr0; or eax, 1 << 18 (AM); mov cr0, rax; the change of TS by CLTS and MOV is the guest's own business.
    ['MOV to CR0', [0x0f, 0x20, 0xc0, 0x0d, ...word(1 << 18, 4), 0x0f, 0x22, 0xc0, 0x0c, 8, 0x0f, 0x22, 0xc0, 0x0f, 0x06], { 'CR_ACCESS MOV CR0': 1 }],
    // PGE is the guest's, OSXSAVE is not; XSETBV always leaves.
    [
      'MOV to CR4 and XSETBV',
      [0x0f, 0x20, 0xe0, 0x0c, 0x80, 0x0f, 0x22, 0xe0, 0x0d, ...word(1 << 18, 4), 0x0f, 0x22, 0xe0, ...movEax(1), 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xd1],
      { 'CR_ACCESS MOV CR4': 1, XSETBV: 1 },
    ],
    ['MOV to CR3 and INVLPG', [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f, 0x01, 0x3b], {}],
    ['MSRs that pass through', [...movEcx(0xc000_0101), 0x0f, 0x32, 0x0f, 0x30, ...movEcx(0x10), 0x0f, 0x32], {}],
    ['MSRs that do not', [...movEcx(0xc000_0082), 0x0f, 0x32, 0x0f, 0x30], { 'MSR_READ 0xc0000082': 1, 'MSR_WRITE 0xc0000082': 1 }],
    ['RDTSC', [0x0f, 0x31], {}],
    ['port I/O', [...outImmediate(0x80, 1)], { 'IO_INSTRUCTION OUT 0x80': 1 }],
    ['PAUSE in a long loop', [...movEcx(3000), 0xf3, 0x90, 0xff, 0xc9, 0x75, 0xfa], { PAUSE_INSTRUCTION: 2 }],
    // mov eax, 3; mov cr8, rax: nothing waits for a lower priority.
    ['MOV to CR8', [...movEax(3), 0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc0], {}],
  ] satisfies [string, number[], Record<string, number>][])('%s', async (_, code, expected) => {
    expect((await exitsOf(code)).exits).toEqual(expected);
  });

  it('an exception of the bitmap leaves and comes back; others stay in the guest', async () => {
    // #UD: add [rsp], 2 and return; #BP returns by itself.
    const handlers = { 6: [0x48, 0x83, 0x04, 0x24, 0x02, ...out(0x3f8, 0x55), 0x48, 0xcf], 3: [...out(0x3f8, 0x42), 0x48, 0xcf] };
    const { serial, exits } = await exitsOf([0x0f, 0x0b, 0xcc, 0x0f, 0x0b], {}, handlers);
    expect(serial).toBe('UBU');
    expect(exits).toEqual({ 'EXCEPTION_NMI #UD': 2, 'IO_INSTRUCTION OUT 0x3f8': 3 });
  });

  it('the first touch of a frame is one EPT violation, of 2 MiB where RAM allows', async () => {
    const touch = [4, 6, 8].flatMap((mib) => [...store8(mib * MIB), ...store8(mib * MIB + 4096), ...load8(mib * MIB + 8192)]);
    expect((await exitsOf(touch)).exits).toEqual({ 'EPT_VIOLATION write': 3 });
    expect((await exitsOf(touch, { optimisations: { 'large-pages': false } })).exits).toEqual({ 'EPT_VIOLATION write': 6, 'EPT_VIOLATION read': 3 });
  });

  it('device memory is a violation once and a misconfiguration from then on', async () => {
    const at = 0xd000_0000;
    const read = load8(WINDOW + (at % (2 * MIB)));
    const { serial, exits } = await exitsOf([...mapDevice(at), ...read, ...read, ...store8(WINDOW + (at % (2 * MIB))), 0x2c, 0xb4, ...send]);
    expect(serial).toBe('K');
    expect(exits).toEqual({ 'EPT_VIOLATION mmio': 1, 'EPT_MISCONFIG read': 1, 'EPT_MISCONFIG write': 1, 'IO_INSTRUCTION OUT 0x3f8': 1 });
  });

  it('accesses to the local APIC leave, to its task priority they do not', async () => {
    const apic = WINDOW + (0xfee0_0000 % (2 * MIB));
    const { serial, exits } = await exitsOf([
      ...mapDevice(0xfee0_0000),
      ...load8(apic + 0x30),
      ...store32(apic + 0xb0),
      ...movEax(0x50),
      ...store32(apic + 0x80),
      ...[0x44, 0x0f, 0x20, 0xc0, 0x04, 0x40],
      ...send,
    ]);
    // CR8 is 5, the class of the task priority.
    expect(serial).toBe('E');
    expect(exits).toEqual({ 'EPT_VIOLATION read': 1, 'APIC_ACCESS read': 1, 'APIC_ACCESS write': 1, 'IO_INSTRUCTION OUT 0x3f8': 1 });
  });

  it('an interrupt that cannot be taken yet asks for a window; a timer that comes due is an external interrupt', async () => {
    const timer = [
      ...[...outImmediate(0x20, 0x11), ...outImmediate(0x21, TIMER_VECTOR), ...outImmediate(0x21, 4), ...outImmediate(0x21, 1), ...outImmediate(0x21, 0xfe)],
      ...[...outImmediate(0x43, 0x30), ...outImmediate(0x40, 0xff), ...outImmediate(0x40, 0)],
    ];
    // 300,000 rounds with interrupts off, then sti; nop.
    const { serial, exits } = await exitsOf(
      [...timer, ...movEcx(300_000), 0xff, 0xc9, 0x75, 0xfc, 0xfb, 0x90, 0xfa, ...out(0x3f8, 0x2e)],
      {},
      {
        [TIMER_VECTOR]: [...out(0x3f8, 0x54), 0x48, 0xcf],
      },
    );
    expect(serial).toBe('T.');
    expect(exits).toMatchObject({ 'EXTERNAL_INTERRUPT timer': 1, PENDING_INTERRUPT: 1 });
  });

  it('keeps CR0.NE set behind a read shadow', async () => {
    // mov rax, cr0; and al, ~0x20; mov cr0, rax; mov rax, cr0; shr al, 5; and al, 1; add al, '0'
    const { serial, exits } = await exitsOf([0x0f, 0x20, 0xc0, 0x24, 0xdf, 0x0f, 0x22, 0xc0, 0x0f, 0x20, 0xc0, 0xc0, 0xe8, 5, 0x24, 1, 0x04, 0x30, ...send]);
    expect(serial).toBe('0');
    expect(exits).toEqual({ 'CR_ACCESS MOV CR0': 1, 'IO_INSTRUCTION OUT 0x3f8': 1 });
  });
});
