import type { CpuCore } from '@pvm/cpu-jit';
import { S_CR3 } from '@pvm/cpu-jit/layout';
import { describe, expect, it } from 'vitest';
import { smpPath } from '../../../guests/src/index.ts';
import { VMX_FRAMES } from './designs/vmx/controls.ts';
import { createVm, type Vm, type VmOptions } from './index.ts';

/** Every way to run an unmodified kernel on tables that the hypervisor keeps. */
const WAYS: readonly (readonly [name: string, VmOptions])[] = [
  ['kvm-ept', { design: 'kvm-ept' }],
  ['kvm-spt', { design: 'kvm-spt' }],
  ['kvm-spt without unsync', { design: 'kvm-spt', optimisations: { unsync: false } }],
  ['pvm, auto', { design: 'pvm', stock: 'auto' }],
  ['pvm, trap', { design: 'pvm', stock: 'trap' }],
];

/** A kernel that starts a second CPU and changes its tables on both; the first character it writes calls `onOutput`. */
async function run(way: VmOptions, onOutput: (core: CpuCore) => void = () => undefined): Promise<{ readonly serial: string; readonly exits: number }> {
  let serial = '';
  const onSerial = (chunk: Uint8Array) => {
    if (serial === '') onOutput(coreOf(vm));
    serial += Buffer.from(chunk).toString('latin1');
  };
  const vm = await createVm({
    kernel: smpPath,
    vcpus: 2,
    memory: '8M',
    shadowMemory: '1M',
    jit: 'off',
    clock: 'icount',
    checkMmu: 5,
    onSerial,
    ...way,
  });
  try {
    await vm.run();
    return { serial, exits: vm.ledger.totalExits };
  } finally {
    await vm.dispose();
  }
}

/** What a `Vm` does not show. */
function coreOf(vm: Vm): CpuCore {
  return (vm as unknown as { readonly core: CpuCore }).core;
}

/** Takes the last entry out of the tables that is there. */
function loseAnEntry({ u32, framePoolBase, framePoolFrames }: CpuCore): void {
  for (let word = ((framePoolBase + (framePoolFrames - VMX_FRAMES) * 4096) >>> 2) - 2; word >= framePoolBase >>> 2; word -= 2) {
    if (((u32[word] ?? 0) & 7) === 0) continue;
    u32[word] = 0;
    return;
  }
  throw new Error('the pool is empty');
}

/** Clears the accessed bit in the first entry of the tables of vCPU 0, which the hypervisor does not see. */
function changeUnseen(core: CpuCore): void {
  const at = core.ramBase + (core.u32[(core.cpuAddress(0) + S_CR3) >>> 2] ?? 0);
  core.u8[at] = (core.u8[at] ?? 0) & ~0x20;
}

const broken = (message: string) => ({ code: 'broken-mmu', message: expect.stringContaining(message) });

describe.each(WAYS)('the checks at exits, under %s', (_name, way) => {
  it('find nothing wrong in a run that is right', async () => {
    const { serial, exits } = await run({ ...way, checkMmu: 200 });
    expect(serial).toContain('all passed');
    expect(exits).toBeGreaterThan(600);
  });

  it('find an entry that was lost', async () => {
    await expect(run(way, loseAnEntry)).rejects.toMatchObject(broken('broken page tables: at exit'));
  });

  it.skipIf(way.design === 'kvm-ept')('find a table of the guest that they do not follow', async () => {
    await expect(run(way, changeUnseen)).rejects.toMatchObject(broken('shadow entry but the guest has none'));
  });
});

it('have nothing to look at under bare, which says so', async () => {
  await expect(createVm({ kernel: smpPath, checkMmu: true })).rejects.toThrow('design bare keeps no page tables');
});
