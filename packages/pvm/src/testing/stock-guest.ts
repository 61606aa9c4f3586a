import { createVm, type Result, type Vm, type VmOptions } from '../index.ts';

/** Where the kernel is loaded: code, then handlers, stack and IDT. */
const LOAD = 0x20_0000;
const IDTR = LOAD + 0x800;
const HANDLERS = LOAD + 0x1000;
const HANDLER_SIZE = 0x200;
const STACK = LOAD + 0x8000;
const IDT = LOAD + 0x1_0000;
/** CS of the Linux boot protocol. */
const BOOT_CS = 0x10;
const PM1_CONTROL = 0x604;
export const COM1 = 0x3f8;
const COM1_STATUS = 0x3fd;
/** The vector that `waitForTimer` sets up. */
export const TIMER_VECTOR = 0x20;

/** Little-endian bytes of `n`, below 2^53. */
export const word = (n: number, size: number): number[] => Array.from({ length: size }, (_, i) => Math.floor(n / 2 ** (8 * i)) & 0xff);
export const outImmediate = (port: number, value: number): number[] => [0xb0, value, 0xe6, port];
export const out = (port: number, value: number): number[] => [0x66, 0xba, ...word(port, 2), 0xb0, value, 0xee];
/** Sends AL to COM1. */
export const outAl = [0x66, 0xba, ...word(COM1, 2), 0xee];
/** mov dx, PM1; mov ax, S5 | SLP_EN; out dx, ax; cli; hlt. */
export const powerOff = [0x66, 0xba, ...word(PM1_CONTROL, 2), 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xfa, 0xf4];
/** Wait until COM1 has a byte (the status port is polled) and send it back. */
export const echo = [0x66, 0xba, ...word(COM1_STATUS, 2), 0xec, 0xa8, 0x01, 0x74, 0xfb, 0x66, 0xba, ...word(COM1, 2), 0xec, 0xee];
/** mov esp, imm32; lidt [abs32]. */
export const start = [0xbc, ...word(STACK, 4), 0x0f, 0x01, 0x1c, 0x25, ...word(IDTR, 4)];
/** 8259 at vector 0x20 with IRQ 0 open; 8254 channel 0, mode 2, 1 kHz; sti; hlt. */
export const waitForTimer = [
  ...[...outImmediate(0x20, 0x11), ...outImmediate(0x21, TIMER_VECTOR), ...outImmediate(0x21, 4), ...outImmediate(0x21, 1), ...outImmediate(0x21, 0xfe)],
  ...[...outImmediate(0x43, 0x34), ...outImmediate(0x40, 1193 & 0xff), ...outImmediate(0x40, 1193 >> 8)],
  ...[0xfb, 0xf4],
];

/** An ELF64 kernel for the Linux entry: 64-bit code, and handlers of the vectors that its IDT has (`start` loads it). */
export function stockKernel(code: readonly number[], handlers: Readonly<Record<number, readonly number[]>> = {}): Uint8Array {
  if (code.length > IDTR - LOAD) throw new RangeError(`${code.length} bytes of code are too many`);
  const image = new Uint8Array(0x1_1000);
  image.set(code, 0);
  image.set([...word(16 * 256 - 1, 2), ...word(IDT, 8)], IDTR - LOAD);
  Object.entries(handlers).forEach(([vector, handler], i) => {
    const address = HANDLERS + i * HANDLER_SIZE;
    image.set(handler, address - LOAD);
    // A 64-bit interrupt gate.
    image.set([...word(address & 0xffff, 2), BOOT_CS, 0, 0, 0x8e, ...word(address >>> 16, 2)], IDT - LOAD + 16 * Number(vector));
  });
  const ident = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...word(0, 9)];
  const header = [...ident, ...word(2, 2), ...word(62, 2), ...word(1, 4), ...word(LOAD, 8), ...word(64, 8), ...word(0, 8)];
  const sizes = [...word(0, 4), ...word(64, 2), ...word(56, 2), ...word(1, 2), ...word(0, 6)];
  const segment = [...word(1, 4), ...word(7, 4), ...word(120, 8), ...word(LOAD, 8), ...word(LOAD, 8), ...word(image.length, 8), ...word(image.length, 8)];
  return Uint8Array.from([...header, ...sizes, ...segment, ...word(4096, 8), ...image]);
}

export interface StockRun {
  readonly result: Result;
  /** What the guest sent to COM1. */
  readonly serial: string;
  /** Exits by `reason sub`. */
  readonly exits: Readonly<Record<string, number>>;
}

/** Runs a guest to its end, on the virtual clock and interpreted unless `options` say otherwise. */
export async function runStock(options: VmOptions): Promise<StockRun> {
  let serial = '';
  let vm: Vm | undefined;
  try {
    vm = await createVm({
      jit: 'off',
      clock: 'icount',
      memory: '16M',
      onSerial: (chunk) => {
        serial += Buffer.from(chunk).toString('latin1');
      },
      ...options,
    });
    const result = await vm.run();
    return { result, serial, exits: Object.fromEntries(vm.ledger.entries().map((e) => [`${e.reason} ${e.sub}`.trim(), e.count])) };
  } finally {
    await vm?.dispose();
  }
}
