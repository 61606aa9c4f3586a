/** Machine code for tests of the ABI: just the instructions they need, by their SDM encodings. */

/** General registers in encoding order. */
const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const;
export type RegisterName = (typeof REGISTERS)[number];

/** Encoding number of a register. */
export function number(name: RegisterName): number {
  return REGISTERS.indexOf(name);
}

function bytes(value: bigint, size: number): number[] {
  return Array.from({ length: size }, (_, i) => Number((BigInt.asUintN(64, value) >> BigInt(8 * i)) & 0xffn));
}

/** MOV r64, imm64. */
export function mov(to: RegisterName, value: bigint | number): number[] {
  const n = number(to);
  return [0x48 | (n >> 3), 0xb8 | (n & 7), ...bytes(BigInt(value), 8)];
}
/** MOV r64, r64. */
export function movReg(to: RegisterName, from: RegisterName): number[] {
  const [t, f] = [number(to), number(from)];
  return [0x48 | ((f >> 3) << 2) | (t >> 3), 0x89, 0xc0 | ((f & 7) << 3) | (t & 7)];
}
/** MOV RAX, [moffs64] and MOV [moffs64], RAX. */
export function load(address: bigint | number): number[] {
  return [0x48, 0xa1, ...bytes(BigInt(address), 8)];
}
export function store(address: bigint | number): number[] {
  return [0x48, 0xa3, ...bytes(BigInt(address), 8)];
}
/** MOV AL, [moffs64]. */
export function load8(address: bigint | number): number[] {
  return [0xa0, ...bytes(BigInt(address), 8)];
}
/** JMP rel8 back over `length` bytes, its own two included; JMP RAX; DEC RBP and JNZ over the same distance. */
export function loopBack(length: number): number[] {
  return [0x48, 0xff, 0xcd, 0x75, 0x100 - length - 5];
}
export const jmpRax = [0xff, 0xe0];
/** MOV CRn, RAX and MOV RAX, CRn. */
export function setCr(n: number): number[] {
  return [...(n >= 8 ? [0x44] : []), 0x0f, 0x22, 0xc0 | ((n & 7) << 3)];
}
export function getCr(n: number): number[] {
  return [...(n >= 8 ? [0x44] : []), 0x0f, 0x20, 0xc0 | ((n & 7) << 3)];
}
export const syscall = [0x0f, 0x05];
export const hlt = [0xf4];
export const ud2 = [0x0f, 0x0b];
export const cli = [0xfa];
export const sti = [0xfb];
export const int3 = [0xcc];
export const pushfq = [0x9c];
export const popfq = [0x9d];
export const popRax = [0x58];
export const pushRax = [0x50];
export const rdmsr = [0x0f, 0x32];
export const wrmsr = [0x0f, 0x30];
export const cpuid = [0x0f, 0xa2];
/** INVLPG [0xffffffffff4d5650]; CPUID. */
export const syntheticCpuid = [0x0f, 0x01, 0x3c, 0x25, 0x50, 0x56, 0x4d, 0xff, 0x0f, 0xa2];
export function int(vector: number): number[] {
  return [0xcd, vector];
}
/** RDGSBASE RAX. */
export const rdgsbase = [0xf3, 0x48, 0x0f, 0xae, 0xc8];
