import { describe, expect, it } from 'vitest';
import { map, NativeGuest, type NativeGuestOptions } from '../testing/native-guest.ts';
import { TripleFault } from './design.ts';

/**
 * Events whose delivery faults. Where only the hypervisor's tables lack what the delivery needs (shadow, second level), it goes on with vector, error code and
 * return address as they were (SDM vol. 3, 27.2.4: IDT-vectoring information). Where the guest's own tables lack it, the page fault comes first, and
 * the event after it: an interrupt has left its controller and must not be lost; everything else comes again with its instruction.
 */
const MACHINES: readonly NativeGuestOptions[] = [
  { design: 'bare' },
  { design: 'kvm-ept' },
  { design: 'kvm-spt', unsync: false },
  { design: 'kvm-spt', unsync: true },
  { design: 'pvm', stock: 'auto' },
  { design: 'pvm', stock: 'trap' },
];
const VECTOR = 0x40;
/** Top of a page that nobody has touched, and of one that the guest's tables do not have. */
const UNTOUCHED = 0x12_1000;
const ABSENT = map.absent + 0x1000;
const PAGE_TABLE_ENTRY = 0x4000 + 8 * (map.absent >> 12);
const [IST1, IST2] = [0x12_3000, 0x12_5000];
const PORT = 0x80;

const le = (n: number): string => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(n);
  return bytes.toString('hex');
};
const stack = (top: number) => `bc${le(top)}`;
/** out %al, $0x80: the test sends something. */
const ASK = 'e680';
/** sti; nop; cli */
const WINDOW = 'fb90fa';
/** inc %r15; mov (%rsp),%rax; mov %rax,0x5000; iretq: keeps what it would return to. */
const COUNT = `49ffc7488b0424488904250050000048cf`;
/** pop %r14; add $2,(%rsp); inc %r13; iretq: an error code, and on to after an instruction of two bytes. */
const SKIP_TWO = '415e488304240249ffc548cf';
/** movl $page | P RW, entry; pop %rbp; inc %r12; iretq: the page comes into being. */
const MAP_PAGE = `c70425${le(PAGE_TABLE_ENTRY)}${le(map.absent | 3)}5d49ffc448cf`;
/** inc %r15; mov %dr6,%rax; mov %rax,0x5000; mov 0x10(%rsp),%r14; andl $~TF,0x10(%rsp); iretq: DR6 and the saved RFLAGS; no further step. */
const DEBUG = '49ffc70f21f048890425005000004c8b74241081642410fffeffff48cf';
/** pushf; orl $TF,(%rsp); popf */
const TRACE = '9c810c24000100009d';
/** DR0 := address; DR7 := `control` */
const breakAt = (address: number, control: number) => `b8${le(address)}0f23c0b8${le(control)}0f23f8`;
/** G0, LEN 4 bytes, on writes; G0, on execution; GD. */
const [ON_WRITE, ON_EXECUTION, GENERAL_DETECT] = [0xd_0002, 2, 0x2000];
/** mov %eax,0x5010 */
const STORE = `890425${le(0x5010)}`;
/** RFLAGS as DEBUG found them, from the ORs and ADDs of the start: ZF, PF and bit 1, with TF or RF or without. */
const FLAGS = 0x46n;
const [TF, RF] = [0x100n, 0x1_0000n];
/** mov %cr2,%rbx; pop %r14; hlt */
const STOP = '0f20d3415ef4';

interface Case {
  readonly name: string;
  readonly code: string;
  readonly handlers: Readonly<Record<number, string>>;
  /** Vectors with a stack of their own. */
  readonly ist?: Readonly<Record<number, 1 | 2>>;
  readonly send?: 'interrupt' | 'nmi';
  readonly registers: Readonly<Record<number, bigint>>;
  /** Where exactly it is delivered is the machine's business. */
  readonly anywhere?: boolean;
}
const [RBP, R12, R13, R14, R15] = [5, 12, 13, 14, 15];
const CASES: readonly Case[] = [
  {
    name: 'an interrupt, on an untouched stack',
    code: stack(UNTOUCHED) + ASK + WINDOW,
    handlers: { [VECTOR]: COUNT },
    send: 'interrupt',
    registers: { [R15]: 1n },
  },
  // xor %ebx,%ebx; int $0x40; inc %ebx
  { name: 'INT n, on an untouched stack', code: `${stack(UNTOUCHED)}31dbcd40ffc3`, handlers: { [VECTOR]: COUNT }, registers: { [R15]: 1n, 3: 1n } },
  // mov $0x58,%eax; mov %eax,%ds
  {
    name: '#GP with an error code, on an untouched stack',
    code: `${stack(UNTOUCHED)}b8580000008ed8`,
    handlers: { 13: SKIP_TWO },
    registers: { [R13]: 1n, [R14]: 0x58n },
  },
  {
    name: 'an interrupt, on a stack that a #PF must bring',
    code: stack(ABSENT) + ASK + WINDOW,
    handlers: { [VECTOR]: COUNT, 14: MAP_PAGE },
    ist: { 14: 1 },
    send: 'interrupt',
    registers: { [R15]: 1n, [R12]: 1n, [RBP]: 2n },
  },
  {
    name: 'an NMI, on a stack that a #PF must bring',
    code: `${stack(ABSENT) + ASK}9090`,
    handlers: { 2: COUNT, 14: MAP_PAGE },
    ist: { 14: 1 },
    send: 'nmi',
    registers: { [R15]: 1n, [R12]: 1n, [RBP]: 2n },
    anywhere: true,
  },
  {
    name: 'INT n, on a stack that a #PF must bring',
    code: `${stack(ABSENT)}31dbcd40ffc3`,
    handlers: { [VECTOR]: COUNT, 14: MAP_PAGE },
    ist: { 14: 1 },
    registers: { [R15]: 1n, [R12]: 1n, 3: 1n },
  },
  {
    name: '#GP with an error code, on a stack that a #PF must bring',
    code: `${stack(ABSENT)}b8580000008ed8`,
    handlers: { 13: SKIP_TWO, 14: MAP_PAGE },
    ist: { 14: 1 },
    registers: { [R13]: 1n, [R14]: 0x58n, [R12]: 1n },
  },
  // The double fault's error code is 0, CR2 that of the second fault. mov 0x110000,%rax
  {
    name: '#PF on its own absent stack becomes #DF',
    code: `${stack(ABSENT)}488b042500001100`,
    handlers: { 8: STOP },
    ist: { 8: 2 },
    registers: { [R14]: 0n, 3: BigInt(ABSENT - 8) },
  },
  {
    name: 'an interrupt on an absent stack whose #PF has no stack either becomes #DF',
    code: stack(ABSENT) + ASK + WINDOW,
    handlers: { 8: STOP, [VECTOR]: COUNT },
    ist: { 8: 2 },
    send: 'interrupt',
    registers: { [R14]: 0n, [R15]: 0n },
  },
];

/**
 * #DB: an instruction breakpoint and general detect are faults, which come again with RF clear in RFLAGS and set in their image; a single-step and a data
 * breakpoint are traps, of which DR6 is all that is left when a page fault comes first.
 */
const DEBUG_CASES: readonly Case[] = [
  {
    name: 'a single-step trap, on an untouched stack',
    code: `${TRACE + stack(UNTOUCHED)}90`,
    handlers: { 1: DEBUG },
    registers: { [R15]: 1n, [R14]: FLAGS | TF },
  },
  {
    // The step of the instruction after the page fault is the one that is seen.
    name: 'a single-step trap, on a stack that a #PF must bring',
    code: `${TRACE + stack(ABSENT)}9090`,
    handlers: { 1: DEBUG, 14: MAP_PAGE },
    ist: { 14: 1 },
    registers: { [R15]: 1n, [R12]: 1n, [R14]: FLAGS | TF },
  },
  {
    name: 'a single-step trap on an absent stack whose #PF has no stack either becomes #DF',
    code: `${TRACE + stack(ABSENT)}90`,
    handlers: { 1: DEBUG, 8: STOP },
    ist: { 8: 2 },
    registers: { [R14]: 0n, [R15]: 0n, 3: BigInt(ABSENT - 8) },
  },
  {
    name: 'a data breakpoint, on an untouched stack',
    code: breakAt(0x5010, ON_WRITE) + stack(UNTOUCHED) + STORE,
    handlers: { 1: DEBUG },
    registers: { [R15]: 1n, [R14]: FLAGS },
  },
  {
    name: 'a data breakpoint, on a stack that a #PF must bring',
    code: `${breakAt(0x5010, ON_WRITE) + stack(ABSENT) + STORE}0f21f1`,
    handlers: { 1: DEBUG, 14: MAP_PAGE },
    ist: { 14: 1 },
    // RCX is DR6.
    registers: { [R15]: 0n, [R12]: 1n, 1: 0xffff_0ff1n },
  },
  {
    name: 'an instruction breakpoint, on an untouched stack',
    code: `${breakAt(map.code + 21, ON_EXECUTION) + stack(UNTOUCHED)}ffc3`,
    handlers: { 1: DEBUG },
    registers: { [R15]: 1n, [R14]: FLAGS | RF },
  },
  {
    name: 'an instruction breakpoint, on a stack that a #PF must bring',
    code: `${breakAt(map.code + 21, ON_EXECUTION) + stack(ABSENT)}ffc3`,
    handlers: { 1: DEBUG, 14: MAP_PAGE },
    ist: { 14: 1 },
    // The image of the #PF has RF set, which lets the instruction run.
    registers: { [R15]: 0n, [R12]: 1n },
  },
  {
    name: 'general detect, which its delivery turns off',
    code: `b8${le(GENERAL_DETECT)}0f23f80f21c1`,
    handlers: { 1: DEBUG },
    registers: { [R15]: 1n, [R14]: FLAGS | RF },
  },
  {
    name: 'INT1, on a stack that a #PF must bring',
    code: `${stack(ABSENT)}f1`,
    handlers: { 1: DEBUG, 14: MAP_PAGE },
    ist: { 14: 1 },
    registers: { [R15]: 1n, [R12]: 1n },
  },
];

async function start(options: NativeGuestOptions, { code, handlers, ist = {}, send }: Omit<Case, 'name' | 'registers' | 'anywhere'>): Promise<NativeGuest> {
  const guest = (await NativeGuest.create(options)).startKernel(code);
  for (const [vector, hex] of Object.entries(handlers)) guest.put(map.handlers + 32 * Number(vector), hex);
  for (const [vector, n] of Object.entries(ist)) guest.ram.bytes[map.idt + 16 * Number(vector) + 4] = n;
  guest.put(map.tss + 0x24, `${le(IST1)}00000000${le(IST2)}00000000`);
  guest.board.onWrite = (port) => {
    if (port !== PORT) return;
    if (send === 'interrupt') guest.board.sendInterrupt(0, VECTOR);
    else if (send === 'nmi') guest.board.sendNmi();
  };
  return guest;
}

/** What the guest could see, less the bits that a host owns in control registers. */
function visible(guest: NativeGuest): Record<string, unknown> {
  const { registers, rip, rflags, segments, S_CPL, S_CR2, ram } = guest.state();
  return { registers, rip, rflags, segments, S_CPL, S_CR2, ram };
}

describe.each(MACHINES)('under %o', (options) => {
  it.each([...CASES, ...DEBUG_CASES])('$name comes as on a plain CPU', async ({ registers, anywhere, ...rest }) => {
    const plain = visible((await start({ design: 'bare' }, rest)).run());
    const guest = (await start(options, rest)).run();
    expect(Object.fromEntries(Object.keys(registers).map((n) => [n, guest.core.getReg(0, Number(n))]))).toEqual(registers);
    if (anywhere !== true) expect(visible(guest)).toEqual(plain);
  });

  it('a double fault without a stack is a triple fault', async () => {
    const guest = await start(options, { code: `${stack(ABSENT)}488b042500001100`, handlers: { 8: STOP } });
    expect(() => guest.run()).toThrow(TripleFault);
  });
});
