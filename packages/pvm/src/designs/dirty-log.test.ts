import { fileURLToPath } from 'node:url';
import type { CpuCore } from '@pvm/cpu-jit';
import { describe, expect, it } from 'vitest';
import { createVm, type Vm, type VmOptions } from '../index.ts';
import { powerOff, start, stockKernel, word } from '../testing/stock-guest.ts';

const program = fileURLToPath(new URL('../../../../guests/demo/demo.elf', import.meta.url));
const MIB = 1 << 20;
/** MOV AL, [abs64] and MOV [abs64], AL or EAX. */
const load8 = (at: number): number[] => [0xa0, ...word(at, 8)];
const store8 = (at: number): number[] => [0xa2, ...word(at, 8)];
const store32 = (at: number): number[] => [0xa3, ...word(at, 8)];

const STOCK = [
  [{ design: 'kvm-ept' }, 'dirty-bit'],
  [{ design: 'kvm-ept' }, 'write-protect'],
  [{ design: 'kvm-spt' }, 'write-protect'],
  [{ design: 'pvm', stock: 'auto' }, 'write-protect'],
  [{ design: 'pvm', stock: 'trap' }, 'write-protect'],
] as const;

describe('the dirty log of a machine', () => {
  it.each(STOCK)('has the pages that a stock kernel wrote, and none that it read (%j, %s)', async (options, kind) => {
    const kernel = stockKernel([...start, ...store8(4 * MIB + 0x1000), ...load8(4 * MIB + 0x3000), ...store32(4 * MIB + 0x4ffe), ...powerOff]);
    await using vm = await createVm({ ...options, kernel, jit: 'off', clock: 'icount', memory: '16M' });
    vm.dirtyLog?.start(4 * MIB, 64 * 4096, kind);
    await vm.run();
    expect([...(vm.dirtyLog?.take() ?? [])]).toEqual([0b11_0010, 0]);
    expect([...(vm.dirtyLog?.take() ?? [])]).toEqual([0, 0]);
    vm.dirtyLog?.stop();
    expect(() => vm.dirtyLog?.take()).toThrow(/no dirty log is on/);
  });

  const PROGRAM: readonly VmOptions[] = [{ design: 'kvm-ept' }, { design: 'kvm-spt' }, { design: 'pvm', abi: 'v2' }, { design: 'pvm', abi: 'rfc-v1' }];
  it.each(PROGRAM)('has every page that is not what it was before a program ran, the tables and what the hypervisor writes too (%j)', async (options) => {
    await using vm = await createVm({ ...options, program, jit: 'off', clock: 'icount', memory: '32M', maxInstructions: 3_000_000 });
    const before = ram(vm).slice();
    vm.dirtyLog?.start(0, before.length);
    await vm.run();
    const dirty = vm.dirtyLog?.take() ?? new Uint32Array(0);
    const after = ram(vm);
    let changed = 0;
    for (let page = 0; page < before.length / 4096; page++) {
      const bytes = (of: Uint8Array) => Buffer.from(of.buffer, of.byteOffset + page * 4096, 4096);
      if (bytes(before).equals(bytes(after))) continue;
      changed++;
      expect(((dirty[page >>> 5] ?? 0) >>> (page & 31)) & 1, `page ${page}`).toBe(1);
    }
    const logged = dirty.reduce((n, word) => n + [...word.toString(2)].filter((bit) => bit === '1').length, 0);
    expect(changed).toBeGreaterThan(20);
    expect(logged).toBeLessThan(2 * changed);
  });

  it('of shadow tables knows write protection only, and bare has none', async () => {
    const kernel = stockKernel(powerOff);
    await using spt = await createVm({ kernel, design: 'kvm-spt', jit: 'off', memory: '16M' });
    expect(() => spt.dirtyLog?.start(0, 4096, 'dirty-bit')).toThrow(/by write protection only, not by dirty-bit/);
    await using bare = await createVm({ kernel, design: 'bare', jit: 'off', memory: '16M' });
    expect(bare.dirtyLog).toBeUndefined();
  });
});

/** Guest RAM, which a `Vm` does not show. */
function ram(vm: Vm): Uint8Array {
  const { core } = vm as unknown as { readonly core: CpuCore };
  return core.u8.subarray(core.ramBase, core.ramBase + core.ramBytes);
}
