import type { PortDevice, PortSize } from './port-device.ts';

/** Debug-exit port with QEMU's `isa-debug-exit` semantics: writing `v` ends the machine with exit code `(v << 1) | 1`. */
export class DebugExit implements PortDevice {
  readonly name = 'debug-exit';
  readonly ports: readonly [{ first: number; last: number }];
  private readonly onExit: (code: number) => void;

  constructor(onExit: (code: number) => void, base = 0xf4) {
    this.ports = [{ first: base, last: base + 3 }];
    this.onExit = onExit;
  }

  read(): number {
    return 0;
  }

  write(_port: number, _size: PortSize, value: number): undefined {
    this.onExit(((value << 1) | 1) & 0xff);
  }

  state(): void {}
}
