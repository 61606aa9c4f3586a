/** A line on standard error that says how far something is; on a terminal only. */
export class Progress {
  private readonly stream: NodeJS.WriteStream;
  private shown = '';

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.stream = stream;
  }

  /** @param part 0 to 1; undefined: nobody knows */
  show(what: string, part?: number): void {
    if (!this.stream.isTTY) return;
    const width = 24;
    const filled = Math.round(width * Math.min(1, Math.max(0, part ?? 0)));
    const bar = part === undefined ? '' : ` [${'#'.repeat(filled)}${'.'.repeat(width - filled)}] ${Math.round(part * 100)} %`;
    const line = `${what}${bar}`.slice(0, (this.stream.columns ?? 80) - 1);
    if (line === this.shown) return;
    this.shown = line;
    this.stream.write(`\r\x1b[K${line}`);
  }

  /** The line goes away. */
  done(): void {
    if (this.shown !== '') this.stream.write('\r\x1b[K');
    this.shown = '';
  }
}
