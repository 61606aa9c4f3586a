// Where the hostile guest has what it needs to go on after each of its misdeeds. Guest-physical addresses; 16 MiB and the last GiB below 4 GiB are mapped one to one.

export const RAM_BYTES = 8 << 20;
/** SIPI vector 8: from real mode to the 64-bit code of the vCPU that runs it. Also the way back from 32- and 16-bit code. */
export const TRAMPOLINE = 0x8000;
/** Outlives a restart: number of the next action, by vCPU, and how often it tried to recover since the last, 64 bytes further on. */
export const COUNTERS = 0x10_0000;
/** Data, page tables and rings of queues that the guest makes. */
export const SCRATCH = 0x10_1000;
export const SCRATCH_BYTES = 0xf_f000;
/** Mapped by 4 KiB pages. */
export const VICTIM = 0x40_0000;
export const VICTIM_BYTES = 0x20_0000;
/** The same 16 MiB again, for user mode. */
export const USER_ALIAS = 0x80_0000_0000n;

export const LOAD = 0x20_0000;
export const AREA_BYTES = 0x2_0000;
export const VCPUS = 2;
export const IMAGE_BYTES = AREA_BYTES * VCPUS + 0x4000;
/** Copied to `TRAMPOLINE`. */
export const TRAMPOLINE_IMAGE = LOAD + AREA_BYTES * VCPUS;
export const START = TRAMPOLINE_IMAGE + 0x1000;

/** Within the area of a vCPU. */
const WITHIN = {
  pml4: 0,
  pdpt: 0x1000,
  lowPd: 0x2000,
  devicePd: 0x3000,
  victimPt: 0x4000,
  userPdpt: 0x5000,
  userPd: 0x6000,
  gdt: 0x7000,
  gdtr: 0x7200,
  idtr: 0x7210,
  idtr32: 0x7220,
  noIdtr: 0x7230,
  tss: 0x7400,
  tss32: 0x7600,
  otherTss32: 0x7800,
  ldt: 0x7a00,
  idt: 0x8000,
  idt32: 0x9000,
  stackTop: 0xb800,
  istTop: 0xbf00,
  recover: 0xc000,
  next: 0xc200,
  interrupt: 0xc300,
  interruptReturn: 0xc380,
  leaveLongMode: 0xc400,
  back32: 0xc500,
  watchdog: 0xc600,
  /** A page directory of 4 MiB pages, for 32-bit paging, and the four entries of PAE paging. */
  pd32: 0xd000,
  pae: 0xe000,
  slots: 0x1_0000,
  routines: 0x1_8000,
  blobs: 0x1_e000,
} as const;

export type Area = { readonly [K in keyof typeof WITHIN]: number };

export function area(vcpu: number): Area {
  const at = LOAD + vcpu * AREA_BYTES;
  return Object.fromEntries(Object.entries(WITHIN).map(([name, offset]) => [name, at + offset])) as unknown as Area;
}

export const SLOTS = 256;
export const SLOT_BYTES = 128;
export const ROUTINES = 12;
export const ROUTINE_BYTES = 0x800;
export const BLOBS = 16;
export const BLOB_BYTES = 128;

/** Selectors of the guest's GDT. */
export const SELECTORS = {
  code32: 0x08,
  code64: 0x10,
  data: 0x18,
  tss: 0x20,
  userCode32: 0x33,
  userData: 0x3b,
  userCode64: 0x43,
  code16: 0x48,
  data16: 0x50,
  tss32: 0x58,
  otherTss32: 0x60,
  callGate: 0x68,
  ldt: 0x78,
  firstRandom: 0x88,
} as const;
export const GDT_BYTES = 0x100;

export const SANE_CR0 = 0x8005_0033;
/** PAE, PGE, OSFXSR, OSXMMEXCPT, OSXSAVE. */
export const SANE_CR4 = 0x4_06a0;
export const EFER = 0xc000_0080;

/** Little-endian bytes. */
export function le(value: number | bigint, size: number): number[] {
  const n = BigInt.asUintN(64, BigInt(value));
  return Array.from({ length: size }, (_, i) => Number((n >> BigInt(8 * i)) & 0xffn));
}
/** JMP to an address below 2 GiB, through RAX. */
export const jump = (to: number): number[] => [0xb8, ...le(to, 4), 0xff, 0xe0];
/** MOV EAX, imm32. */
export const movEax = (value: number): number[] => [0xb8, ...le(value, 4)];
