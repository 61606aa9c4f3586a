import { execFileSync } from 'node:child_process';
import { afterEach, describe, expect, test } from 'vitest';
import { CpuError } from '../errors.ts';
import { Cpu, type CpuCreateOptions } from './cpu.ts';
import type { StopReason } from './stop-reason.ts';

const CODE = 0x10_0000;
const DATA = 0x20_0000;
const STACK = 0x30_0000;
const TIERS = ['interp', 'sync'] as const;
const HLT = 0xf4;

const made: Cpu[] = [];
async function create(options: CpuCreateOptions = {}): Promise<Cpu> {
  const cpu = await Cpu.create({ memory: 4 << 20, tier: 'interp', ...options });
  made.push(cpu);
  return cpu;
}
/** With the code at CODE, a page of data at DATA and a stack under STACK. */
async function machine(code: readonly number[], options: CpuCreateOptions = {}): Promise<Cpu> {
  const cpu = await create(options);
  cpu.load(CODE, code);
  cpu.map(DATA, 4096, 'rw');
  cpu.map(STACK - 4096, 4096, 'rw');
  cpu.set('rsp', STACK);
  return cpu;
}
afterEach(async () => {
  await Promise.all(made.splice(0).map((cpu) => cpu.dispose()));
});

const le32 = (n: number) => [n & 255, (n >> 8) & 255, (n >> 16) & 255, (n >>> 24) & 255];
const movEcx = (n: number) => [0xb9, ...le32(n)];
/** MOV EAX, [DATA + n] without a base, and the store. */
const load = (n: number) => [0x8b, 0x04, 0x25, ...le32(DATA + n)];
const store = (n: number) => [0x89, 0x04, 0x25, ...le32(DATA + n)];
const INC_RAX = [0x48, 0xff, 0xc0];
/** RAX counts RCX turns: MOV ECX, n; INC RAX; DEC ECX; JNZ. 1 + 3n instructions. */
const loop = (n: number) => [...movEcx(n), ...INC_RAX, 0xff, 0xc9, 0x75, 0xf9];

describe.each(TIERS)('tier %s', (tier) => {
  test('runs until HLT, with RIP after it', async () => {
    const cpu = await machine([...loop(5000), HLT], { tier });
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(cpu.get('rax')).toBe(5000n);
    expect(cpu.get('rip')).toBe(BigInt(CODE + 13));
    expect(cpu.instructions).toBe(15002n);
    expect((cpu.core.stats(0).jit?.regions ?? 0) > 0).toBe(tier === 'sync');
  });

  test.each([0, 1, 2, 3, 4, 63, 64, 65, 1000, 14_999, 15_001])('retires exactly %i instructions', async (count) => {
    const cpu = await machine([...loop(5000), HLT], { tier });
    expect(cpu.run({ count })).toEqual({ kind: 'limit' });
    expect(cpu.instructions).toBe(BigInt(count));
    expect(cpu.get('rax')).toBe(BigInt(Math.ceil(Math.max(0, count - 1) / 3)));
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(cpu.get('rax')).toBe(5000n);
  });

  test('counts exactly through code that never jumps back', async () => {
    const cpu = await create({ tier });
    cpu.load(CODE, [...new Array<number>(200_000).fill(0x90), HLT]);
    expect(cpu.run({ count: 150_000 })).toEqual({ kind: 'limit' });
    expect(cpu.get('rip')).toBe(BigInt(CODE + 150_000));
  });

  test('stops before an address each time it comes there, also once the code is compiled', async () => {
    const cpu = await machine([...loop(3000), HLT], { tier });
    const until = CODE + 8;
    for (let n = 1n; n <= 2000n; n++) {
      expect(cpu.run({ until })).toEqual({ kind: 'until', address: BigInt(until) });
      expect(cpu.get('rax')).toBe(n);
    }
    expect(cpu.run({ until: CODE + 12 })).toEqual({ kind: 'until', address: BigInt(CODE + 12) });
    expect(cpu.get('rax')).toBe(3000n);
    expect(cpu.run()).toEqual({ kind: 'hlt' });
  });

  test('stops at an address that hot compiled code reaches', async () => {
    const cpu = await machine([...loop(20_000), HLT], { tier });
    cpu.run({ count: 9000 });
    const before = cpu.get('rax');
    expect(cpu.run({ until: CODE + 8 })).toMatchObject({ kind: 'until' });
    expect(cpu.get('rax') - before).toBeLessThanOrEqual(1n);
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(cpu.get('rax')).toBe(20_000n);
  });

  test('returns to an address that is not mapped, as a sentinel', async () => {
    const cpu = await machine([...INC_RAX, 0xc3], { tier });
    cpu.write(STACK - 8, [0, 0, 0, 0, 0, 0, 0, 0]);
    cpu.set('rsp', STACK - 8);
    expect(cpu.run({ until: 0 })).toEqual({ kind: 'until', address: 0n });
    expect(cpu.get('rsp')).toBe(BigInt(STACK));
  });

  test.each<[string, number[], Partial<StopReason>]>([
    ['a load of what is not mapped', [0x8b, 0x04, 0x25, ...le32(0x50_0000)], { access: 'read', address: 0x50_0000n, size: 4, why: 'unmapped' }],
    ['a store across the end of the mapping', store(4094), { access: 'write', address: BigInt(DATA + 4096), size: 2, why: 'unmapped' }],
    ['a store to code that is read-only', [0x89, 0x04, 0x25, ...le32(CODE)], { access: 'write', address: BigInt(CODE), size: 4, why: 'protected' }],
    ['a jump to data', [0xe9, ...le32(DATA - CODE - 5 - 3)], { access: 'execute', address: BigInt(DATA), why: 'protected' }],
    ['a jump to nowhere', [0xe9, ...le32(0x50_0000 - CODE - 5 - 3)], { access: 'execute', address: 0x50_0000n, why: 'unmapped' }],
  ])('%s stops before it, and goes on when it is put right', async (_, code, expected) => {
    const cpu = await machine([...INC_RAX, ...code, HLT], { tier });
    cpu.protect(CODE, 4096, 'rx');
    const stop = cpu.run();
    expect(stop).toMatchObject({ kind: 'memory', ...expected });
    expect(cpu.get('rax')).toBe(1n);
    const isJump = 'access' in expected && expected.access === 'execute';
    const { address } = expected as { address: bigint };
    expect(cpu.get('rip')).toBe(isJump ? address : BigInt(CODE + 3));
    if ('why' in expected && expected.why === 'unmapped') cpu.map(address & ~0xfffn, 4096, 'rwx');
    else cpu.protect(address & ~0xfffn, 4096, 'rwx');
    if (isJump) cpu.write(address, [HLT]);
    expect(cpu.run()).toEqual({ kind: 'hlt' });
  });

  test('a store across the end of the mapping has stored nothing', async () => {
    const cpu = await machine([0xb8, ...le32(-1), ...store(4094), HLT], { tier });
    expect(cpu.run()).toMatchObject({ kind: 'memory' });
    expect([...cpu.read(DATA + 4092, 4)]).toEqual([0, 0, 0, 0]);
  });

  test('an instruction across a page of code runs, and stops where its second page is missing', async () => {
    const cpu = await create({ tier });
    cpu.map(CODE, 4096);
    cpu.write(CODE + 4094, [0x48, 0xff]);
    cpu.set('rip', CODE + 4094);
    expect(cpu.run()).toMatchObject({ kind: 'memory', access: 'execute', address: BigInt(CODE + 4096), why: 'unmapped', rip: BigInt(CODE + 4094) });
    cpu.map(CODE + 4096, 4096);
    cpu.write(CODE + 4096, [0xc0, HLT]);
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(cpu.get('rax')).toBe(1n);
  });

  test.each<[string, number[], number, number]>([
    ['UD2', [0x0f, 0x0b], 6, 0],
    ['DIV by zero', [0xf7, 0xf1], 0, 0],
    ['a descriptor that is not there', [0x66, 0xb8, 0x28, 0, 0x8e, 0xd8], 13, 0x28],
    ['VMCALL', [0x0f, 0x01, 0xc1], 6, 0],
    ['RDMSR of nothing', [...movEcx(0x1234_5678), 0x0f, 0x32], 13, 0],
  ])('%s is an exception at the instruction', async (_, code, vector, error) => {
    const cpu = await machine([...code, HLT], { tier });
    cpu.setDescriptorTable('gdtr', DATA, 0x1f);
    const at = BigInt(CODE + (code.length > 5 ? code.length - 2 : 0));
    expect(cpu.run()).toEqual({ kind: 'exception', vector, error, address: 0n, rip: at });
    expect(cpu.get('rip')).toBe(at);
    expect(cpu.run()).toMatchObject({ kind: 'exception', vector });
  });

  test('code that the host, and the guest, change runs as it is then', async () => {
    // The loop's INC RAX becomes DEC RAX: MOV BYTE [CODE + 7], 0xc8 behind it.
    const cpu = await machine([...loop(2000), HLT], { tier });
    cpu.run();
    cpu.write(CODE + 7, [0xc8]);
    cpu.set('rip', CODE);
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(cpu.get('rax')).toBe(0n);
    const self = await machine([...movEcx(1000), ...INC_RAX, 0xc6, 0x04, 0x25, ...le32(CODE + 7), 0xc8, 0xff, 0xc9, 0x75, 0xf1, HLT], { tier });
    expect(self.run()).toEqual({ kind: 'hlt' });
    expect(BigInt.asIntN(64, self.get('rax'))).toBe(-998n);
  });

  test('a memory hook sees every access with exact registers and changes what is read and written', async () => {
    const body = [...load(0), ...store(8), ...INC_RAX];
    const cpu = await machine([...movEcx(700), ...body, 0xff, 0xc9, 0x75, 256 - 4 - body.length, HLT], { tier });
    const seen: string[] = [];
    const off = cpu.onMemory({ address: DATA, size: 16 }, 'rw', ({ access, address, size, value, rip }) => {
      if (seen.length < 2) seen.push(`${access} ${address - BigInt(DATA)} ${size} ${value} ${rip - BigInt(CODE)}`);
      return access === 'read' ? cpu.get('rcx') : value * 2n;
    });
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(seen).toEqual(['read 0 4 0 5', 'write 8 4 700 12']);
    expect([...cpu.read(DATA + 8, 1)]).toEqual([2]);
    off();
    cpu.write(DATA, [77]);
    cpu.set('rip', CODE);
    cpu.run();
    expect([...cpu.read(DATA + 8, 1)]).toEqual([77]);
  });

  test.each<[string, number[], string[]]>([
    ['ADD to memory', [0x01, 0x0c, 0x25, ...le32(DATA)], ['read 0+4=5', 'write 0+4=8']],
    ['LOCK XADD', [0xf0, 0x0f, 0xc1, 0x0c, 0x25, ...le32(DATA)], ['read 0+4=5', 'write 0+4=8']],
    ['XCHG', [0x87, 0x0c, 0x25, ...le32(DATA)], ['read 0+4=5', 'write 0+4=3']],
    ['MOVUPS', [0x0f, 0x10, 0x04, 0x25, ...le32(DATA)], ['read 0+16=5']],
    ['PUSH from memory', [0xff, 0x34, 0x25, ...le32(DATA)], ['read 0+8=5']],
    ['REP STOSB of 3', [0xbf, ...le32(DATA), 0xb0, 9, 0xf3, 0xaa], ['write 0+1=9', 'write 1+1=9', 'write 2+1=9']],
  ])('%s is seen access by access', async (_, code, expected) => {
    const cpu = await machine([...code, HLT], { tier });
    cpu.write(DATA, [5]);
    cpu.set('rcx', 3);
    const seen: string[] = [];
    cpu.onMemory({ address: DATA, size: 64 }, 'rw', ({ access, address, size, value }) => {
      seen.push(`${access} ${address - BigInt(DATA)}+${size}=${value}`);
    });
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(seen).toEqual(expected);
  });

  test('an access across two pages is two for hooks, and whole in memory', async () => {
    const cpu = await machine([0xb8, ...le32(0x4433_2211), ...store(4094), 0x31, 0xc0, ...load(4094), HLT], { tier });
    cpu.map(DATA + 4096, 4096, 'rw');
    const seen: string[] = [];
    cpu.onMemory({ address: DATA + 4096, size: 1 }, 'rw', ({ access, address, size, value }) => {
      seen.push(`${access} ${address - BigInt(DATA)}+${size}=${value.toString(16)}`);
    });
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(seen).toEqual(['write 4096+2=4433', 'read 4096+2=4433']);
    expect(cpu.get('rax')).toBe(0x4433_2211n);
  });

  test('a hook for writes does not see reads, nor accesses beside its range', async () => {
    const cpu = await machine([...load(0), ...load(64), ...store(64), ...store(0), HLT], { tier });
    let calls = 0;
    cpu.onMemory({ address: DATA, size: 4 }, 'w', () => {
      calls++;
    });
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(calls).toBe(1);
  });

  test('hooks that say stop stop before the instruction, which the next run does', async () => {
    const cpu = await machine([...INC_RAX, ...store(0), ...INC_RAX, ...store(0), HLT], { tier });
    cpu.onMemory({ address: DATA, size: 4 }, 'w', () => 'stop');
    cpu.onCode({ address: CODE, size: 1 }, () => 'stop');
    expect(cpu.run()).toEqual({ kind: 'hook', hook: 'code', rip: BigInt(CODE) });
    expect(cpu.run()).toEqual({ kind: 'hook', hook: 'memory', rip: BigInt(CODE + 3) });
    expect([...cpu.read(DATA, 1)]).toEqual([0]);
    expect(cpu.run()).toEqual({ kind: 'hook', hook: 'memory', rip: BigInt(CODE + 13) });
    expect([...cpu.read(DATA, 1)]).toEqual([1]);
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect([...cpu.read(DATA, 1)]).toEqual([2]);
  });

  test('a code hook sees each instruction that starts in its range, also after code was compiled', async () => {
    const cpu = await machine([...loop(1000), HLT], { tier });
    cpu.run();
    const seen: bigint[] = [];
    const off = cpu.onCode({ address: CODE + 5, size: 4 }, (rip) => {
      seen.push(rip - BigInt(CODE));
    });
    cpu.set('rip', CODE);
    expect(cpu.run({ count: 7 })).toEqual({ kind: 'limit' });
    expect(seen).toEqual([5n, 8n, 5n, 8n]);
    off();
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(seen.length).toBe(4);
    expect(cpu.get('rax')).toBe(2000n);
  });

  test('a code hook that sets RIP goes on there', async () => {
    const cpu = await machine([0x0f, 0x0b, HLT], { tier });
    cpu.onCode({ address: CODE, size: 1 }, () => cpu.set('rip', CODE + 2));
    expect(cpu.run()).toEqual({ kind: 'hlt' });
  });

  test('ports, CPUID, MSRs, SYSCALL and INT n are the hooks’', async () => {
    const code = [0xe4, 0x60, 0xe6, 0x61, ...movEcx(0x4000_0000), 0x0f, 0x32, ...store(0), 0x0f, 0x30, 0x0f, 0x05, 0xcd, 0x80, 0x31, 0xc0, 0x0f, 0xa2, HLT];
    const cpu = await machine(code, { tier });
    const seen: string[] = [];
    cpu.onPort(({ access, port, size, value }) => {
      seen.push(`${access} ${port} ${size} ${value}`);
      return 0x5a;
    });
    cpu.onMsr((msr, value) => {
      seen.push(`msr ${msr} ${value}`);
      return value === undefined ? 0x7_0000_0005n : true;
    });
    cpu.onSyscall(() => {
      seen.push('syscall');
    });
    cpu.onInterrupt((vector) => {
      seen.push(`int ${vector}`);
    });
    cpu.onCpuid((leaf) => (leaf === 0 ? [1, 2, 3, 4] : undefined));
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(seen).toEqual(['in 96 1 0', 'out 97 1 90', 'msr 1073741824 undefined', 'msr 1073741824 30064771077', 'syscall', 'int 128']);
    expect(['rax', 'rbx', 'rcx', 'rdx'].map((r) => cpu.get(r as 'rax'))).toEqual([1n, 2n, 3n, 4n]);
  });

  test('SYSCALL and INT n without a hook stop after the instruction', async () => {
    const cpu = await machine([0x0f, 0x05, 0xcd, 0x21, 0xcc, HLT], { tier });
    expect(cpu.run()).toEqual({ kind: 'syscall', rip: BigInt(CODE) });
    expect(cpu.run()).toEqual({ kind: 'interrupt', vector: 0x21, rip: BigInt(CODE + 2) });
    expect(cpu.run()).toEqual({ kind: 'interrupt', vector: 3, rip: BigInt(CODE + 4) });
    expect(cpu.run()).toEqual({ kind: 'hlt' });
  });

  test('addresses of 48 bits and of the upper half are what they are', async () => {
    const high = 0xffff_8000_0000_0000n;
    const cpu = await create({ tier });
    cpu.map(high, 4096);
    cpu.map(0x1234_5678_9000n, 4096, 'rw');
    // MOV RAX, [moffs]; HLT
    cpu.write(high, [0x48, 0xa1, 0, 0x90, 0x78, 0x56, 0x34, 0x12, 0, 0, HLT]);
    cpu.write(0x1234_5678_9000n, [1, 2, 3]);
    cpu.set('rip', high);
    expect(cpu.run()).toEqual({ kind: 'hlt' });
    expect(cpu.get('rax')).toBe(0x03_0201n);
    cpu.write(high, [0x48, 0xa1, 0, 0, 0, 0, 0, 0, 0, 0x80, HLT]);
    cpu.set('rip', high);
    expect(cpu.run()).toMatchObject({ kind: 'exception', vector: 13 });
  });
});

test('real mode: INT 21h is the hook’s, and segments work', async () => {
  const cpu = await create({ mode: 'real' });
  cpu.map(0, 0x2_0000);
  // MOV AX, 0x1000; MOV DS, AX; MOV AL, [0]; INT 21h; HLT
  cpu.write(0x100, [0xb8, 0, 0x10, 0x8e, 0xd8, 0xa0, 0, 0, 0xcd, 0x21, HLT]);
  cpu.write(0x1_0000, [0x42]);
  cpu.set('rip', 0x100);
  let al = 0n;
  cpu.onInterrupt((vector) => {
    al = vector === 0x21 ? cpu.get('rax') & 0xffn : -1n;
  });
  expect(cpu.run()).toEqual({ kind: 'hlt' });
  expect(al).toBe(0x42n);
  expect(cpu.segment('ds')).toMatchObject({ selector: 0x1000, base: 0x1_0000n });
});

test.each(TIERS)('protected mode is flat 32-bit code (tier %s)', async (tier) => {
  // MOV ECX, 1000; L: INC EAX; LOOP L; HLT
  const cpu = await machine([...movEcx(1000), 0x40, 0xe2, 0xfd, HLT], { mode: 'protected', tier });
  expect(cpu.run()).toEqual({ kind: 'hlt' });
  expect(cpu.get('rax')).toBe(1000n);
});

test('real mode delivers exceptions through its vector table when asked to', async () => {
  const cpu = await create({ mode: 'real', exceptions: 'deliver' });
  cpu.map(0, 0x1_0000);
  cpu.write(6 * 4, [0x00, 0x02, 0, 0]);
  cpu.write(0x100, [0x0f, 0x0b]);
  cpu.write(0x200, [HLT]);
  cpu.set('rip', 0x100);
  cpu.set('rsp', 0x1000);
  expect(cpu.run()).toEqual({ kind: 'hlt' });
  expect(cpu.get('rip')).toBe(0x201n);
  expect([...cpu.read(0xffa, 2)]).toEqual([0, 1]);
});

test('an exception that finds no stack stops at the memory that is missing', async () => {
  const cpu = await create({ mode: 'real', exceptions: 'deliver' });
  cpu.map(0, 0x1000);
  cpu.write(0x100, [0x0f, 0x0b]);
  cpu.set('rip', 0x100);
  cpu.set('rsp', 0x8000);
  expect(cpu.run()).toMatchObject({ kind: 'memory', access: 'write', why: 'unmapped' });
});

test('code that another thread compiles stops exactly too', async () => {
  const cpu = await machine([...loop(2_000_000_000), HLT], { tier: 'jit' });
  await cpu.runAsync({ count: 20_000_000 });
  expect(cpu.instructions).toBe(20_000_000n);
  const before = cpu.get('rax');
  expect(cpu.run({ until: CODE + 8 })).toMatchObject({ kind: 'until' });
  expect(cpu.get('rax') - before).toBeLessThanOrEqual(1n);
  expect(cpu.run({ count: 3001 })).toEqual({ kind: 'limit' });
  expect(cpu.instructions - 20_000_000n).toBeLessThanOrEqual(3004n);
});

test.each(TIERS)('the guest’s own page tables work, and its page faults are exceptions (tier %s)', async (tier) => {
  // MOV CR3, RAX; MOV EAX, CR0; OR EAX, 1 << 31; MOV CR0, RAX; then a load through the tables
  const code = [0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0, 0x8b, 0x0c, 0x25, ...le32(0x40_0000), HLT];
  const cpu = await machine(code, { tier });
  cpu.map(0x1000, 0x4000, 'rw');
  const put = (at: number, v: bigint) => cpu.write(at, new Uint8Array(BigUint64Array.of(v).buffer));
  put(0x1000, 0x2003n);
  put(0x2000, 0x3003n);
  put(0x3000, 0x83n);
  put(0x3008, 0x83n);
  put(0x3010, 0x4003n);
  put(0x4000, BigInt(DATA) | 3n);
  cpu.write(DATA, [9]);
  cpu.set('rax', 0x1000);
  expect(cpu.run({ until: CODE + code.length - 1 })).toMatchObject({ kind: 'until' });
  expect(cpu.get('rcx')).toBe(9n);
  put(0x4000, 0n);
  cpu.set('cr3', 0x1000);
  cpu.set('rip', CODE + 14);
  expect(cpu.run()).toEqual({ kind: 'exception', vector: 14, error: 0, address: 0x40_0000n, rip: BigInt(CODE + 14) });
});

test('registers hold what they are given, at their width', async () => {
  const cpu = await create({ cpu: 'v3' });
  const cases = { r15: 2n ** 64n - 1n, xmm3: 2n ** 128n - 5n, ymm15: 2n ** 255n + 7n, st0: 0x3fff_8000_0000_0000_0000n, mxcsr: 0x1fa0n, cr8: 5n } as const;
  for (const [name, value] of Object.entries(cases)) {
    cpu.set(name as 'r15', value);
    expect(cpu.get(name as 'r15'), name).toBe(value);
  }
  cpu.set('rax', -1);
  expect(cpu.get('rax')).toBe(2n ** 64n - 1n);
  cpu.set('rflags', 0x8d7n);
  expect(cpu.get('rflags')).toBe(0x8d7n);
  cpu.setMsr(0xc000_0100, 0x1234n);
  expect(cpu.getMsr(0xc000_0100)).toBe(0x1234n);
  expect(cpu.segment('fs').base).toBe(0x1234n);
  expect(cpu.get('rax')).toBe(2n ** 64n - 1n);
});

test('a state can be put back, and the program then runs the same way again', async () => {
  const cpu = await machine([...loop(100), HLT]);
  cpu.run({ count: 50 });
  const state = cpu.state();
  cpu.run();
  const end = [cpu.get('rax'), cpu.get('rflags')];
  cpu.restore(state);
  expect(cpu.get('rax')).toBe(17n);
  cpu.run();
  expect([cpu.get('rax'), cpu.get('rflags')]).toEqual(end);
});

test.each<[string, (cpu: Cpu) => unknown, RegExp]>([
  ['mapping what is mapped', (cpu) => cpu.map(CODE, 4096), /is mapped already/],
  ['an address in a page', (cpu) => cpu.map(1, 4096), /multiples of 4096/],
  ['half a page', (cpu) => cpu.map(0, 100), /multiples of 4096/],
  ['no page', (cpu) => cpu.map(0, 0), /positive number/],
  ['unmapping what is not mapped', (cpu) => cpu.unmap(0, 4096), /is not mapped/],
  ['writable but not readable', (cpu) => cpu.map(0, 4096, 'w'), /permissions must be/],
  ['an unknown permission', (cpu) => cpu.protect(CODE, 4096, 'rq'), /permissions must be/],
  ['more memory than there is', (cpu) => cpu.map(0x1000_0000, 8 << 20), /'memory'/],
  ['an address that is not canonical', (cpu) => cpu.read(1n << 63n, 1), /not canonical/],
  ['a fraction', (cpu) => cpu.read(0.5, 1), /not an integer/],
  ['reading what is not mapped', (cpu) => cpu.read(CODE + 4090, 10), /0x101000 is not mapped/],
  ['a register that does not exist', (cpu) => cpu.get('rzx' as 'rax'), /no register/],
  ['a value that is too wide', (cpu) => cpu.set('rax', 1n << 64n), /64 bits/],
  ['a CR4 that the CPU refuses', (cpu) => cpu.set('cr4', 1n << 40n), /refuses/],
  ['an MSR that does not exist', (cpu) => cpu.getMsr(0x1234), /no MSR/],
  ['a negative count', (cpu) => cpu.run({ count: -1 }), /count must be/],
])('%s is refused', async (_, call, message) => {
  const cpu = await machine([HLT]);
  expect(() => call(cpu)).toThrow(CpuError);
  expect(() => call(cpu)).toThrow(message);
  expect(cpu.regions().length).toBe(3);
});

test('options that do not exist are refused', async () => {
  await expect(Cpu.create({ mode: 'long64' as 'long' })).rejects.toThrow(/mode must be 'long' or 'protected' or 'real'/);
  await expect(Cpu.create({ memory: 100 })).rejects.toThrow(/multiple of 4096/);
});

test('regions are joined, split by permissions, and their memory comes back', async () => {
  const cpu = await create({ memory: 64 << 10 });
  cpu.map(0, 64 << 10, 'rw');
  cpu.protect(0x4000, 0x1000, 'rx');
  expect(cpu.regions()).toEqual([
    { address: 0n, size: 0x4000, permissions: 'rw' },
    { address: 0x4000n, size: 0x1000, permissions: 'rx' },
    { address: 0x5000n, size: 0xb000, permissions: 'rw' },
  ]);
  cpu.write(0, [1]);
  cpu.unmap(0, 64 << 10);
  for (let i = 0n; i < 40n; i++) {
    cpu.map(i << 40n, 64 << 10, 'rw');
    expect(cpu.read(i << 40n, 1)[0]).toBe(0);
    cpu.unmap(i << 40n, 64 << 10);
  }
});

test('disassembly is Intel syntax, with bytes, to the end of memory', async () => {
  const cpu = await machine([...INC_RAX, ...load(0), 0x06, HLT]);
  expect(cpu.disassemble(CODE, 4).map((i) => i.text)).toEqual(['inc rax', 'mov eax,DWORD PTR ds:0x200000', '(bad)', 'hlt']);
  expect(cpu.disassemble(CODE + 4096 + 10)).toEqual([]);
});

test('runAsync lets the event loop turn, and ends when its signal is aborted', async () => {
  const cpu = await machine([0xeb, 0xfe], { tier: 'sync' });
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 20);
  expect(await cpu.runAsync({ signal: abort.signal })).toEqual({ kind: 'aborted' });
  expect(await cpu.runAsync({ count: 12_000_000 })).toEqual({ kind: 'limit' });
});

test('a hook cannot run its CPU, and one that throws ends the run at its instruction', async () => {
  const cpu = await machine([...load(0), HLT]);
  const off = cpu.onMemory({ address: DATA, size: 4 }, 'r', () => {
    cpu.run();
  });
  expect(() => cpu.run()).toThrow(/cannot run the CPU/);
  expect(cpu.get('rip')).toBe(BigInt(CODE));
  off();
  expect(cpu.run()).toEqual({ kind: 'hlt' });
});

test('a step is one instruction, REP with all its turns', async () => {
  const cpu = await machine([0xf3, 0xaa, ...INC_RAX, HLT]);
  cpu.map(0x80_0000, 1 << 20, 'rw');
  cpu.set('rdi', 0x80_0000);
  cpu.set('rcx', 1 << 20);
  expect(cpu.step()).toEqual({ kind: 'limit' });
  expect([cpu.get('rip'), cpu.get('rcx')]).toEqual([BigInt(CODE + 2), 0n]);
  expect(cpu.step()).toEqual({ kind: 'limit' });
  expect(cpu.step()).toEqual({ kind: 'hlt' });
});

test.each(TIERS)('a breakpoint in DR0 is #DB at its instruction (tier %s)', async (tier) => {
  const cpu = await machine([...loop(1000), HLT], { tier });
  cpu.set('dr0', CODE + 12);
  cpu.set('dr7', 1);
  expect(cpu.run()).toMatchObject({ kind: 'exception', vector: 1, rip: BigInt(CODE + 12) });
  expect(cpu.get('rax')).toBe(1000n);
  cpu.set('dr7', 0);
  expect(cpu.run()).toEqual({ kind: 'hlt' });
});

test('disposing ends the compiler’s thread', () => {
  const script = `
    import { Cpu } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)};
    const workers = [];
    process.on('worker', (w) => workers.push(w));
    const cpu = await Cpu.create({ memory: 1 << 20 });
    cpu.load(0x1000, [0xf4]);
    const { kind } = cpu.run();
    await cpu.dispose();
    console.log(kind, workers.map((w) => w.threadId));
  `;
  // -1 is the number of a thread that has ended.
  expect(execFileSync(process.execPath, ['-C', 'source', '--input-type=module', '-e', script], { encoding: 'utf8' }).trim()).toBe('hlt [ -1 ]');
});
