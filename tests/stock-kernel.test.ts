import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { buildCpio } from '../packages/machine/src/index.ts';
import { createVm, STOCK_CHOICES, type VmOptions } from '../packages/pvm/src/index.ts';

/** Debian's packages come from its archive, and a boot takes a while: only on request. */
const isWanted = process.env['PVM_TEST_DEBIAN'] === '1' && existsSync('/usr/bin/apt-get');
const folder = join(tmpdir(), 'pvm-debian-packages');

/** Downloads a package once and unpacks it; returns the folder. */
function packageFiles(name: string): string {
  const target = join(folder, name);
  if (existsSync(target)) return target;
  mkdirSync(folder, { recursive: true });
  execFileSync('apt-get', ['download', name], { cwd: folder, stdio: 'ignore' });
  const archive = readdirSync(folder).find((file) => file.startsWith(`${name}_`) && file.endsWith('.deb'));
  if (archive === undefined) throw new Error(`apt-get downloaded nothing for ${name}`);
  execFileSync('dpkg-deb', ['-x', join(folder, archive), target]);
  return target;
}

/** The versioned package that a meta package stands for. */
function dependency(meta: string): string {
  const lines = execFileSync('apt-cache', ['depends', meta], { encoding: 'utf8' });
  const name = /Depends: (linux-image-\S+)/.exec(lines)?.[1];
  if (name === undefined) throw new Error(`${meta} has no kernel`);
  return name;
}

function kernel(meta: string): string {
  const boot = join(packageFiles(dependency(meta)), 'boot');
  const file = readdirSync(boot).find((name) => name.startsWith('vmlinuz-'));
  if (file === undefined) throw new Error(`${meta}: no kernel in the package`);
  return join(boot, file);
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
  const busybox = new Uint8Array(readFileSync(join(packageFiles('busybox-static'), 'bin/busybox')));
  const decoder = new TextDecoder();
  let serial = '';
  const vm = await createVm({
    kernel: image,
    initrd: buildCpio([
      { name: 'init', data: new TextEncoder().encode(INIT), mode: 0o755 },
      { name: 'busybox', data: busybox, mode: 0o755 },
    ]),
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
    const image = kernel(meta);
    const compiled = await boot(image, { jit: 'on' });
    check(compiled);
    const interpreted = await boot(image, { jit: 'off' });
    expect(interpreted).toEqual(compiled);
  });

  test.each(STOCK_CHOICES)('does so under design pvm as well, as %s', { timeout: 900_000 }, async (stock) => {
    check(await boot(kernel(meta), { design: 'pvm', stock }));
  });
});
