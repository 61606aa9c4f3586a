import { PM_TIMER_PORT, PM1_CONTROL_PORT, PM1_EVENT_PORT, SCI_IRQ } from '../devices/acpi-pm.ts';
import { IO_APIC_BASE } from '../interrupts/io-apic.ts';
import { APIC_DEFAULT_BASE } from '../interrupts/local-apic.ts';
import type { GuestRam } from '../ram.ts';
import { CMOS_CENTURY } from '../time/cmos-rtc.ts';
import { le } from './aml.ts';
import { buildDsdt, type DsdtOptions } from './dsdt.ts';

/** Where the tables lie: in the BIOS area, which the memory map reports as reserved and where kernels search. */
export const RSDP_GPA = 0xe_0000;
/** Above is SMBIOS. */
const TABLES_END = 0xf_0000;
const HEADER_SIZE = 36;
const FACS_SIZE = 64;
const FADT_SIZE = 276;

// FADT flags and boot architecture (ACPI 6.4, 5.2.9).
const FADT_WBINVD = 1 << 0;
const FADT_PROC_C1 = 1 << 2;
const FADT_NO_SLEEP_BUTTON = 1 << 5;
const FADT_NO_FIXED_RTC = 1 << 6;
const FADT_TIMER_32_BITS = 1 << 8;
const FADT_RESET_REGISTER = 1 << 10;
/** There are ISA devices; no 8042, no VGA. */
const BOOT_LEGACY_DEVICES = 1 << 0;
const BOOT_NO_VGA = 1 << 2;
/** Reset control register and the value that resets (PIIX). */
export const RESET_PORT = 0xcf9;
export const RESET_VALUE = 0x06;

/**
 * Write RSDP, XSDT, FADT, FACS, MADT and DSDT into guest RAM.
 *
 * @returns GPA of the RSDP
 */
export function writeAcpiTables(ram: GuestRam, options: DsdtOptions): number {
  let next = RSDP_GPA + 64;
  const place = (table: Uint8Array): number => {
    const at = next;
    if (at + table.length > TABLES_END) throw new RangeError('ACPI tables do not fit below SMBIOS');
    ram.write(at, table);
    next = Math.ceil((at + table.length) / 64) * 64;
    return at;
  };
  const facs = place(buildFacs());
  const dsdt = place(table('DSDT', 2, Uint8Array.from(buildDsdt(options))));
  const fadt = place(buildFadt(facs, dsdt));
  const madt = place(buildMadt(options.vcpus));
  const xsdt = place(table('XSDT', 1, Uint8Array.from([fadt, madt].flatMap((address) => le(address, 8)))));
  ram.write(RSDP_GPA, buildRsdp(xsdt));
  return RSDP_GPA;
}

/** A system description table: header, body, checksum (5.2.6). */
export function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE + body.length);
  const view = new DataView(bytes.buffer);
  put(bytes, 0, signature);
  view.setUint32(4, bytes.length, true);
  bytes[8] = revision;
  put(bytes, 10, 'PVM   ');
  put(bytes, 16, 'PVMBOARD');
  view.setUint32(24, 1, true);
  put(bytes, 28, 'PVM ');
  view.setUint32(32, 1, true);
  bytes.set(body, HEADER_SIZE);
  bytes[9] = checksum(bytes);
  return bytes;
}

function buildRsdp(xsdt: number): Uint8Array {
  const bytes = new Uint8Array(36);
  const view = new DataView(bytes.buffer);
  put(bytes, 0, 'RSD PTR ');
  put(bytes, 9, 'PVM   ');
  bytes[15] = 2;
  view.setUint32(20, bytes.length, true);
  view.setBigUint64(24, BigInt(xsdt), true);
  bytes[8] = checksum(bytes.subarray(0, 20));
  bytes[32] = checksum(bytes);
  return bytes;
}

function buildFacs(): Uint8Array {
  const bytes = new Uint8Array(FACS_SIZE);
  put(bytes, 0, 'FACS');
  new DataView(bytes.buffer).setUint32(4, FACS_SIZE, true);
  bytes[32] = 2;
  return bytes;
}

function buildFadt(facs: number, dsdt: number): Uint8Array {
  const bytes = new Uint8Array(FADT_SIZE - HEADER_SIZE);
  const view = new DataView(bytes.buffer);
  const u8 = (at: number, v: number): void => view.setUint8(at - HEADER_SIZE, v);
  const u16 = (at: number, v: number): void => view.setUint16(at - HEADER_SIZE, v, true);
  const u32 = (at: number, v: number): void => view.setUint32(at - HEADER_SIZE, v, true);
  /** Generic address structure of an I/O port (5.2.3.2). */
  const port = (at: number, address: number, bits: number): void => {
    u8(at, 1);
    u8(at + 1, bits);
    u8(at + 3, bits === 8 ? 1 : bits === 16 ? 2 : 3);
    u32(at + 4, address);
  };
  u32(36, facs);
  u32(40, dsdt);
  u8(45, 4); // preferred profile: enterprise server
  u16(46, SCI_IRQ);
  u32(56, PM1_EVENT_PORT);
  u32(64, PM1_CONTROL_PORT);
  u32(76, PM_TIMER_PORT);
  u8(88, 4);
  u8(89, 2);
  u8(91, 4);
  u16(96, 0xfff); // C2 and C3: not supported
  u16(98, 0xfff);
  u8(108, CMOS_CENTURY);
  u16(109, BOOT_LEGACY_DEVICES | BOOT_NO_VGA);
  u32(112, FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC | FADT_TIMER_32_BITS | FADT_RESET_REGISTER);
  port(116, RESET_PORT, 8);
  u8(128, RESET_VALUE);
  u8(131, 4); // minor revision: 6.4
  u32(140, dsdt);
  port(148, PM1_EVENT_PORT, 32);
  port(172, PM1_CONTROL_PORT, 16);
  port(208, PM_TIMER_PORT, 32);
  return table('FACP', 6, bytes);
}

function buildMadt(vcpus: number): Uint8Array {
  const PCAT_COMPAT = 1;
  /** Flags of an interrupt source override: active high, level triggered. */
  const LEVEL_HIGH = 0x0d;
  const override = (irq: number, gsi: number, flags: number): readonly number[] => [2, 10, 0, irq, ...le(gsi, 4), ...le(flags, 2)];
  const entries = [
    ...Array.from({ length: vcpus }, (_, id) => [0, 8, id, id, ...le(1, 4)]),
    [1, 12, 0, 0, ...le(IO_APIC_BASE, 4), ...le(0, 4)],
    override(0, 2, 0),
    override(SCI_IRQ, SCI_IRQ, LEVEL_HIGH),
    [4, 6, 0xff, 0, 0, 1], // NMI on LINT1 of every processor
  ];
  return table('APIC', 4, Uint8Array.from([...le(APIC_DEFAULT_BASE, 4), ...le(PCAT_COMPAT, 4), ...entries.flat()]));
}

function checksum(bytes: Uint8Array): number {
  return -bytes.reduce((sum, b) => sum + b, 0) & 0xff;
}

function put(bytes: Uint8Array, at: number, text: string): void {
  bytes.set(new TextEncoder().encode(text), at);
}
