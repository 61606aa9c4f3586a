// VIRTIO 1.2, section 5.10.6: device operation.

/** Packet operations. */
export const OP = { request: 1, response: 2, reset: 3, shutdown: 4, rw: 5, creditUpdate: 6, creditRequest: 7 } as const;
export const TYPE_STREAM = 1;
/** No more receiving, no more sending. */
export const SHUTDOWN_RECEIVE = 1;
export const SHUTDOWN_SEND = 2;
export const SHUTDOWN_BOTH = 3;
export const HEADER_SIZE = 44;

/** struct virtio_vsock_hdr. */
export interface PacketHeader {
  readonly sourceCid: number;
  readonly destinationCid: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly length: number;
  readonly type: number;
  readonly op: number;
  readonly flags: number;
  /** Receive buffer of the sender, bytes; and how many it has handed on since the connection began, modulo 2^32. */
  readonly bufferSize: number;
  readonly forwarded: number;
}

/** @param bytes at least `HEADER_SIZE` */
export function decodeHeader(bytes: Uint8Array): PacketHeader {
  const v = new DataView(bytes.buffer, bytes.byteOffset);
  return {
    sourceCid: Number(v.getBigUint64(0, true)),
    destinationCid: Number(v.getBigUint64(8, true)),
    sourcePort: v.getUint32(16, true),
    destinationPort: v.getUint32(20, true),
    length: v.getUint32(24, true),
    type: v.getUint16(28, true),
    op: v.getUint16(30, true),
    flags: v.getUint32(32, true),
    bufferSize: v.getUint32(36, true),
    forwarded: v.getUint32(40, true),
  };
}

export function encodeHeader(h: PacketHeader): Uint8Array {
  const v = new DataView(new ArrayBuffer(HEADER_SIZE));
  v.setBigUint64(0, BigInt(h.sourceCid), true);
  v.setBigUint64(8, BigInt(h.destinationCid), true);
  v.setUint32(16, h.sourcePort, true);
  v.setUint32(20, h.destinationPort, true);
  v.setUint32(24, h.length, true);
  v.setUint16(28, h.type, true);
  v.setUint16(30, h.op, true);
  v.setUint32(32, h.flags, true);
  v.setUint32(36, h.bufferSize, true);
  v.setUint32(40, h.forwarded >>> 0, true);
  return new Uint8Array(v.buffer);
}
