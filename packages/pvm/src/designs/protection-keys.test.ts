import { S_CR2, S_CR4 } from '@pvm/cpu-jit/layout';
import { describe, expect, it } from 'vitest';
import { map, NativeGuest } from '../testing/native-guest.ts';

/** Protection keys (SDM vol. 3, 5.6.2): the page after the first of user code has key 5. */
const KEY = 5n;
const PAGE = map.user + 0x1000;
const PTE = 0x4000 + 8 * (PAGE >> 12);
const le = (value: bigint | number, bytes: number): string =>
  Buffer.from(
    BigInt(value)
      .toString(16)
      .padStart(2 * bytes, '0'),
    'hex',
  )
    .reverse()
    .toString('hex');

/** mov %cr4,%rax; bts $22,%rax; mov %rax,%cr4 */
const ENABLE = '0f20e0480fbae8160f22e0';
/** push $0x23; push $0x10f000; push $0x202; push $0x2b; push $0x100000; iretq */
const TO_USER = '6a236800f0100068020200006a2b680000100048cf';
/** mov $pkru,%eax; xor %ecx,%ecx; xor %edx,%edx; wrpkru */
const wrpkru = (pkru: number) => `b8${le(pkru, 4)}31c931d20f01ef`;
/** mov (page),%rbx; mov %rbx,(page); jmp *%rdx to the page, which does what ends the test. */
const ACCESS = { read: `488b1c25${le(PAGE, 4)}`, write: `48891c25${le(PAGE, 4)}`, fetch: `ba${le(PAGE, 4)}ffe2` } as const;
/** ud2: the access was allowed. */
const DONE = '0f0b';
const [UD, GP, PF] = [6, 13, 14];
/** Access-disable and write-disable of a key in PKRU. */
const ad = (key: bigint) => 1 << Number(2n * key);
const wd = (key: bigint) => 2 << Number(2n * key);

/** Rights, access, and the error code of the #PF: P 1, W 2, U 4, PK 32; undefined: none. */
const USER: readonly (readonly [rights: string, pkru: number, access: keyof typeof ACCESS, error: number | undefined])[] = [
  ['all rights', 0, 'read', undefined],
  ['all rights', 0, 'write', undefined],
  ['no right to write', wd(KEY), 'read', undefined],
  ['no right to write', wd(KEY), 'write', 0x27],
  ['no right at all', ad(KEY), 'read', 0x25],
  ['no right at all', ad(KEY), 'write', 0x27],
  ['no right at all', ad(KEY), 'fetch', undefined],
  ['no right to another key', ad(KEY - 1n) | wd(KEY + 1n), 'write', undefined],
];
const KERNEL: typeof USER = [
  ['no right to write', wd(KEY), 'read', undefined],
  ['no right to write', wd(KEY), 'write', 0x23],
  ['no right at all', ad(KEY), 'read', 0x21],
  ['no right at all', ad(KEY), 'fetch', undefined],
];

/** The vector whose handler the guest halts in, and for a #PF its error code. */
async function outcome(design: 'bare' | 'kvm-ept' | 'kvm-spt' | 'pvm', jit: 'off' | 'sync', kernel: string, user: string) {
  const guest = await NativeGuest.create({ design, jit, ...(design === 'pvm' ? { stock: 'auto' } : {}) });
  guest.startKernel(kernel).put(map.user, user).put(PAGE, DONE);
  guest.put(PTE, le((KEY << 59n) | BigInt(PAGE) | 7n, 8));
  guest.run();
  const { core, ram } = guest;
  const vector = (Number(core.getRip(0)) - map.handlers) >> 5;
  // The privilege that the fault came from decides about the stack.
  const isUser = kernel.endsWith(TO_USER);
  const stack = isUser ? map.kernelStack : map.stack;
  const error = Number(ram.view.getBigUint64(stack - 48, true));
  const cr2 = core.view.getBigUint64(core.cpuAddress(0) + S_CR2, true);
  return { vector, ...(vector === PF ? { error, cr2 } : {}), cr4: core.view.getBigUint64(core.cpuAddress(0) + S_CR4, true) };
}
const expected = (error: number | undefined) => (error === undefined ? { vector: UD } : { vector: PF, error, cr2: BigInt(PAGE) });

describe.each(['bare', 'kvm-ept'] as const)('protection keys under %s', (design) => {
  describe.each(['off', 'sync'] as const)('(JIT %s)', (jit) => {
    it.each(USER)('user code with %s (PKRU %i): %s', async (_, pkru, access, error) => {
      expect(await outcome(design, jit, ENABLE + TO_USER, wrpkru(pkru) + ACCESS[access] + DONE)).toMatchObject(expected(error));
    });
    it.each(KERNEL)('the kernel at a user page with %s (PKRU %i): %s', async (_, pkru, access, error) => {
      expect(await outcome(design, jit, ENABLE + wrpkru(pkru) + ACCESS[access] + DONE, '')).toMatchObject(expected(error));
    });
    it('a page that was just read is refused after WRPKRU', async () => {
      const user = wrpkru(0) + ACCESS.read + wrpkru(ad(KEY)) + ACCESS.read + DONE;
      expect(await outcome(design, jit, ENABLE + TO_USER, user)).toMatchObject(expected(0x25));
    });
    it('keys mean nothing, and WRPKRU is undefined, before CR4.PKE is set', async () => {
      expect(await outcome(design, jit, TO_USER, ACCESS.write + DONE)).toMatchObject({ vector: UD });
      expect(await outcome(design, jit, TO_USER, wrpkru(ad(KEY)))).toMatchObject({ vector: UD });
    });
  });
});

it.each(['kvm-spt', 'pvm'] as const)('under %s, whose shadow tables have no keys, CR4.PKE cannot be set', async (design) => {
  const { vector, cr4 } = await outcome(design, 'off', ENABLE + TO_USER, DONE);
  expect(vector).toBe(GP);
  expect((cr4 >> 22n) & 1n).toBe(0n);
});
