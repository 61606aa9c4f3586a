import { expect, it } from 'vitest';
import { Timeline } from './timeline.ts';

it('loses no exit when the run outgrows its intervals', () => {
  const timeline = new Timeline();
  const [a, b] = [timeline.series('HLT'), timeline.series('#PF')];
  for (let i = 0; i < 100; i++) timeline.add(a, i * 1e6);
  timeline.add(b, 5e9);
  const { widthInstructions, counts } = timeline.data();
  const sum = (name: string) => (counts[name] ?? []).reduce((x, y) => x + y, 0);
  expect([sum('HLT'), sum('#PF')]).toEqual([100, 1]);
  expect(counts['#PF']?.findIndex((n) => n > 0)).toBe(Math.floor(5e9 / widthInstructions));
  expect(counts['HLT']?.length).toBeLessThanOrEqual(256);
});

it('leaves out what had no exits', () => {
  const timeline = new Timeline();
  timeline.series('never');
  expect(timeline.data().counts).toEqual({});
});

it('puts what is too much into one series', () => {
  const timeline = new Timeline();
  for (let i = 0; i < 100; i++) timeline.add(timeline.series(`R${i}`), 0);
  const { counts } = timeline.data();
  expect(Object.keys(counts)).toHaveLength(64);
  expect(counts['other']).toEqual([37]);
});
