import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { IdleCollector } from './idle-collector.ts';

/** Nothing holds what it refers to. */
const garbage = () => new WeakRef({ of: 'a compilation' });

test('garbage goes a second after the last work, not before', async () => {
  const collector = new IdleCollector();
  const left = garbage();
  collector.idle();
  await sleep(600);
  collector.busy();
  await sleep(600);
  expect(left.deref()).toBeDefined();
  collector.idle();
  // In another turn of the event loop: what `deref` gave lives until the end of its own.
  await sleep(1500);
  expect(left.deref()).toBeUndefined();
});
