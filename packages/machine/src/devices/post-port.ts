import type { StateIo } from '@pvm/cpu-jit';
import type { PortDevice, PortSize } from './port-device.ts';

/** Port 0x80: POST codes, and what kernels write to pass a microsecond. Also swallows the old DMA page registers beside it. */
export class PostPort implements PortDevice {
  readonly name = 'post';
  readonly ports = [{ first: 0x80, last: 0x8f }];
  /** Last code written. */
  code = 0;

  read(): number {
    return this.code;
  }

  write(_port: number, _size: PortSize, value: number): undefined {
    this.code = value & 0xff;
  }

  state(s: StateIo): void {
    s.fields(this, ['code']);
  }
}
