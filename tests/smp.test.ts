import { describe, expect, it } from 'vitest';
import { smpPath } from '../guests/src/index.ts';
import { createVm, DESIGN_NAMES, designInfo, type VmOptions } from '../packages/pvm/src/index.ts';
import { runStock } from '../packages/pvm/src/testing/stock-guest.ts';

/** What guests/smp says when all is well; it stops at the first check that fails. */
const paravirtual = ['ok the paravirtual clock is the same on all CPUs', 'ok paravirtual IPIs', 'ok kicks', 'ok steal time'];
const report = (vcpus: number, more = paravirtual) => [
  `${vcpus} CPUs`,
  'ok identity',
  'ok IPIs go to and fro',
  'ok IPIs by shorthand, logical destination and lowest priority',
  'ok NMIs',
  'ok locks and atomic instructions',
  'ok TLB shootdowns',
  'ok cross-modifying code',
  'ok code that each CPU changes',
  'ok TSCs in step',
  'ok a timer each',
  'ok IPIs wake CPUs from HLT',
  ...more,
  'ok INIT and start-up of running CPUs',
  'all passed',
  '',
];

async function run(vcpus: number, options: VmOptions) {
  const { result, serial, exits } = await runStock({ kernel: smpPath, vcpus, ...options });
  return { serial: serial.split('\n'), instructions: result.summary.instructions, stopReason: result.stopReason, exits };
}

describe.each(DESIGN_NAMES.filter((name) => designInfo(name).smp === true))('a machine with several vCPUs under %s', (design) => {
  it('passes its own checks, in the same way interpreted and compiled', async () => {
    const interpreted = await run(4, { design });
    expect(interpreted.serial).toEqual(report(4));
    expect(interpreted.stopReason).toBe('poweroff');
    expect(await run(4, { design, jit: 'sync' })).toEqual(interpreted);
  });

  it("passes them on the host's clock", async () => {
    const { serial } = await run(3, { design, clock: 'host' });
    expect(serial).toEqual(report(3));
  });
});

/** Ascending numbers below `end`, by a linear congruential generator. */
function randomPlaces(seed: number, count: number, end: number): number[] {
  let word = seed;
  const places = Array.from({ length: count }, () => {
    word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((end * word) / 2 ** 32);
  });
  return places.sort((a, b) => a - b);
}

it.each([
  ['bare', 1],
  ['kvm-ept', 2],
  ['pvm', 3],
] as const)('goes on in the same way under %s after pauses at any places (seed %i)', async (design, seed) => {
  const whole = await run(3, { design });
  let serial = '';
  const onSerial = (chunk: Uint8Array) => {
    serial += Buffer.from(chunk).toString('latin1');
  };
  const vm = await createVm({ kernel: smpPath, vcpus: 3, design, jit: 'off', clock: 'icount', memory: '8M', onSerial });
  try {
    const saves = Promise.all(randomPlaces(seed, 15, Number(whole.instructions)).map((at) => vm.save({ at })));
    const { summary } = await vm.run();
    expect(await saves).toHaveLength(15);
    expect(serial.split('\n')).toEqual(whole.serial);
    expect(summary.instructions).toBe(whole.instructions);
  } finally {
    await vm.dispose();
  }
});

it("has nothing of KVM's interface when that is hidden", async () => {
  expect((await run(2, { kvmPv: false })).serial).toEqual(report(2, []));
});

it('passes the checks with two and with eight vCPUs', async () => {
  expect((await run(2, {})).serial).toEqual(report(2));
  expect((await run(8, {})).serial).toEqual(report(8));
});

describe('createVm refuses', () => {
  it.each([
    ['nine vCPUs', { kernel: smpPath, vcpus: 9 }, /vcpus: expected a whole number from 1 to 8, got 9/],
    ['several for a program', { program: 'x', vcpus: 2 }, /vcpus is for a stock kernel/],
  ] satisfies [string, VmOptions, RegExp][])('%s', async (_, options, message) => {
    await expect(createVm(options)).rejects.toThrow(message);
  });
});
