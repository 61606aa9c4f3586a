import { buildCpio, GuestRam, loadKernel, MachineError, parseElf64 } from '@pvm/machine';
import { PvmError } from '../errors.ts';
import { createVm, type VmOptions } from '../index.ts';
import { checkOptions } from '../options.ts';
import { SnapshotReader } from '../snapshot/reader.ts';
import { snapshotPieces } from '../snapshot/writer.ts';
import { bzImageKernel, elfKernel, multibootKernel, pvhKernel } from './kernel-image.ts';
import { powerOff, stockKernel } from './stock-guest.ts';

/** Numbers that formats treat specially. */
const SPECIAL = [0, 1, 2, 0x7f, 0xff, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;
const RAM = 8 << 20;

/** xorshift32; the same seed gives the same input. */
export class FuzzRandom {
  private word: number;
  constructor(seed: number) {
    this.word = (Math.imul(seed, 0x9e37_79b1) ^ 0x1b87_3593) | 1;
    for (let i = 0; i < 4; i++) this.next();
  }
  next(): number {
    this.word ^= this.word << 13;
    this.word ^= this.word >>> 17;
    this.word ^= this.word << 5;
    return this.word >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}

/** A copy with bytes and numbers changed, mostly near its start, and perhaps cut off. */
function mutate(random: FuzzRandom, bytes: Uint8Array, head = 0x400): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(bytes.subarray(0, random.below(6) === 0 ? random.below(bytes.length + 1) : bytes.length));
  const view = new DataView(copy.buffer);
  for (let n = random.below(6); n >= 0 && copy.length > 8; n--) {
    const at = random.below(Math.min(copy.length - 8, random.below(8) === 0 ? copy.length : head));
    if (random.below(2) === 0) copy[at] = random.next();
    else view.setUint32(at & ~3, random.below(3) === 0 ? random.next() : random.pick(SPECIAL), true);
  }
  return copy;
}

/** Input that is refused is refused by an error of ours, on one line. */
function isTyped(e: unknown): boolean {
  return (e instanceof PvmError || e instanceof MachineError) && !e.message.includes('\n');
}
function typed(work: () => void): void {
  try {
    work();
  } catch (e) {
    if (!isTyped(e)) throw e;
  }
}

const kernels = [elfKernel([]), pvhKernel([]), multibootKernel([]), bzImageKernel([], true), bzImageKernel([], false)];
const ram = new GuestRam(new ArrayBuffer(RAM), 0, RAM);

function kernelImage(random: FuzzRandom): void {
  const kernel = mutate(random, random.pick(kernels));
  const commandLine = 'x'.repeat(random.pick([0, 1, 255, 256, 2047, 2048, 70_000]));
  const initrd = new Uint8Array(random.pick([0, 1, 4096, 4097, random.below(10) === 0 ? RAM : 5]));
  typed(() => loadKernel(ram, { kernel, commandLine, ...(random.below(2) === 0 ? { initrd } : {}) }));
  typed(() => parseElf64(kernel, 'program'));
}

function files(random: FuzzRandom): void {
  const name = () => random.pick(['', 'a', '../x', '\0', 'TRAILER!!!', 'é'.repeat(300), String.fromCharCode(random.below(0x1_0000)), 'd/'.repeat(50)]);
  const list = Array.from({ length: random.below(5) }, () => ({ name: name(), data: new Uint8Array(random.below(20)), mode: random.next() & 0o7777 }));
  typed(() => {
    const archive = buildCpio(list);
    if (archive.length % 4 !== 0) throw new Error(`archive of ${archive.length} bytes`);
  });
}

const VALUES: readonly unknown[] = [
  ...[undefined, null, true, false, 0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 10n, Symbol.iterator, () => undefined],
  ...['', 'x', '64M', '99999999999G', '-5', 'pvm', 'kvm-ept', 'v3', 'host', '\0', 'x'.repeat(10_000), new Uint8Array(3), new Date(), /x/],
  ...[[], [1], ['a'], [[]], [{}], [{ file: 5 }], [{ file: 'x', more: 1 }], [{ folder: '/', tag: 'a,b' }], {}, { a: 1 }, { '/x': 5 }, Object.create(null)],
];
const KEYS: readonly string[] = [
  ...[
    'program',
    'args',
    'argv0',
    'env',
    'files',
    'stdin',
    'memory',
    'shadowMemory',
    'abi',
    'design',
    'stock',
    'optimisations',
    'cpu',
    'clock',
    'jit',
    'onConsole',
  ],
  ...['onSerial', 'terminals', 'kernel', 'initrd', 'commandLine', 'drives', 'shares', 'consolePorts', 'vsock', 'balloon', 'virtio', 'debugExitPort', 'vcpus'],
  ...['maxInstructions', 'checkMmu', 'countTlb', 'ledger', 'traceLimit', 'signal', 'restore', '', '__proto__', 'constructor', 'toString', 'memroy'],
];

function options(random: FuzzRandom): void {
  const given: Record<string, unknown> = random.below(2) === 0 ? { program: 'x' } : { kernel: 'x' };
  for (let n = random.below(4); n >= 0; n--)
    Object.defineProperty(given, random.pick(KEYS), { value: random.pick(VALUES), enumerable: true, configurable: true, writable: true });
  typed(() => checkOptions(given as VmOptions));
}

let base: Promise<{ bytes: Uint8Array; state: Uint8Array; memory: Uint8Array[] }> | undefined;

async function baseSnapshot() {
  const vm = await createVm({ kernel: stockKernel(powerOff), memory: '8M', jit: 'off', clock: 'icount' });
  const bytes = await vm.save();
  await vm.dispose();
  const memory: Uint8Array[] = [];
  const state = await SnapshotReader.open(bytes).readSections((packed) => void memory.push(new Uint8Array(packed)));
  return { bytes, state, memory };
}

/** The file as damage would leave it; and with a right checksum around state, pages or header that are wrong. */
async function snapshot(random: FuzzRandom): Promise<void> {
  base ??= baseSnapshot();
  const { bytes, state, memory } = await base;
  const { header } = SnapshotReader.open(bytes);
  const isState = random.below(3) !== 0;
  const text = new TextDecoder().decode(mutate(random, new TextEncoder().encode(JSON.stringify(header))));
  const pieces = isState
    ? snapshotPieces(header, mutate(random, state, state.length), memory)
    : random.below(2) === 0
      ? snapshotPieces(header, state, [mutate(random, memory[0] ?? new Uint8Array(0), 64), ...memory.slice(1)])
      : snapshotPieces({ ...header, toJSON: () => parsed(text) } as typeof header, state, memory);
  for (const restore of [mutate(random, bytes), Buffer.concat([...pieces])]) {
    try {
      await (await createVm({ restore, jit: 'off' })).dispose();
    } catch (e) {
      if (!isTyped(e)) throw e;
    }
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What the host is given by people and files, by name: each takes one input made from a seed, and throws when something other than a typed error comes of it. */
export const HOST_INPUTS: Readonly<Record<string, (random: FuzzRandom) => void | Promise<void>>> = { kernelImage, files, options, snapshot };
