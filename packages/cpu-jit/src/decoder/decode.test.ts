import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type CodeSize, createDecoder, decode, formatInsn, formKey, forms, type Insn, rows } from './index.ts';

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}

function decodeHex(hex: string, codeSize: CodeSize = 64): ReturnType<typeof decode> {
  const bytes = bytesOf(hex);
  return decode(bytes, 0, bytes.length, codeSize);
}

/** The instruction these bytes are; fails the test if they are none or longer than it. */
function insnOf(hex: string, codeSize: CodeSize = 64): Insn {
  const insn = decodeHex(hex, codeSize);
  if (typeof insn === 'string') throw new Error(`${hex}: ${insn}`);
  expect(insn.length).toBe(bytesOf(hex).length);
  return insn;
}

/** Marsaglia's xorshift32. */
function generator(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

describe('decode', () => {
  // One instruction per row and register/memory form; written by scripts/decoder-vs-objdump.ts from GNU objdump 2.40.
  const samples = readFileSync(new URL('./testdata/objdump-64.txt', import.meta.url), 'utf8')
    .trim()
    .split('\n');
  it('agrees with objdump on an instruction of every kind', () => {
    expect(samples.length).toBeGreaterThan(1300);
    for (const line of samples) {
      const [address = '', hex = '', ...words] = line.split(' ');
      const text = words.join(' ');
      const ours = formatInsn(insnOf(hex), BigInt(`0x${address}`)).replace(/^(?:lock |repn?z |rep )/, '');
      expect(`${hex} ${ours}`).toBe(`${hex} ${text}`);
    }
  });

  it.each([
    // REX counts only right before the opcode.
    ['48 66 89 c0', 'mov ax,ax'],
    ['66 48 89 c0', 'mov rax,rax'],
    // The last of F2 and F3 is the mandatory one, and both win over 66.
    ['f2 f3 0f 10 c1', 'movss xmm0,xmm1'],
    ['f3 f2 0f 10 c1', 'movsd xmm0,xmm1'],
    ['66 f3 0f 10 c1', 'movss xmm0,xmm1'],
    ['66 0f 10 c1', 'movupd xmm0,xmm1'],
    // ...where they have a meaning; 66 is then the operand size.
    ['66 f3 0f b8 c1', 'popcnt ax,cx'],
    ['66 f2 0f 38 f1 c1', 'crc32 eax,cx'],
    ['f3 0f bd c1', 'lzcnt eax,ecx'],
    ['f2 0f bd c1', 'bsr eax,ecx'],
    // NOP, PAUSE, XCHG.
    ['90', 'nop'],
    ['66 90', 'nop'],
    ['f3 90', 'pause'],
    ['41 90', 'xchg r8d,eax'],
    ['49 90', 'xchg r8,rax'],
    ['91', 'xchg ecx,eax'],
    ['f3 0f 1e fa', 'endbr64'],
    ['f3 0f 1e c8', 'nop eax'],
    // Byte registers with and without REX.
    ['88 e0', 'mov al,ah'],
    ['40 88 e0', 'mov al,spl'],
    ['44 88 e0', 'mov al,r12b'],
    ['b7 12', 'mov bh,0x12'],
    ['40 b7 12', 'mov dil,0x12'],
    // Addresses.
    ['8b 05 10 00 00 00', 'mov eax,DWORD PTR [rip+0x10]'],
    ['67 8b 05 10 00 00 00', 'mov eax,DWORD PTR [eip+0x10]'],
    ['41 8b 05 10 00 00 00', 'mov eax,DWORD PTR [rip+0x10]'],
    ['8b 04 25 00 f0 ff ff', 'mov eax,DWORD PTR ds:0xfffffffffffff000'],
    ['8b 04 24', 'mov eax,DWORD PTR [rsp]'],
    ['42 8b 04 20', 'mov eax,DWORD PTR [rax+r12*1]'],
    ['41 8b 45 00', 'mov eax,DWORD PTR [r13]'],
    ['43 8b 04 6d 08 00 00 00', 'mov eax,DWORD PTR [r13*2+0x8]'],
    ['64 8b 45 08', 'mov eax,DWORD PTR fs:[rbp+0x8]'],
    ['3e 8b 45 08', 'mov eax,DWORD PTR [rbp+0x8]'],
    ['65 48 a1 28 00 00 00 00 00 00 80', 'mov rax,QWORD PTR gs:0x8000000000000028'],
    ['67 a0 00 00 00 80', 'mov al,BYTE PTR ds:0x80000000'],
    // Operand sizes of the stack and of branches.
    ['50', 'push rax'],
    ['66 50', 'push ax'],
    ['66 48 50', 'push rax'],
    ['6a ff', 'push 0xffffffffffffffff'],
    ['66 e8 00 00 00 00', 'call .+0x6'],
    ['66 c3', 'ret'],
    ['c8 10 00 01', 'enter 0x10,0x1'],
    ['67 e3 fe', 'jecxz .+0x1'],
    ['eb fd', 'jmp .-0x1'],
    // Immediates.
    ['48 83 e4 f0', 'and rsp,0xfffffffffffffff0'],
    ['48 c7 c0 ff ff ff ff', 'mov rax,0xffffffffffffffff'],
    ['48 b8 88 77 66 55 44 33 22 11', 'mov rax,0x1122334455667788'],
    ['66 b8 34 12', 'mov ax,0x1234'],
    // Strings.
    ['f3 48 a5', 'rep movsq'],
    ['f2 a4', 'rep movsb'],
    ['f2 ae', 'repnz scasb'],
    ['f3 66 a7', 'repz cmpsw'],
    // ModRM.mod of MOV CR is ignored.
    ['0f 20 18', 'mov rax,cr3'],
    ['44 0f 22 c0', 'mov cr8,rax'],
    ['f0 48 0f c7 0e', 'lock cmpxchg16b XMMWORD PTR [rsi]'],
    ['c4 e2 f1 f7 c3', 'shlx rax,rbx,rcx'],
  ])('%s is %s', (hex, text) => {
    expect(formatInsn(insnOf(hex))).toBe(text);
  });

  it.each([
    ['60', 'pusha', 32],
    ['c4 00', 'les eax,FWORD PTR [eax]', 32],
    ['c4 e2 70 f2 c2', 'andn eax,ecx,edx', 32],
    ['9a 78 56 34 12 10 00', 'call 0x10:0x12345678', 32],
    ['ea 34 12 00 f0', 'jmp 0xf000:0x1234', 16],
    ['40', 'inc ax', 16],
    ['66 40', 'inc eax', 16],
    ['8b 42 fe', 'mov ax,WORD PTR [bp+si-0x2]', 16],
    ['67 8b 04 24', 'mov ax,WORD PTR [esp]', 16],
    ['a1 34 12', 'mov ax,WORD PTR ds:0x1234', 16],
    ['26 8b 07', 'mov ax,WORD PTR es:[bx]', 16],
    ['0f 22 c0', 'mov cr0,eax', 16],
    ['0f 01 16 34 12', 'lgdt ds:0x1234', 16],
    ['63 c8', 'arpl ax,cx', 32],
    ['8b 05 10 00 00 00', 'mov eax,DWORD PTR ds:0x10', 32],
  ] as const)('%s is %s in %d-bit code', (hex, text, codeSize) => {
    expect(formatInsn(insnOf(hex, codeSize))).toBe(text);
  });

  it.each([
    ['06', 'PUSH ES in 64-bit code'],
    ['ea 00 00 00 00 00 00', 'JMP far in 64-bit code'],
    ['f0 01 c0', 'LOCK with a register destination'],
    ['f0 39 08', 'LOCK CMP'],
    ['f0 8b 08', 'LOCK MOV'],
    ['f0 90', 'LOCK NOP'],
    ['f0 03 08', 'LOCK with a register destination and a memory source'],
    ['8e c8', 'MOV to CS'],
    ['8c f0', 'MOV from segment register 6'],
    ['0f 20 c8', 'MOV from CR1'],
    ['44 0f 21 c0', 'MOV from DR8'],
    ['8d c0', 'LEA of a register'],
    ['f3 0f 54 c0', 'ANDPS with F3'],
    ['66 0f c3 08', 'MOVNTI with 66'],
    ['40 c4 e2 70 f2 c2', 'REX before VEX'],
    ['66 c4 e2 70 f2 c2', '66 before VEX'],
    ['c4 e2 74 f2 c2', 'ANDN with VEX.L = 1'],
    ['c4 e3 73 f0 c2 01', 'RORX with VEX.vvvv in use'],
    ['f2 0f c7 f0', 'RDRAND with F2'],
    ['f3 0f 38 f0 10', 'MOVBE with F3'],
    ['0f 04', 'an opcode nobody uses'],
    ['c6 c8 00', '/1 of group 11'],
  ])('%s is #UD: %s', (hex) => {
    expect(decodeHex(hex)).toBe('ud');
  });

  it('wants VEX.vvvv to be all ones in 32-bit code too where it names no register', () => {
    expect(decodeHex('c4 e3 7b f0 c0 05', 32)).toMatchObject({ length: 6 });
    expect(decodeHex('c4 e3 3b f0 c0 05', 32)).toBe('ud');
    expect(decodeHex('c4 e2 38 f2 c0', 32)).toMatchObject({ vvvv: 0 });
  });

  it('refuses instructions longer than 15 bytes', () => {
    expect(insnOf(`${'2e'.repeat(11)} 8b 44 24 08`).length).toBe(15);
    expect(decodeHex(`${'2e'.repeat(12)} 8b 44 24 08`)).toBe('gp');
    expect(decodeHex('66'.repeat(15))).toBe('gp');
    expect(decodeHex('66'.repeat(14))).toBe('fetch');
  });

  it('leaves out instructions of features the processor lacks', () => {
    const old = createDecoder({ features: new Set(['sse3']) });
    const names = ['f30fbdc1', 'f30fb8c1', '0f38f000', 'f20ff000']
      .map((hex) => old(bytesOf(hex), 0, 15, 64))
      .map((i) => (typeof i === 'string' ? i : i.row.name));
    expect(names).toEqual(['bsr', 'ud', 'ud', 'lddqu']);
  });

  it('gives the segment of the implicit operand of string instructions', () => {
    expect(insnOf('a4').seg).toBe(3);
    expect(insnOf('65 a4')).toMatchObject({ seg: 5, mem: null });
    expect(insnOf('2e a4', 32).seg).toBe(1);
    expect(insnOf('64 d7').seg).toBe(4);
  });
});

describe('random bytes', () => {
  const random = generator(2024);
  const bytes = new Uint8Array(16);
  const known = new Map<CodeSize, Set<number>>();
  for (const codeSize of [16, 32, 64] as const) known.set(codeSize, new Set([...forms(codeSize)].map(formKey)));

  it('never throw, a million of them', () => {
    const stream = new Uint8Array(1 << 20);
    for (let i = 0; i < stream.length; i++) stream[i] = random(256);
    const outcomes = new Set<string>();
    for (let at = 0; at < stream.length; at++) {
      const codeSize = ([16, 32, 64] as const)[at % 3] ?? 64;
      const insn = decode(stream, at, at % 5 === 0 ? 1 + (at % 15) : 15, codeSize);
      if (typeof insn === 'string') outcomes.add(insn);
      else if (insn.length > 15 || formatInsn(insn, BigInt(at)) === '') throw new Error(`at ${at}: ${insn.length} bytes of ${insn.row.name}`);
    }
    expect([...outcomes].sort()).toEqual(['fetch', 'ud']);
  });

  it('decode without an exception, to forms that forms() lists, and need exactly their length', () => {
    for (let i = 0; i < 60_000; i++) {
      for (let j = 0; j < 16; j++) bytes[j] = random(256);
      if (random(2) === 0) bytes[random(3)] = 0x0f;
      const codeSize = ([16, 32, 64] as const)[i % 3] ?? 64;
      const insn = decode(bytes, 0, 16, codeSize);
      if (typeof insn === 'string') continue;
      if (insn.length > 15) throw new Error(`${formatInsn(insn)} is ${insn.length} bytes long`);
      if (!known.get(codeSize)?.has(formKey(insn))) throw new Error(`${formatInsn(insn)} (${codeSize}-bit) is of no listed form`);
      formatInsn(insn, 0n);
      if (decode(bytes, 0, insn.length - 1, codeSize) !== 'fetch') throw new Error(`${formatInsn(insn)} needs less than its length`);
      if (i % 16 === 0) expect(decode(bytes, 0, insn.length, codeSize)).toEqual(insn);
    }
  });
});

describe('tables', () => {
  it('give every form a number of its own', () => {
    const keys = [...forms()].map(formKey);
    expect(new Set(keys).size).toBe(keys.length);
    expect(Math.max(...keys)).toBeLessThan(rows.length * 128);
  });
  it('say that an operand named M or O is memory, never a register', () => {
    for (const row of rows) {
      if (row.operands.some((o) => o.startsWith('M'))) expect([row.name, row.mod]).toEqual([row.name, 'mem']);
      if (row.operands.some((o) => /^[RUN]/.test(o)) && !row.name.startsWith('mov_')) expect([row.name, row.mod]).toEqual([row.name, 'reg']);
    }
  });
  it('allow LOCK only where the first operand may be memory', () => {
    for (const row of rows) if (row.lock) expect(row.operands[0]).toMatch(/^[EM]/);
  });
});
