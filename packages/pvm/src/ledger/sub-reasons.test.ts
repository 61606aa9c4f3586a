import { expect, it } from 'vitest';
import { errorClass, exitClass } from './sub-reasons.ts';

it.each([
  ['#PF', 'shadow', '#PF shadow'],
  ['EXCEPTION_NMI', '#PF shadow', '#PF shadow'],
  ['#UD', '', '#UD'],
  ['EXCEPTION_NMI', '#UD', '#UD'],
  ['EPT_VIOLATION', 'mmio', 'EPT_VIOLATION mmio'],
  ['HYPERCALL', 'LOAD_PGTBL', 'HYPERCALL'],
])('charts call the exit %s %s "%s"', (reason, sub, name) => {
  expect(exitClass(reason, sub)).toBe(name);
});

it.each([
  [14, 0b00110, 'write, not present, user'],
  [14, 0b00001, 'read, protection, kernel'],
  [14, 0b10101, 'fetch, protection, user'],
  [14, 0b01011, 'write, reserved bit, kernel'],
  [14, 0b100101, 'read, protection key, user'],
  [13, 0, ''],
  [13, 0x33 * 8 + 2, 'IDT selector'],
  [11, 0x28, 'GDT selector'],
  [13, 0x2d, 'LDT selector, external'],
  [6, 0, ''],
])('vector %d with error code %d is "%s"', (vector, error, name) => {
  expect(errorClass(vector, error)).toBe(name);
});
