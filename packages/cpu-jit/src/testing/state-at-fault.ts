import { Cpu } from '../api/index.ts';

const DATA = 0x20000;
const BYTES = 0x8000;

/** For tests: runs `L: body; jmp L` until a load at RDI walks off the mapped bytes, and says where all registers and flags are then. */
export async function stateAtFault(tier: 'interp' | 'sync', body: readonly number[]): Promise<unknown> {
  await using cpu = await Cpu.create({ tier });
  cpu.load(0x1000, [...body, 0xeb, -(body.length + 2) & 0xff]);
  cpu.map(DATA, BYTES);
  cpu.set('rdi', BigInt(DATA));
  cpu.set('rsi', BigInt(DATA + BYTES / 2));
  cpu.set('rcx', 12345n);
  const stop = cpu.run();
  const registers = (['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rip', 'rflags'] as const).map((name) => cpu.get(name));
  return { stop, registers, instructions: cpu.core.stats(0).instructions };
}
