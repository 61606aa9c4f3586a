import { describe, expect, test } from 'vitest';
import { createVm, STOCK_CHOICES, type VmOptions } from '../packages/pvm/src/index.ts';
import { busyboxInitrd, debianKernel } from './debian.ts';

/** Minutes of computing: only on request. What CI boots is in debian-console.test.ts. */
const isWanted = process.env['PVM_TEST_DEBIAN'] === '1';

async function needed<T>(what: Promise<T | undefined>): Promise<T> {
  const found = await what;
  if (found === undefined) throw new Error('PVM_TEST_DEBIAN=1 asks for packages that are not here and that apt cannot fetch');
  return found;
}

const INIT = `#!/busybox sh
/busybox mkdir /proc /bin
/busybox --install /bin
export PATH=/bin
mount -t proc proc /proc
echo INIT REACHED
uname -r
sleep 1
gzip -1 < /busybox | gunzip | sha256sum
sha256sum < /busybox
dmesg | grep -iE 'BUG:|WARNING:|unstable|oops|soft lockup' && echo TROUBLE
read line && echo "read $line"
poweroff -f
`;

async function boot(image: string, options: VmOptions): Promise<{ serial: string; stopReason: string; instructions: bigint }> {
  const decoder = new TextDecoder();
  let serial = '';
  const vm = await createVm({
    kernel: image,
    initrd: await needed(busyboxInitrd(INIT)),
    commandLine: 'console=ttyS0',
    clock: 'icount',
    onSerial: (chunk) => {
      serial += decoder.decode(chunk, { stream: true });
    },
    stdin: 'typed\n',
    ...options,
  });
  try {
    const { stopReason, summary } = await vm.run();
    return { serial, stopReason, instructions: summary.instructions };
  } finally {
    await vm.dispose();
  }
}

function check({ serial, stopReason }: { readonly serial: string; readonly stopReason: string }): void {
  expect(stopReason).toBe('poweroff');
  expect(serial).toContain('INIT REACHED');
  expect(serial).not.toContain('TROUBLE');
  const sums = [...serial.matchAll(/^[0-9a-f]{64}/gm)].map((m) => m[0]);
  expect(sums).toHaveLength(2);
  expect(sums[0]).toBe(sums[1]);
  expect(serial).toContain('read ');
}

describe.skipIf(!isWanted).each(['linux-image-cloud-amd64', 'linux-image-amd64'])('Debian %s (PVM_TEST_DEBIAN=1)', (meta) => {
  test('boots to user space, computes, sleeps, reads its console and powers off; the same run with and without the compiler', {
    timeout: 900_000,
  }, async () => {
    const image = await needed(debianKernel(meta));
    const compiled = await boot(image, { jit: 'on' });
    check(compiled);
    const interpreted = await boot(image, { jit: 'off' });
    expect(interpreted).toEqual(compiled);
  });

  test.each(STOCK_CHOICES)('does so under design pvm as well, as %s', { timeout: 900_000 }, async (stock) => {
    check(await boot(await needed(debianKernel(meta)), { design: 'pvm', stock }));
  });
});
