import { describe, expect, test } from 'vitest';
import { createVm, DESIGN_NAMES, designInfo, STOCK_CHOICES, type VmOptions } from '../packages/pvm/src/index.ts';
import { busyboxInitrd, debianKernel } from './debian.ts';

/** PVM_TEST_DEBIAN=1 boots the generic kernel as well, which takes as long again. */
const kernels = process.env['PVM_TEST_DEBIAN'] === '1' ? ['linux-image-cloud-amd64', 'linux-image-amd64'] : ['linux-image-cloud-amd64'];
const INIT = `#!/busybox sh
/busybox mkdir /proc /bin
/busybox --install /bin
export PATH=/bin PS1='pvm# '
mount -t proc proc /proc
exec sh
`;
const TYPED = ['uname -sr', 'ls /', 'grep -c ^processor /proc/cpuinfo', 'for i in 1 2 3; do echo $i | md5sum; done', 'sleep 0.1 && echo slept', 'poweroff -f'];

/** BusyBox asks where the cursor is when it is ready to read. */
const WHERE_IS_CURSOR = '\u001b[6n';
const PROMPT = `pvm# ${WHERE_IS_CURSOR}`;

/** Every way to run an unmodified kernel; the first is what the others are compared with. */
const ways = DESIGN_NAMES.filter((name) => designInfo(name).platforms.includes('pc')).flatMap((design): Partial<VmOptions>[] =>
  design === 'pvm' ? STOCK_CHOICES.map((stock) => ({ design, stock })) : [{ design }],
);
/** Compiling takes a second processor, which CI has other work for: the first is interpreted. */
const machines = ways.map((way, i): Partial<VmOptions> => ({ ...way, jit: i === 0 ? 'off' : 'on' }));

/** Boots to BusyBox' shell and types a command at each prompt. */
async function session(kernel: string, initrd: Uint8Array, machine: Partial<VmOptions>): Promise<string> {
  let serial = '';
  let prompted = Promise.withResolvers<void>();
  async function* keyboard() {
    for (const line of TYPED) {
      await prompted.promise;
      prompted = Promise.withResolvers();
      yield new TextEncoder().encode(`${line}\n`);
    }
  }
  const decoder = new TextDecoder();
  const vm = await createVm({
    kernel,
    initrd,
    // Where the kernel lies is chosen by its random numbers, and those depend on time.
    commandLine: 'console=ttyS0 nokaslr',
    clock: 'icount',
    stdin: keyboard(),
    onSerial: (chunk) => {
      serial += decoder.decode(chunk, { stream: true });
      if (serial.endsWith(PROMPT)) prompted.resolve();
    },
    ...machine,
  });
  try {
    expect((await vm.run()).stopReason).toBe('poweroff');
    return serial;
  } finally {
    await vm.dispose();
  }
}

/** The lines of a console in the order of their text: printk's time stamps, measured times, and the order of what happens at the same time do not count. */
function lines(serial: string): string[] {
  return serial
    .replaceAll(WHERE_IS_CURSOR, '')
    .replaceAll('\r', '')
    .replaceAll(/^\[ *\d+\.\d{6}\] /gm, '')
    .replaceAll(/audit\(\d+\.\d+:/g, 'audit(TIME:')
    .replaceAll(/sched offset of \d+ cycles/g, 'sched offset of N cycles')
    .replaceAll(/setting system clock to .*$/gm, 'setting system clock')
    .replaceAll(/Marking stable \(.*$/gm, 'Marking stable')
    .split('\n')
    .toSorted();
}

describe.each(kernels)('Debian %s boots to a shell', async (meta) => {
  const kernel = await debianKernel(meta);
  const initrd = await busyboxInitrd(INIT);
  if (kernel === undefined || initrd === undefined) {
    test.skip('skipped: its packages are not here and apt cannot fetch them', () => {});
    return;
  }
  let expected: string[] | undefined;
  test.each(machines)('with the same console under every design: $design $stock', { timeout: 900_000 }, async (machine) => {
    const serial = await session(kernel, initrd, machine);
    expected ??= lines(serial);
    expect(serial).toContain('\r\nslept\r\n');
    expect(lines(serial)).toEqual(expected);
  });
});
