import { createHash, type Hash } from 'node:crypto';
import { promisify } from 'node:util';
import { zstdDecompress } from 'node:zlib';
import type { PvmError } from '../errors.ts';
import {
  badSnapshot,
  DIGEST_SIZE,
  FORMAT_VERSION,
  layoutFingerprint,
  MAGIC,
  MAX_HEADER_SIZE,
  MAX_SECTION,
  mismatch,
  PREFIX_SIZE,
  SECTION,
  SECTION_HEADER_SIZE,
  type SnapshotHeader,
} from './format.ts';
import { checkConfigShape } from './machine-config.ts';
import { SnapshotSource } from './source.ts';

const unpack = promisify(zstdDecompress);
/** Sections that are unpacked at a time, on Node's thread pool. */
const AHEAD = 4;

interface Section {
  readonly kind: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** When the checksum is looked at: before anything else, with the last section (the file is read once), or not at all. */
export type ChecksumTime = 'first' | 'last' | 'never';

/** A snapshot; its header has been read. */
export class SnapshotReader {
  readonly header: SnapshotHeader;
  /** Bytes of the file. */
  readonly size: number;
  private readonly source: SnapshotSource;
  private readonly first: number;
  /** Bytes before the digest. */
  private readonly body: number;
  /** Of what has been read, when the checksum is looked at last. */
  private hash: Hash | undefined;
  private unpacked: AsyncGenerator<Section, void> | undefined;
  private next: Promise<IteratorResult<Section, void>> | undefined;

  /** @throws PvmError `unreadable-file`, `bad-snapshot`, or `snapshot-mismatch` when another version wrote it */
  static open(from: string | Uint8Array, check: ChecksumTime = 'first'): SnapshotReader {
    const source = new SnapshotSource(from);
    try {
      return new SnapshotReader(source, check);
    } catch (e) {
      source.close();
      throw e;
    }
  }

  private constructor(source: SnapshotSource, check: ChecksumTime) {
    this.source = source;
    this.size = source.size;
    const magic = source.read(0, Math.min(MAGIC.length, source.size));
    if (new TextDecoder().decode(magic) !== MAGIC) throw badSnapshot(`${source.name}: is not a snapshot of pvm`);
    const numbers = new DataView(source.read(0, PREFIX_SIZE).slice().buffer);
    const version = numbers.getUint32(MAGIC.length, true);
    if (version !== FORMAT_VERSION) throw mismatch(`${source.name}: has format ${version}, this version of pvm reads format ${FORMAT_VERSION}`);
    this.body = source.size - DIGEST_SIZE;
    if (this.body < PREFIX_SIZE) throw this.damage();
    if (check === 'first') this.checkIntact();
    const length = numbers.getUint32(MAGIC.length + 4, true);
    this.first = PREFIX_SIZE + length;
    try {
      if (length > MAX_HEADER_SIZE || this.first > this.body) throw badSnapshot(`${source.name}: has an impossible header`);
      this.header = parseHeader(source.name, source.read(PREFIX_SIZE, length));
    } catch (e) {
      if (check === 'last') this.checkIntact();
      throw e;
    }
    if (check === 'last') this.hash = createHash('sha256').update(source.read(0, this.first));
  }

  /** Reads the whole file. @throws PvmError `bad-snapshot` when its checksum is wrong */
  checkIntact(): void {
    const { source, body } = this;
    if (Buffer.compare(source.read(body, DIGEST_SIZE), source.digest(body)) !== 0) throw this.damage();
  }

  private damage(): PvmError {
    return badSnapshot(`${this.source.name}: is damaged or cut off: its checksum is wrong`);
  }

  /** The build that wrote it lays out linear memory as this one does. */
  get isCurrent(): boolean {
    return this.header.layout === layoutFingerprint();
  }

  /** @throws PvmError `snapshot-mismatch` when the build that wrote it lays out linear memory in another way */
  checkBuild(): void {
    const { pvm, layout } = this.header;
    if (!this.isCurrent)
      throw mismatch(
        `${this.source.name}: was written by another build of pvm (${pvm}, layout ${layout}); this one has layout ${layoutFingerprint()}; take it anew with this one`,
      );
  }

  /** Begins to unpack the first sections, on other threads, while the machine is made that they are for. */
  start(): void {
    this.unpacked ??= this.sections();
    this.next ??= this.unpacked.next();
    // Its error is that of `readSections`, which may never be called.
    this.next.catch(() => undefined);
  }

  /**
   * Hands over the sections of memory one by one, once; the bytes are gone when `putMemory` returns. @returns the state
   *
   * @throws PvmError `bad-snapshot`
   */
  async readSections(putMemory: (packed: Uint8Array) => void): Promise<Uint8Array> {
    const state: Uint8Array[] = [];
    this.start();
    for (;;) {
      const next = await this.next;
      if (next === undefined || next.done === true) return Buffer.concat(state);
      const { kind, data } = next.value;
      if (kind === SECTION.memory) {
        putMemory(data);
        // Freed at once, as `SnapshotSource.release`. A small one is a part of Node's pool.
        if (data.buffer.byteLength > Buffer.poolSize) data.buffer.transfer(0);
      } else if (kind === SECTION.state) state.push(data);
      else throw badSnapshot(`${this.source.name}: has a section of unknown kind ${kind}`);
      this.next = this.unpacked?.next();
    }
  }

  close(): void {
    this.source.close();
  }

  private async *sections(): AsyncGenerator<Section, void> {
    const waiting: Promise<Section>[] = [];
    for (const section of this.packed()) {
      const promise = section();
      // Its error comes when it is its turn, and must not count as unhandled before.
      promise.catch(() => undefined);
      waiting.push(promise);
      const next = waiting.length > AHEAD ? waiting.shift() : undefined;
      if (next !== undefined) yield await next;
    }
    for (const promise of waiting) yield await promise;
  }

  /** Each section, as the work of unpacking it. */
  private *packed(): Generator<() => Promise<Section>, void> {
    const { source, body: end, hash } = this;
    for (let at = this.first; ; ) {
      if (at + SECTION_HEADER_SIZE > end) throw badSnapshot(`${source.name}: ends without its last section`);
      const headBytes = source.read(at, SECTION_HEADER_SIZE).slice();
      const head = new DataView(headBytes.buffer);
      const [kind, size, stored] = [head.getUint32(0, true), head.getUint32(4, true), head.getUint32(8, true)];
      if (size > MAX_SECTION || at + SECTION_HEADER_SIZE + stored > end) throw badSnapshot(`${source.name}: has a section of impossible size`);
      if (kind === SECTION.end) {
        const digest = hash?.update(source.read(at, end - at)).digest();
        if (digest !== undefined && Buffer.compare(source.read(end, DIGEST_SIZE), digest) !== 0) throw this.damage();
        return;
      }
      const packed = source.read(at + SECTION_HEADER_SIZE, stored);
      hash?.update(headBytes).update(packed);
      at += SECTION_HEADER_SIZE + stored;
      yield async () => {
        // One buffer, not many small ones put together afterwards; a full one would have a second one allocated.
        const data = await unpack(packed, { maxOutputLength: Math.max(1, size), chunkSize: size + 64 }).catch((e: unknown) => {
          throw badSnapshot(`${source.name}: a section cannot be unpacked`, e);
        });
        source.release(packed);
        if (data.length !== size) throw badSnapshot(`${source.name}: a section has ${data.length} bytes, and should have ${size}`);
        return { kind, data };
      };
    }
  }
}

function parseHeader(name: string, bytes: Uint8Array): SnapshotHeader {
  let header: Partial<SnapshotHeader> | null;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes)) as Partial<SnapshotHeader> | null;
  } catch (cause) {
    throw badSnapshot(`${name}: its header is no JSON`, cause);
  }
  const { pvm, layout, created, config, sources, vcpus, instructions } = header ?? {};
  const texts = [pvm, layout, created, instructions];
  if (texts.some((text) => typeof text !== 'string') || !Number.isInteger(vcpus)) throw badSnapshot(`${name}: its header is incomplete`);
  checkConfigShape(config, sources);
  return header as SnapshotHeader;
}
