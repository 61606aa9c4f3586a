import { StringDecoder } from 'node:string_decoder';
import { stripVTControlCharacters } from 'node:util';

/** Characters of a line that are kept. */
const MAX_LINE = 500;

/** The last lines that a guest wrote, made harmless for a terminal: no escape sequences, no control characters. */
export class GuestTail {
  private readonly decoder = new StringDecoder('utf8');
  private readonly limit: number;
  private lines: string[] = [];
  private line = '';

  constructor(limit: number) {
    this.limit = limit;
  }

  add(chunk: Uint8Array): void {
    const parts = `${this.line}${this.decoder.write(Buffer.from(chunk))}`.split('\n');
    this.line = (parts.pop() ?? '').slice(-MAX_LINE);
    this.lines = [...this.lines, ...parts.map(harmless)].slice(-this.limit);
  }

  /** At most `n` lines, the last of them perhaps not ended. */
  last(n: number): string[] {
    return (this.line === '' ? this.lines : [...this.lines, harmless(this.line)]).slice(-n);
  }
}

/** What a terminal would show of a line: the text after the last carriage return, without control sequences. */
export function harmless(line: string): string {
  const text = stripVTControlCharacters(line.replace(/\r+$/, ''));
  return text
    .slice(text.lastIndexOf('\r') + 1)
    .replaceAll('\t', '    ')
    .replace(/\p{Cc}|\p{Cf}/gu, '')
    .slice(0, MAX_LINE);
}
