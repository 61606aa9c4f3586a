import { expect, it } from 'vitest';
import { InputLine } from './input-line.ts';

const tick = () => new Promise((resolve) => setImmediate(resolve));

it('reads no faster than the guest takes, and loses nothing', async () => {
  let given = 0;
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < 64; i++) {
      given += 4096;
      yield new Uint8Array(4096).fill(i);
    }
  }
  let waiting: number[] = [];
  const taken: number[] = [];
  const line = new InputLine(source(), { put: (data) => void waiting.push(...data), waiting: () => waiting.length });
  const done = line.run();
  await tick();
  expect(given).toBeLessThanOrEqual(8192);
  while (taken.length < 64 * 4096) {
    taken.push(...waiting.slice(0, 1500));
    waiting = waiting.slice(1500);
    line.taken();
    await tick();
    expect(waiting.length).toBeLessThanOrEqual(4096 + 1024);
  }
  await done;
  expect(taken.filter((byte, i) => byte !== i >> 12)).toEqual([]);
});

it('ends when it is closed, whether it waits for the source or for the guest', async () => {
  const never: AsyncIterable<Uint8Array> = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) };
  const idle = new InputLine(never, { put: () => undefined, waiting: () => 0 });
  void idle.run();
  await idle.close();
  const full = new InputLine(new Uint8Array(10_000), { put: () => undefined, waiting: () => 5000 });
  const done = full.run();
  await tick();
  await full.close();
  await done;
});

it('passes the error of its source on', async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(1);
    throw new Error('unplugged');
  }
  await expect(new InputLine(broken(), { put: () => undefined, waiting: () => 0 }).run()).rejects.toThrow('unplugged');
});
