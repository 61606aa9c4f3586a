/**
 * The guest programs of this project, built and committed: absolute paths of their ELF images.
 */
import { fileURLToPath } from 'node:url';

const image = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url));

/** The PVM guest kernel: runs one static Linux program. Entered by the Linux boot protocol at a physical address. */
export const kernelPath = image('kernel/kernel.elf');
/** The program that runs when no other is named. */
export const demoPath = image('demo/demo.elf');
/** Microbenchmarks: `bench <kind> <n>`, see `benchKinds`. */
export const benchPath = image('bench/bench.elf');

/** First process for a stock kernel: operations on processes and memory between marks; see `lmbenchRows`. */
export const lmbenchPath = image('linux/lmbench.elf');

/** Rows of `lmbench`; the index is the number of the interval. It is told `name:n` for each row to run. */
export const lmbenchRows = [
  'getpid',
  'null-io',
  'stat',
  'open-close',
  'select',
  'select-tcp',
  'signal-install',
  'signal-handle',
  'protection-fault',
  'fork',
  'exec',
  'sh',
  'mmap',
  'page-fault',
  'allocate',
] as const;

export type LmbenchRow = (typeof lmbenchRows)[number];

/** A kernel that checks a PC with up to eight CPUs and says on COM1 what passed. */
export const smpPath = image('smp/smp.elf');

/** What `bench` can measure. The first eight loop in supervisor mode, through a private system call of the kernel. */
export const benchKinds = [
  'hypercall',
  'exception',
  'msr-read',
  'msr-write',
  'cpuid',
  'cpuid-synthetic',
  'pio-in',
  'pio-out',
  'getpid',
  'fault',
  'touch',
  'exception-user',
] as const;

export type BenchKind = (typeof benchKinds)[number];

/** Ordinary static programs with the C library, for end-to-end tests; sources and expected output beside them. */
export const testPrograms = {
  hello: image('tests/hello.elf'),
  faults: image('tests/faults.elf'),
  smc: image('tests/smc.elf'),
  fuzz: image('tests/fuzz.elf'),
} as const;
