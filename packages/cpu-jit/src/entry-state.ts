import {
  CPUID_COUNT,
  CS,
  DS,
  ES,
  FS,
  GS,
  LDTR,
  PAGING_GUEST,
  S_ALIGN,
  S_APIC_BASE,
  S_CR0,
  S_CR2,
  S_CR3,
  S_CR4,
  S_CR8,
  S_DEBUG,
  S_DEBUG_SHADOW,
  S_DR,
  S_EFER,
  S_EXC,
  S_GDTR,
  S_GPR,
  S_IDTR,
  S_INTR,
  S_MSR,
  S_NMI,
  S_NMI_BLOCKED,
  S_PAT,
  S_REPEATING,
  S_RFLAGS,
  S_RIP,
  S_SHADOW,
  S_WATCH,
  S_XCR0,
  SS,
  SYSCALL_NATIVE,
  T_PCID,
  T_PCID_CLOCK,
  TR,
  V_LEVELS,
  V_NATIVE,
  V_PAGING,
  V_SLOT,
  V_SYSCALL_MODE,
} from './layout.ts';
import type { RuntimeExports } from './runtime.ts';

/** Hidden part of a segment register, as `SEG_*` in layout.ts says. `attr`: bits 8..23 of a descriptor's upper half; 0x1_0000 is unusable. */
export interface Segment {
  readonly selector: number;
  readonly base: bigint;
  /** Last valid offset, in bytes. */
  readonly limit: number;
  readonly attr: number;
}

/** What a loader gives besides flat segments; absent registers are 0. */
export interface FlatEntry {
  readonly rip: bigint;
  readonly rsp?: bigint;
  readonly rsi?: bigint;
  readonly rax?: bigint;
  readonly rbx?: bigint;
  /** Page tables, for long mode. */
  readonly cr3?: bigint;
  /** Selectors that CS and the data segments show; default 0x10 and 0x18 (the Linux boot protocol). */
  readonly codeSelector?: number;
  readonly dataSelector?: number;
  readonly gdt?: { readonly base: bigint; readonly limit: number };
}

/** Where the functions below write. */
export interface EntryTarget {
  readonly view: DataView;
  readonly u8: Uint8Array;
  readonly runtime: RuntimeExports;
  /** Address of the state block, and which vCPU it is. */
  readonly cpu: number;
  readonly vcpu: number;
}

const CR0_RESET = 0x6000_0010n;
const CR0_PROTECTED = 0x11n;
const CR0_LONG = 0x8000_0031n;
const CR4_PAE = 1n << 5n;
const EFER_LONG = 0x500n;
const DR6_RESET = 0xffff_0ff0n;
const DR7_RESET = 0x400n;
/** Power-on memory types (SDM vol. 3, 12.12.4). */
const PAT_RESET = 0x0007_0406_0007_0406n;
const APIC_BASE_RESET = 0xfee0_0800n;
const APIC_BASE_BSP = 0x100n;
/** IA32_MISC_ENABLE: fast strings; IA32_MTRR_DEF_TYPE: enabled, write-back. */
const MISC_ENABLE = 28;
const MISC_ENABLE_RESET = 1n;
const MTRR_DEF_TYPE = 27;
const MTRR_WRITE_BACK = 0x806n;
/** Present, accessed, of privilege 0: code and data of 16, 32 and 64 bits, LDT, busy TSS. */
export const ATTR_CODE16 = 0x9b;
const ATTR_CODE32 = 0xc09b;
const ATTR_CODE64 = 0xa09b;
const ATTR_DATA16 = 0x93;
const ATTR_DATA32 = 0xc093;
const ATTR_LDT = 0x82;
const ATTR_TSS = 0x8b;

function setter(t: EntryTarget): { u32(at: number, v: number): void; u64(at: number, v: bigint): void; segment(n: number, s: Segment): void } {
  const { view, cpu, runtime } = t;
  return {
    u32: (at, v) => view.setUint32(cpu + at, v, true),
    u64: (at, v) => view.setBigUint64(cpu + at, BigInt.asUintN(64, v), true),
    segment: (n, s) => runtime.setSegment(cpu, n, s.selector, s.base, s.limit, s.attr),
  };
}

/** Registers that every mode starts with: all zero but for the ones with a power-on value. The CPU does everything itself from here on. */
function common(t: EntryTarget): ReturnType<typeof setter> {
  const s = setter(t);
  t.u8.fill(0, t.cpu + S_GPR, t.cpu + S_GPR + 128);
  t.u8.fill(0, t.cpu + T_PCID, t.cpu + T_PCID_CLOCK + 4);
  t.u8.fill(0, t.cpu + S_MSR, t.cpu + S_MSR + 256);
  for (const field of [S_EXC, S_INTR, S_NMI, S_NMI_BLOCKED, S_WATCH, S_ALIGN, S_DEBUG]) s.u32(field, 0);
  for (const field of [S_DEBUG_SHADOW, S_REPEATING]) s.u64(field, -1n);
  s.u64(S_SHADOW, -1n);
  s.u32(V_NATIVE, 1);
  s.u32(V_PAGING, PAGING_GUEST);
  s.u32(V_SYSCALL_MODE, SYSCALL_NATIVE);
  s.u32(V_SLOT, 0);
  s.u32(V_LEVELS, 4);
  s.u32(S_RFLAGS, 2);
  t.runtime.setFlags(t.cpu, 0);
  s.u64(S_CR2, 0n);
  s.u64(S_CR3, 0n);
  s.u64(S_CR4, 0n);
  s.u64(S_CR8, 0n);
  s.u64(S_EFER, 0n);
  s.u64(S_XCR0, 1n);
  s.u64(S_DR + 6 * 8, DR6_RESET);
  s.u64(S_DR + 7 * 8, DR7_RESET);
  s.u64(S_PAT, PAT_RESET);
  s.u64(S_APIC_BASE, t.vcpu === 0 ? APIC_BASE_RESET | APIC_BASE_BSP : APIC_BASE_RESET);
  s.u64(S_MSR + MISC_ENABLE * 8, MISC_ENABLE_RESET);
  s.u64(S_MSR + MTRR_DEF_TYPE * 8, MTRR_WRITE_BACK);
  s.u64(S_GDTR, 0n);
  s.u32(S_GDTR + 8, 0xffff);
  s.u64(S_IDTR, 0n);
  s.u32(S_IDTR + 8, 0xffff);
  s.segment(LDTR, { selector: 0, base: 0n, limit: 0xffff, attr: ATTR_LDT });
  s.segment(TR, { selector: 0, base: 0n, limit: 0xffff, attr: ATTR_TSS });
  return s;
}

function finish(t: EntryTarget): void {
  t.runtime.setCpl(t.cpu, 0);
  t.runtime.tlbFlushAll(t.cpu);
  t.runtime.enterCode(t.cpu);
}

/** State after RESET or INIT (SDM vol. 3, table 10-1): real mode at F000:FFF0, CS base FFFF_0000. */
export function resetState(t: EntryTarget): void {
  const s = common(t);
  s.u64(S_CR0, CR0_RESET);
  s.u32(S_IDTR + 8, 0x3ff);
  // Family, model and stepping, as CPUID leaf 1 has them once the table is filled.
  s.u64(S_GPR + 16, t.view.getUint32(t.cpu + CPUID_COUNT, true) > 0 ? 0x600n : 0n);
  for (const n of [ES, SS, DS, FS, GS]) s.segment(n, { selector: 0, base: 0n, limit: 0xffff, attr: ATTR_DATA16 });
  s.segment(CS, { selector: 0xf000, base: 0xffff_0000n, limit: 0xffff, attr: ATTR_CODE16 });
  s.u64(S_RIP, 0xfff0n);
  finish(t);
}

/** Flat 64-bit code at CPL 0, paging on with the tables at `cr3`; or flat 32-bit protected mode without paging. Interrupts off. */
export function flatState(t: EntryTarget, mode: 'long' | 'protected', entry: FlatEntry): void {
  const s = common(t);
  const long = mode === 'long';
  s.u64(S_CR0, long ? CR0_LONG : CR0_PROTECTED);
  if (long) {
    s.u64(S_CR3, entry.cr3 ?? 0n);
    s.u64(S_CR4, CR4_PAE);
    s.u64(S_EFER, EFER_LONG);
  }
  const data = { selector: entry.dataSelector ?? 0x18, base: 0n, limit: 0xffff_ffff, attr: ATTR_DATA32 };
  for (const n of [ES, SS, DS, FS, GS]) s.segment(n, data);
  s.segment(CS, { selector: entry.codeSelector ?? 0x10, base: 0n, limit: 0xffff_ffff, attr: long ? ATTR_CODE64 : ATTR_CODE32 });
  if (entry.gdt !== undefined) {
    s.u64(S_GDTR, entry.gdt.base);
    s.u32(S_GDTR + 8, entry.gdt.limit);
  }
  s.u64(S_RIP, entry.rip);
  for (const [n, v] of [
    [0, entry.rax],
    [3, entry.rbx],
    [4, entry.rsp],
    [6, entry.rsi],
  ] as const) {
    if (v !== undefined) s.u64(S_GPR + n * 8, v);
  }
  finish(t);
}
