import { describe, expect, it } from 'vitest';
import { StdinReader } from './stdin.ts';

const text = async (piece: Uint8Array | Promise<Uint8Array>) => new TextDecoder().decode(await piece);

async function* chunks(...list: string[]): AsyncGenerator<Uint8Array> {
  for (const chunk of list) yield new TextEncoder().encode(chunk);
}

describe('standard input', () => {
  it('hands out at most what is asked for', async () => {
    const stdin = new StdinReader('hello');
    expect(await text(stdin.read(3))).toBe('hel');
    expect(await text(stdin.read(100))).toBe('lo');
    expect(await text(stdin.read(100))).toBe('');
  });

  it('gives what has arrived, skips empty chunks, and ends once', async () => {
    const stdin = new StdinReader(chunks('ab', '', 'cd'));
    expect(await text(stdin.read(1))).toBe('a');
    expect(await text(stdin.read(9))).toBe('b');
    expect(await text(stdin.read(9))).toBe('cd');
    expect(await text(stdin.read(9))).toBe('');
    expect(await text(stdin.read(9))).toBe('');
  });

  it('is closed at once even when nobody types', async () => {
    async function* silent(): AsyncGenerator<Uint8Array> {
      await new Promise(() => undefined);
      yield new Uint8Array(1);
    }
    const stdin = new StdinReader(silent());
    void stdin.read(1);
    await stdin.close();
  });

  it('lets go of its source when the machine stops', async () => {
    let closed = false;
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield new Uint8Array(1);
      } finally {
        closed = true;
      }
    }
    const stdin = new StdinReader(endless());
    await stdin.read(1);
    await stdin.close();
    expect(closed).toBe(true);
  });
});
