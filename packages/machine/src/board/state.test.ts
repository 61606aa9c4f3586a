import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StateReader, StateWriter } from '@pvm/cpu-jit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GuestRam } from '../ram.ts';
import { BoardFuzz, fuzzBoardOptions } from '../testing/board-fuzz.ts';
import { testBoard } from '../testing/test-board.ts';
import type { Board } from './board.ts';

/**
 * Fields that no snapshot has, by class: what a board is made of and made with, places in the host, and what only lives while a call lasts. A field that is neither here nor in its
 * object's `state` fails the test below.
 */
const WIRING: Readonly<Record<string, readonly string[]>> = {
  Board: ['vcpus', 'virtioTransport', 'virtioMmio'],
  ApicBus: ['eoiListeners'],
  Uart16550: ['base', 'onTaken'],
  SerialOutput: ['buffer', 'length', 'scheduled'],
  PciFunction: ['bars', 'writable', 'nextCapability', 'lastCapability'],
  VirtioPci: ['msixCapability', 'pciCapability'],
  VirtioMmio: ['base', 'size'],
  MsixTable: ['size', 'vectors'],
  BarWindow: ['index'],
  IoApic: ['base', 'size'],
  LocalApic: ['id'],
  Chip: ['isMaster'],
  TimerQueue: ['next', 'stale'],
  Virtqueue: ['maxSize'],
  // Connections end with the process; whether there were any is saved.
  VirtioVsock: ['guestCid', 'filling', 'control', 'listeners'],
  P9Server: ['room', 'handlers'],
  HostFolder: ['*'],
  // The file under an overlay is a part of the overlay.
  FileBackend: ['fd', 'size', 'readOnly'],
  MemoryBackend: ['readOnly'],
  OverlayBackend: ['readOnly'],
  FwCfg: ['items'],
};
const DEVICE_CONSTANTS = ['name', 'ports', 'deviceId', 'offered', 'serial'];

type Fields = Record<string, unknown>;

/** Every object of the machine, by reference from the board. Functions and guest RAM, which is saved as memory, are the ends. */
function objectsOf(root: object): object[] {
  const seen = new Set<object>();
  const queue: object[] = [root];
  for (let object = queue.pop(); object !== undefined; object = queue.pop()) {
    if (seen.has(object) || object instanceof GuestRam || ArrayBuffer.isView(object) || object instanceof Date) continue;
    seen.add(object);
    const inside = object instanceof Map ? [...object.values()] : object instanceof Set ? [...object] : Object.values(object);
    for (const value of inside) if (typeof value === 'object' && value !== null) queue.push(value);
  }
  return [...seen].filter((object) => object.constructor !== Object && !(object instanceof Map || object instanceof Set || Array.isArray(object)));
}

/** Changes what a field holds, where it is; returns how to undo it. Undefined: an object or a function, which is followed or is wiring. */
function change(object: Fields, name: string): (() => void) | undefined {
  const value = object[name];
  const set = (changed: unknown) => {
    object[name] = changed;
    return () => {
      object[name] = value;
    };
  };
  if (typeof value === 'number') return set(Number.isFinite(value) ? value + 1 : 5);
  if (typeof value === 'bigint') return set(value + 1n);
  if (typeof value === 'boolean') return set(!value);
  if (typeof value === 'string') return set(`${value}x`);
  if (value === undefined) return set(7);
  if (ArrayBuffer.isView(value) && value.byteLength > 0) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    const before = bytes[0] ?? 0;
    bytes[0] = before ^ 1;
    return () => {
      bytes[0] = before;
    };
  }
  if (value instanceof Map && ![...value.values()].some((v) => typeof v === 'object' || typeof v === 'function')) {
    value.set(123_456, 1);
    return () => void value.delete(123_456);
  }
  if (value instanceof Set) {
    value.add(123_456);
    return () => void value.delete(123_456);
  }
  if (Array.isArray(value) && !value.some((v) => typeof v === 'object')) {
    value.push(1);
    return () => void value.pop();
  }
  return undefined;
}

function isWiring(object: object, name: string): boolean {
  if (DEVICE_CONSTANTS.includes(name)) return true;
  for (let type = object.constructor; typeof type === 'function' && type.name !== ''; type = Object.getPrototypeOf(type)) {
    const list = WIRING[type.name];
    if (list !== undefined && (list.includes(name) || list.includes('*'))) return true;
  }
  return false;
}

/** What a save says, or the complaint of a value that no field may have: either way the field was looked at. */
function saved(board: Board): string {
  try {
    return Buffer.from(StateWriter.save(board)).toString('latin1');
  } catch (e) {
    return String(e);
  }
}

describe.each(['pci', 'mmio'] as const)('the state of a board with devices on %s', (virtio) => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'pvm-state-'));
    writeFileSync(join(folder, 'file'), 'contents');
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const newBoard = () => {
    const drives = [{ file: new Uint8Array(512) }, { file: new Uint8Array(1024), snapshot: true }];
    return testBoard({ ...fuzzBoardOptions(folder, virtio, () => undefined), drives, vcpus: 2 }, 4 << 20).board;
  };

  it('has every field of every device that can change', () => {
    const board = newBoard();
    board.serialInput(Uint8Array.of(1, 2, 3));
    const objects = objectsOf(board).filter((object) => !('readOnly' in object && object.readOnly === true));
    expect(objects.length).toBeGreaterThan(60);
    const forgotten = new Set<string>();
    let checked = 0;
    for (const object of objects) {
      for (const name of Object.keys(object)) {
        if (isWiring(object, name)) continue;
        const before = saved(board);
        const undo = change(object as Fields, name);
        if (undo === undefined) continue;
        checked++;
        if (saved(board) === before) forgotten.add(`${object.constructor.name}.${name}`);
        undo();
      }
    }
    expect([...forgotten].sort()).toEqual([]);
    expect(checked).toBeGreaterThan(400);
    board.dispose();
  });

  it('is the same after a restore, whatever a guest did before', () => {
    for (let seed = 1; seed <= 3; seed++) {
      const fuzz = new BoardFuzz(seed, virtio);
      for (let i = 0; i < 1200; i++) fuzz.step();
      const other = new BoardFuzz(seed, virtio);
      const state = StateWriter.save(fuzz.machine.board);
      StateReader.restore(other.machine.board, state);
      expect(Buffer.compare(StateWriter.save(other.machine.board), state)).toBe(0);
      fuzz.close();
      other.close();
    }
  });
});
