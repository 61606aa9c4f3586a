import type { GuestRam } from '../ram.ts';

/** One segment register with its hidden part. */
export interface SegmentState {
  readonly selector: number;
  readonly base: number;
  /** Last valid offset in bytes. */
  readonly limit: number;
  /** Access rights as VMX has them (SDM 3C, 25.4.1): descriptor bits 40-47 in 0-7, bits 52-55 in 12-15. */
  readonly attributes: number;
}

/** General registers that a boot protocol may set; those not named are zero. */
export type EntryRegister = 'rax' | 'rbx' | 'rcx' | 'rdx' | 'rsp' | 'rbp' | 'rsi' | 'rdi';

/** State of the boot vCPU at the kernel's first instruction. What is not here is as after INIT. */
export interface EntryState {
  /** Boot protocol, for messages. */
  readonly protocol: 'linux64' | 'linux32' | 'pvh' | 'multiboot';
  /** `protected`: 32-bit, paging off. `long`: 64-bit, paging on. */
  readonly mode: 'protected' | 'long';
  readonly rip: bigint;
  readonly rflags: number;
  readonly registers: Readonly<Partial<Record<EntryRegister, bigint>>>;
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
  readonly segments: Readonly<Record<'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'tr' | 'ldtr', SegmentState>>;
  /** Descriptor tables; the GDT lies in guest RAM. */
  readonly gdtr: { readonly base: number; readonly limit: number };
  readonly idtr: { readonly base: number; readonly limit: number };
}

/** Selectors of the Linux boot protocol: __BOOT_CS and __BOOT_DS. */
export const BOOT_CS = 0x10;
export const BOOT_DS = 0x18;
const BOOT_TSS = 0x20;
/** Guest-physical address of the boot GDT. */
export const BOOT_GDT_GPA = 0x6000;

// SDM 3A, figure 3-8: flat code and data, accessed, present.
const CODE32 = 0x00cf_9b00_0000_ffffn;
const CODE64 = 0x00af_9b00_0000_ffffn;
const DATA = 0x00cf_9300_0000_ffffn;
/** 32-bit busy TSS at 0 with the smallest limit. */
const TSS = 0x0000_8b00_0000_0067n;

const CR0_PE = 1;
const CR0_ET = 1 << 4;
const CR0_NE = 1 << 5;
const CR0_WP = 1 << 16;
const CR0_PG = 0x8000_0000;
const CR4_PAE = 1 << 5;
const EFER_LME = 1 << 8;
const EFER_LMA = 1 << 10;
const RFLAGS_FIXED = 2;

type Flat = Pick<EntryState, 'protocol' | 'registers'> & { readonly rip: bigint };

/** 64-bit mode with flat segments, interrupts off, the tables at `cr3`. Writes the boot GDT into `ram`. */
export function longModeEntry(ram: GuestRam, entry: Flat & { readonly cr3: number }): EntryState {
  return {
    ...flat(ram, entry, CODE64, 0xa09b),
    mode: 'long',
    cr0: (CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG) >>> 0,
    cr3: entry.cr3,
    cr4: CR4_PAE,
    efer: EFER_LME | EFER_LMA,
  };
}

/** 32-bit protected mode with flat 4 GiB segments, paging and interrupts off. Writes the boot GDT into `ram`. */
export function protectedModeEntry(ram: GuestRam, entry: Flat): EntryState {
  return { ...flat(ram, entry, CODE32, 0xc09b), mode: 'protected', cr0: CR0_PE | CR0_ET, cr3: 0, cr4: 0, efer: 0 };
}

function flat(ram: GuestRam, entry: Flat, code: bigint, codeAttributes: number): Omit<EntryState, 'mode' | 'cr0' | 'cr3' | 'cr4' | 'efer'> {
  const table = [0n, 0n, code, DATA, TSS];
  const gdt = new DataView(new ArrayBuffer(table.length * 8));
  table.forEach((descriptor, i) => {
    gdt.setBigUint64(i * 8, descriptor, true);
  });
  ram.write(BOOT_GDT_GPA, new Uint8Array(gdt.buffer));
  const data: SegmentState = { selector: BOOT_DS, base: 0, limit: 0xffff_ffff, attributes: 0xc093 };
  return {
    protocol: entry.protocol,
    rip: entry.rip,
    rflags: RFLAGS_FIXED,
    registers: entry.registers,
    segments: {
      es: data,
      cs: { selector: BOOT_CS, base: 0, limit: 0xffff_ffff, attributes: codeAttributes },
      ss: data,
      ds: data,
      fs: data,
      gs: data,
      tr: { selector: BOOT_TSS, base: 0, limit: 0x67, attributes: 0x8b },
      ldtr: { selector: 0, base: 0, limit: 0, attributes: 0x82 },
    },
    gdtr: { base: BOOT_GDT_GPA, limit: table.length * 8 - 1 },
    idtr: { base: 0, limit: 0 },
  };
}
