import { le } from '../acpi/aml.ts';
import type { GuestRam } from '../ram.ts';

// DMTF DSP0134, System Management BIOS 3.3.
/** Kernels look for the entry point from here to 1 MiB at every 16 bytes (5.2). */
export const SMBIOS_ENTRY_GPA = 0xf_0000;
const ENTRY_SIZE = 24;
const STRUCTURES_GPA = SMBIOS_ENTRY_GPA + 32;
const AREA_END = 0x10_0000;
const HEADER_SIZE = 4;

const MAKER = 'pvm';
const MODEL = 'pvm PC';
/** No property of the build: every run of a version shows the guest the same bytes. */
const RELEASE_DATE = '01/01/2026';

/** What is known of the machine. */
export interface SmbiosOptions {
  readonly vcpus: number;
  /** Bytes. */
  readonly ramSize: number;
}

/** One structure: its number, the bytes after its header, and the strings that bytes of it count from 1. */
interface Structure {
  readonly type: number;
  readonly handle: number;
  readonly body: readonly number[];
  readonly strings?: readonly string[];
}

// Handles, by which structures name each other; the type's number in the high byte.
const CHASSIS = 0x300;
const PROCESSOR = 0x400;
const MEMORY_ARRAY = 0x1000;
const MEMORY_DEVICE = 0x1100;

// Values that say that something is not known or not so (by table of DSP0134).
const OTHER = 1;
const UNKNOWN = 2;
const NONE = 3;
const NO_HANDLE = le(0xffff, 2);
const NOT_PROVIDED = le(0xfffe, 2);

/**
 * Write an SMBIOS 3 entry point and its structures into guest RAM: firmware, system, chassis, processors, memory. They say what this machine is and
 * leave unknown what it has not: no serial numbers, no UUID, no clock rates.
 */
export function writeSmbiosTables(ram: GuestRam, options: SmbiosOptions): void {
  const bytes = structures(options).flatMap(encode);
  if (STRUCTURES_GPA + bytes.length > AREA_END) throw new RangeError('SMBIOS structures do not fit below 1 MiB');
  ram.write(STRUCTURES_GPA, Uint8Array.from(bytes));
  ram.write(SMBIOS_ENTRY_GPA, entryPoint(bytes.length));
}

/** 5.2.2: the 64-bit entry point. */
function entryPoint(length: number): Uint8Array {
  const MAJOR = 3;
  const MINOR = 3;
  const bytes = Uint8Array.from([...text('_SM3_'), 0, ENTRY_SIZE, MAJOR, MINOR, 0, 1, 0, ...le(length, 4), ...le(STRUCTURES_GPA, 8)]);
  bytes[5] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return bytes;
}

function structures({ vcpus, ramSize }: SmbiosOptions): Structure[] {
  return [
    firmware(),
    system(),
    chassis(),
    ...Array.from({ length: vcpus }, (_, index) => processor(index)),
    memoryArray(ramSize),
    memoryDevice(ramSize),
    mappedAddresses(ramSize),
    { type: 32, handle: 0x2000, body: [0, 0, 0, 0, 0, 0, 0] }, // 7.33: no errors at the last boot
    { type: 127, handle: 0x7f00, body: [] },
  ];
}

/** 7.1. */
function firmware(): Structure {
  const CHARACTERISTICS_NOT_SUPPORTED = 1 << 3;
  /** Extension byte 2: ACPI is in byte 1; "SMBIOS table describes a virtual machine". */
  const ACPI = 1 << 0;
  const VIRTUAL_MACHINE = 1 << 4;
  const NO_RELEASE = 0xff;
  return {
    type: 0,
    handle: 0,
    body: [
      1,
      2,
      ...le(0, 2),
      3,
      0,
      ...le(CHARACTERISTICS_NOT_SUPPORTED, 8),
      ACPI,
      VIRTUAL_MACHINE,
      NO_RELEASE,
      NO_RELEASE,
      NO_RELEASE,
      NO_RELEASE,
      ...le(0, 2),
    ],
    strings: [MAKER, '1', RELEASE_DATE],
  };
}

/** 7.2. All zeros: the system has no UUID. */
function system(): Structure {
  const POWER_SWITCH = 6;
  return { type: 1, handle: 0x100, body: [1, 2, 3, 0, ...new Array<number>(16).fill(0), POWER_SWITCH, 0, 0], strings: [MAKER, MODEL, '1'] };
}

/** 7.4. */
function chassis(): Structure {
  const SAFE = 3;
  const NO_SECURITY = 3;
  return { type: 3, handle: CHASSIS, body: [1, OTHER, 0, 0, 0, SAFE, SAFE, SAFE, NO_SECURITY, ...le(0, 4), 0, 0, 0, 0, 0], strings: [MAKER] };
}

/** 7.5. What kind it is CPUID says. */
function processor(index: number): Structure {
  const CENTRAL = 3;
  const POPULATED_AND_ENABLED = 0x41;
  /** 64-bit capable, execute protection. */
  const CHARACTERISTICS = (1 << 2) | (1 << 5);
  return {
    type: 4,
    handle: PROCESSOR + index,
    body: [
      ...[1, CENTRAL, UNKNOWN, 2, ...le(0, 8), 0, 0],
      ...[...le(0, 2), ...le(0, 2), ...le(0, 2), POPULATED_AND_ENABLED, OTHER],
      ...[...NO_HANDLE, ...NO_HANDLE, ...NO_HANDLE, 0, 0, 0],
      ...[1, 1, 1, ...le(CHARACTERISTICS, 2), ...le(UNKNOWN, 2), ...le(1, 2), ...le(1, 2), ...le(1, 2)],
    ],
    strings: [`CPU ${index}`, MAKER],
  };
}

/** 7.17. */
function memoryArray(ramSize: number): Structure {
  const SYSTEM_MEMORY = 3;
  return { type: 16, handle: MEMORY_ARRAY, body: [OTHER, SYSTEM_MEMORY, NONE, ...le(ramSize / 1024, 4), ...NOT_PROVIDED, ...le(1, 2), ...le(0, 8)] };
}

/** 7.18. RAM need not be whole MiB; then its size is in KiB, which bit 15 says. */
function memoryDevice(ramSize: number): Structure {
  const MIB = 2 ** 20;
  const KIB_UNITS = 0x8000;
  const size = ramSize % MIB === 0 ? ramSize / MIB : KIB_UNITS | (ramSize / 1024);
  return {
    type: 17,
    handle: MEMORY_DEVICE,
    body: [
      ...[...le(MEMORY_ARRAY, 2), ...NOT_PROVIDED, ...le(0, 2), ...le(0, 2), ...le(size, 2), OTHER, 0, 1, 0, OTHER, ...le(1 << 1, 2)],
      ...[...le(0, 2), 2, 0, 0, 0, 0, ...le(0, 4), ...le(0, 2), ...le(0, 2), ...le(0, 2), ...le(0, 2)],
    ],
    strings: ['RAM', MAKER],
  };
}

/** 7.20. Addresses in KiB, the last one included. */
function mappedAddresses(ramSize: number): Structure {
  return { type: 19, handle: 0x1300, body: [...le(0, 4), ...le(ramSize / 1024 - 1, 4), ...le(MEMORY_ARRAY, 2), 1, ...le(0, 8), ...le(0, 8)] };
}

/** 6.1: header, body, then the strings, each with its NUL, and one more; two for none. */
function encode({ type, handle, body, strings = [] }: Structure): number[] {
  const named = strings.flatMap((string) => [...text(string), 0]);
  return [type, HEADER_SIZE + body.length, ...le(handle, 2), ...body, ...named, 0, ...(named.length === 0 ? [0] : [])];
}

function text(string: string): number[] {
  return [...new TextEncoder().encode(string)];
}
