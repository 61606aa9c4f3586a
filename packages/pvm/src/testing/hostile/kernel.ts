import { linuxElf } from '../kernel-image.ts';
import type { Hostility } from './hostility.ts';
import {
  AREA_BYTES,
  type Area,
  area,
  BLOB_BYTES,
  BLOBS,
  COUNTERS,
  EFER,
  GDT_BYTES,
  IMAGE_BYTES,
  jump,
  LOAD,
  le,
  movEax,
  RAM_BYTES,
  ROUTINE_BYTES,
  ROUTINES,
  SANE_CR0,
  SANE_CR4,
  SCRATCH,
  SCRATCH_BYTES,
  SELECTORS,
  SLOT_BYTES,
  SLOTS,
  START,
  TRAMPOLINE,
  TRAMPOLINE_IMAGE,
  VCPUS,
  VICTIM,
} from './map.ts';

const P_RW = 3n;
const P_RW_U = 7n;
const LARGE = 1n << 7n;
/** Failed recoveries in a row after which the vCPU shuts down, so that the machine starts anew. */
const PATIENCE = 12;
/** The interval timer's divisor: 168 us. Its interrupt is an NMI. */
const WATCHDOG_DIVISOR = 200;
const COM1 = 0x3f8;
const INT3 = 0xcc;

const outImmediate = (port: number, value: number): number[] => [0xb0, value, 0xe6, port];
/** MOV dword [abs32], imm32 with 32-bit addresses, which reach the devices. */
export const store32 = (address: number, value: number): number[] => [0x67, 0xc7, 0x04, 0x25, ...le(address, 4), ...le(value, 4)];
const wrmsr = (msr: number, low: number, high = 0): number[] => [0xb9, ...le(msr, 4), ...movEax(low), 0xba, ...le(high, 4), 0x0f, 0x30];

/** A kernel that does nothing but what `hostility` has for its slots, and after each fault goes on with the next. */
export function hostileKernel(hostility: Hostility): Uint8Array {
  // What strays finds INT3 rather than zeros, which are instructions.
  const image = new Uint8Array(IMAGE_BYTES).fill(INT3);
  const put = (address: number, ...code: (readonly number[])[]) => image.set(code.flat(), address - LOAD);
  for (let vcpu = 0; vcpu < VCPUS; vcpu++) {
    const at = area(vcpu);
    image.fill(0, at.pml4 - LOAD, at.idt32 + 0x1000 - LOAD);
    putTables(put, at);
    putDescriptors(put, at, hostility);
    putCode(put, at, vcpu);
    for (let i = 0; i < SLOTS; i++) put(at.slots + i * SLOT_BYTES, fit(hostility.slot(vcpu, i), SLOT_BYTES, jump(at.next)));
    for (let i = 0; i < ROUTINES; i++) put(at.routines + i * ROUTINE_BYTES, fit(hostility.routine(vcpu), ROUTINE_BYTES, jump(at.next)));
    for (let i = 0; i < BLOBS; i++) put(at.blobs + i * BLOB_BYTES, fit(hostility.blob(vcpu), BLOB_BYTES, jump(at.back32)));
  }
  put(TRAMPOLINE_IMAGE, trampoline());
  put(START, start(hostility.vcpus));
  return linuxElf(image, START);
}

/** The code, as much as there is room for, and the way on. */
function fit(code: readonly number[], bytes: number, after: readonly number[]): number[] {
  return [...code.slice(0, bytes - after.length), ...after];
}

type Put = (address: number, ...code: (readonly number[])[]) => void;

function putTables(put: Put, at: Area): void {
  const entry = (table: number, index: number, value: bigint) => put(table + 8 * index, le(value, 8));
  entry(at.pml4, 0, BigInt(at.pdpt) | P_RW);
  entry(at.pml4, 1, BigInt(at.userPdpt) | P_RW_U);
  entry(at.pdpt, 0, BigInt(at.lowPd) | P_RW);
  entry(at.pdpt, 3, BigInt(at.devicePd) | P_RW);
  entry(at.userPdpt, 0, BigInt(at.userPd) | P_RW_U);
  for (let i = 0; i < 8; i++) {
    entry(at.lowPd, i, i === VICTIM >> 21 ? BigInt(at.victimPt) | P_RW : BigInt(i << 21) | LARGE | P_RW);
    entry(at.userPd, i, BigInt(i << 21) | LARGE | P_RW_U);
  }
  for (let i = 0; i < 512; i++) {
    entry(at.victimPt, i, BigInt(VICTIM + (i << 12)) | P_RW);
    entry(at.devicePd, i, (3n << 30n) | (BigInt(i) << 21n) | LARGE | P_RW);
  }
  for (let i = 0; i < 1024; i++) put(at.pd32 + 4 * i, le(((i << 22) | 0x83) >>> 0, 4));
  for (const i of [0, 3]) put(at.pae + 8 * i, le((i === 0 ? at.lowPd : at.devicePd) | 1, 8));
}

/** A gate of the IDT, 64-bit or 32-bit. */
function gate(target: number, selector: number, type: number, ist: number): number[] {
  return [...le(target & 0xffff, 2), ...le(selector, 2), ist, type, ...le(target >>> 16, 2)];
}

function putDescriptors(put: Put, at: Area, hostility: Hostility): void {
  const descriptor = (selector: number, value: bigint) => put(at.gdt + (selector & ~7), le(value, 8));
  const system = (selector: number, base: number, limit: number, type: number) =>
    put(at.gdt + selector, [...le(limit, 2), ...le(base, 3), type, 0, base >>> 24]);
  descriptor(SELECTORS.code32, 0x00cf_9b00_0000_ffffn);
  descriptor(SELECTORS.code64, 0x00af_9b00_0000_ffffn);
  descriptor(SELECTORS.data, 0x00cf_9300_0000_ffffn);
  descriptor(SELECTORS.userCode32, 0x00cf_fb00_0000_ffffn);
  descriptor(SELECTORS.userData, 0x00cf_f300_0000_ffffn);
  descriptor(SELECTORS.userCode64, 0x00af_fb00_0000_ffffn);
  descriptor(SELECTORS.code16, 0x0000_9b00_0000_ffffn);
  descriptor(SELECTORS.data16, 0x0000_9300_0000_ffffn);
  system(SELECTORS.tss, at.tss, 0x1ff, 0x89);
  system(SELECTORS.tss32, at.tss32, 0x1ff, 0x89);
  system(SELECTORS.otherTss32, at.otherTss32, 0x1ff, 0x89);
  system(SELECTORS.ldt, at.ldt, 0x1ff, 0x82);
  put(at.gdt + SELECTORS.callGate, gate(at.recover, SELECTORS.code64, 0xec, 0), le(0, 8));
  put(at.gdt + SELECTORS.firstRandom, hostility.descriptors(GDT_BYTES - SELECTORS.firstRandom));
  put(at.ldt, hostility.descriptors(0x200));
  put(at.gdtr, le(GDT_BYTES - 1, 2), le(at.gdt, 8));
  put(at.idtr, le(0xfff, 2), le(at.idt, 8));
  put(at.idtr32, le(0x7ff, 2), le(at.idt32, 8));
  put(at.tss + 4, le(at.stackTop, 8), le(at.stackTop, 8), le(at.stackTop, 8));
  for (let ist = 1; ist <= 7; ist++) put(at.tss + 0x24 + 8 * (ist - 1), le(at.istTop, 8));
  for (const tss of [at.tss32, at.otherTss32]) put(tss, hostility.tss32());
  for (let vector = 0; vector < 256; vector++) {
    const target = vector < 32 || vector === 0x80 ? at.recover : vector % 2 === 0 ? at.interruptReturn : at.interrupt;
    put(at.idt + 16 * vector, gate(target, SELECTORS.code64, vector === 3 || vector === 0x80 ? 0xee : 0x8e, vector < 32 ? 1 : 0), le(0, 8));
    const task = vector === 8 || vector === 0x60;
    put(at.idt32 + 8 * vector, task ? gate(0, SELECTORS.otherTss32, 0x85, 0) : gate(at.back32, SELECTORS.code32, 0x8e, 0));
  }
}

function putCode(put: Put, at: Area, vcpu: number): void {
  const counter = COUNTERS + 8 * vcpu;
  const tries = COUNTERS + 64 + 8 * vcpu;
  const first = [
    0xfa,
    // Too many recoveries in a row: there is nothing to be saved.
    ...[0xff, 0x04, 0x25, ...le(tries, 4), 0x83, 0x3c, 0x25, ...le(tries, 4), PATIENCE, 0x76, 10],
    ...[0x0f, 0x01, 0x1c, 0x25, ...le(at.noIdtr, 4), 0x0f, 0x0b],
    ...[0xbc, ...le(at.stackTop, 4)],
    ...[...movEax(at.pml4), 0x0f, 0x22, 0xd8],
    ...[...movEax(SANE_CR4), 0x0f, 0x22, 0xe0],
    ...[...movEax(SANE_CR0), 0x0f, 0x22, 0xc0],
    ...[0x0f, 0x01, 0x14, 0x25, ...le(at.gdtr, 4), 0x0f, 0x01, 0x1c, 0x25, ...le(at.idtr, 4)],
    ...[...movEax(SELECTORS.data), 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x8e, 0xe0, 0x8e, 0xe8],
    ...[0xc6, 0x04, 0x25, ...le(at.gdt + SELECTORS.tss + 5, 4), 0x89, ...movEax(SELECTORS.tss), 0x0f, 0x00, 0xd8],
  ];
  // By IRET, which also opens NMIs again.
  const frame = [0x6a, SELECTORS.data, 0x68, ...le(at.stackTop, 4), 0x6a, 2, 0x6a, SELECTORS.code64, 0x68];
  const reload = [...frame, ...le(at.recover + first.length + frame.length + 6, 4), 0x48, 0xcf];
  // CR8 = 0, DR7 = 0x400.
  const last = [0x31, 0xc0, 0x44, 0x0f, 0x22, 0xc0, ...movEax(0x400), 0x0f, 0x23, 0xf8, ...jump(at.next)];
  put(at.recover, first, reload, last);
  // The next slot: counter + 1, of SLOTS.
  put(at.next, [
    ...[0xbc, ...le(at.stackTop, 4), 0x8b, 0x04, 0x25, ...le(counter, 4), 0xff, 0xc0, 0x89, 0x04, 0x25, ...le(counter, 4)],
    ...[0xc7, 0x04, 0x25, ...le(tries, 4), ...le(0, 4)],
    ...[0x25, ...le(SLOTS - 1, 4), 0xc1, 0xe0, Math.log2(SLOT_BYTES), 0x05, ...le(at.slots, 4), 0xff, 0xe0],
  ]);
  const endOfInterrupt = [0x50, ...store32(0xfee0_00b0, 0), ...outImmediate(0x20, 0x20), ...outImmediate(0xa0, 0x20)];
  put(at.interrupt, endOfInterrupt, jump(at.next));
  put(at.interruptReturn, endOfInterrupt, [0x58, 0x48, 0xcf]);
  // Compatibility mode: paging off, long mode off, then to the blob in EDI.
  put(at.leaveLongMode, [
    ...[0x0f, 0x20, 0xc0, 0x25, ...le(0x7fff_ffff, 4), 0x0f, 0x22, 0xc0],
    ...[0xb9, ...le(EFER, 4), 0x0f, 0x32, 0x25, ...le(~0x100 >>> 0, 4), 0x0f, 0x30],
    ...[...movEax(SELECTORS.data), 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, ...le(at.stackTop, 4)],
    ...[0x0f, 0x01, 0x1d, ...le(at.idtr32, 4), 0xff, 0xe7],
  ]);
  put(at.back32, [
    // The blob may have left any segments behind.
    ...[0xfa, 0x2e, 0x0f, 0x01, 0x15, ...le(at.gdtr, 4), ...movEax(SELECTORS.data), 0x8e, 0xd8, 0x8e, 0xd0, 0x8e, 0xc0],
    ...[0xbc, ...le(at.stackTop, 4), 0x0f, 0x20, 0xc0, 0x25, ...le(0x7fff_ffff, 4), 0x0f, 0x22, 0xc0],
    ...[...movEax(SANE_CR4), 0x0f, 0x22, 0xe0, ...movEax(at.pml4), 0x0f, 0x22, 0xd8],
    ...[0xb9, ...le(EFER, 4), 0x0f, 0x32, 0x0d, ...le(0x901, 4), 0x0f, 0x30],
    ...[0x0f, 0x01, 0x15, ...le(at.gdtr, 4), ...movEax(SANE_CR0), 0x0f, 0x22, 0xc0, 0xea, ...le(at.recover, 4), ...le(SELECTORS.code64, 2)],
  ]);
  put(at.watchdog, watchdog(), jump(at.next));
}

/** The interval timer at pin 2 of the I/O APIC, as NMI of vCPU 0. */
function watchdog(): number[] {
  return [
    ...[...store32(0xfec0_0000, 0x15), ...store32(0xfec0_0010, 0), ...store32(0xfec0_0000, 0x14), ...store32(0xfec0_0010, 0x400)],
    ...[...outImmediate(0x43, 0x34), ...outImmediate(0x40, WATCHDOG_DIVISOR & 0xff), ...outImmediate(0x40, WATCHDOG_DIVISOR >> 8)],
  ];
}

/** Real mode at 0800:0000 or 0000:8000: by the APIC's ID to the area of the vCPU, and there to `recover`. */
function trampoline(): number[] {
  const gdtr = 0x80;
  const gdt = 0x90;
  const long = 0x70;
  const code = [
    // cli; xor ax, ax; mov ds, ax; lgdt [gdtr]
    ...[0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x66, 0x0f, 0x01, 0x16, ...le(TRAMPOLINE + gdtr, 2)],
    // mov eax, 1; cpuid; shr ebx, 24; and ebx, VCPUS - 1; shl ebx, log2(AREA_BYTES)
    ...[0x66, ...movEax(1), 0x0f, 0xa2, 0x66, 0xc1, 0xeb, 24, 0x66, 0x83, 0xe3, VCPUS - 1, 0x66, 0xc1, 0xe3, Math.log2(AREA_BYTES)],
    // CR4; lea eax, [ebx + pml4]; CR3; EFER; CR0; far jump
    ...[0x66, ...movEax(SANE_CR4), 0x0f, 0x22, 0xe0, 0x67, 0x66, 0x8d, 0x83, ...le(area(0).pml4, 4), 0x0f, 0x22, 0xd8],
    ...[0x66, 0xb9, ...le(EFER, 4), 0x0f, 0x32, 0x66, 0x0d, ...le(0x901, 4), 0x0f, 0x30],
    ...[0x66, ...movEax(SANE_CR0), 0x0f, 0x22, 0xc0, 0x66, 0xea, ...le(TRAMPOLINE + long, 4), ...le(SELECTORS.code64, 2)],
  ];
  const all = new Uint8Array(gdt + 0x18);
  all.set(code, 0);
  // lea eax, [rbx + recover]; jmp rax
  all.set([0x8d, 0x83, ...le(area(0).recover, 4), 0xff, 0xe0], long);
  all.set([...le(0x17, 2), ...le(TRAMPOLINE + gdt, 4)], gdtr);
  all.set([...le(0, 8), ...le(0x00cf_9b00_0000_ffffn, 8), ...le(0x00af_9b00_0000_ffffn, 8)], gdt);
  if (code.length > long) throw new RangeError(`the trampoline has ${code.length} bytes`);
  return [...all];
}

/** The entry by the Linux protocol: a character, so that the machine starts anew after a triple fault; low memory, MSRs, watchdog, the other vCPU. */
function start(vcpus: number): number[] {
  const at = area(0);
  const copy = (from: number, to: number, bytes: number) => [0xbe, ...le(from, 4), 0xbf, ...le(to, 4), 0xb9, ...le(bytes, 4), 0xf3, 0xa4];
  const fill = (at: number, bytes: number) => [0xbf, ...le(at, 4), 0xb9, ...le(bytes, 4), 0xb0, INT3, 0xf3, 0xaa];
  const send = (command: number) => [...store32(0xfee0_0310, 1 << 24), ...store32(0xfee0_0300, command)];
  return [
    ...[0xfa, 0x66, 0xba, ...le(COM1, 2), 0xb0, 0x2e, 0xee, 0xbc, ...le(at.stackTop, 4)],
    // The boot tables map RAM alone; the devices are in ours.
    ...[...movEax(at.pml4), 0x0f, 0x22, 0xd8],
    ...[
      ...fill(SCRATCH, SCRATCH_BYTES),
      ...fill(START + 0x1000, RAM_BYTES - START - 0x1000),
      ...fill(0, COUNTERS),
      ...copy(TRAMPOLINE_IMAGE, TRAMPOLINE, 0x100),
    ],
    // Interrupts of real mode lead to the trampoline, and virtual-8086 mode has the same code.
    ...[0x31, 0xff, 0xb9, ...le(256, 4), ...movEax(TRAMPOLINE), 0xf3, 0xab],
    ...Array.from({ length: VCPUS }, (_, vcpu) => store32(COUNTERS + 64 + 8 * vcpu, 0)).flat(),
    ...[...wrmsr(EFER, 0xd01), ...wrmsr(0xc000_0081, 0, (0x30 << 16) | SELECTORS.code64), ...wrmsr(0xc000_0082, at.recover), ...wrmsr(0xc000_0084, 0x700)],
    ...[...wrmsr(0x174, SELECTORS.code64), ...wrmsr(0x175, at.stackTop), ...wrmsr(0x176, at.recover)],
    // Open the local APIC, its LINT0 for the 8259s.
    ...[...store32(0xfee0_00f0, 0x1ff), ...store32(0xfee0_0350, 0x700), ...watchdog()],
    ...(vcpus > 1 ? [...send(0x4500), ...send(0x4600 | (TRAMPOLINE >> 12))] : []),
    ...jump(at.recover),
  ];
}
