import { SLEEP_TYPE_S5 } from '../devices/acpi-pm.ts';
import {
  type Aml,
  busNumbers,
  device,
  eisaId,
  integer,
  interrupt,
  ioPorts,
  ioWindow,
  isaIrq,
  memory32Fixed,
  memoryWindow,
  name,
  pkg,
  resourceTemplate,
  scope,
  string,
} from './aml.ts';

/** A virtio device on MMIO, as the DSDT announces it. */
export interface VirtioMmioPlace {
  readonly base: number;
  readonly size: number;
  readonly gsi: number;
}

/** What the DSDT depends on. */
export interface DsdtOptions {
  readonly vcpus: number;
  /** Window for PCI BARs in memory, GPA, both ends inclusive. */
  readonly pciMemory: { readonly first: number; readonly last: number };
  /** GSI of a PCI slot's pin, 0 = INTA. */
  readonly pciGsi: (slot: number, pin: number) => number;
  readonly virtioMmio: readonly VirtioMmioPlace[];
}

const PCI_SLOTS = 32;

/** Body of the differentiated system description table: processors, PCI root, serial port, clock, sleep state S5. */
export function buildDsdt(options: DsdtOptions): Aml {
  const routes = Array.from({ length: PCI_SLOTS * 4 }, (_, i) => {
    const [slot, pin] = [i >> 2, i & 3];
    return pkg([integer(slot * 0x1_0000 + 0xffff), integer(pin), integer(0), integer(options.pciGsi(slot, pin))]);
  });
  const pci = device('PCI0', [
    name('_HID', eisaId('PNP0A03')),
    name('_UID', integer(0)),
    name('_BBN', integer(0)),
    name(
      '_CRS',
      resourceTemplate([
        busNumbers(0, 0xff),
        ioPorts(0xcf8, 8),
        ioWindow(0, 0xcf7),
        ioWindow(0xd00, 0xffff),
        memoryWindow(options.pciMemory.first, options.pciMemory.last),
      ]),
    ),
    // A package holds at most 255 elements; the 128 routes fit.
    name('_PRT', pkg(routes)),
  ]);
  const serial = device('COM1', [name('_HID', eisaId('PNP0501')), name('_UID', integer(1)), name('_CRS', resourceTemplate([ioPorts(0x3f8, 8), isaIrq(4)]))]);
  const clock = device('RTC0', [name('_HID', eisaId('PNP0B00')), name('_CRS', resourceTemplate([ioPorts(0x70, 2), isaIrq(8)]))]);
  const processors = Array.from({ length: options.vcpus }, (_, i) =>
    device(`C${i.toString(16).toUpperCase().padStart(3, '0')}`, [name('_HID', string('ACPI0007')), name('_UID', integer(i))]),
  );
  const virtio = options.virtioMmio.map((place, i) =>
    device(`VR${i.toString(16).toUpperCase().padStart(2, '0')}`, [
      name('_HID', string('LNRO0005')),
      name('_UID', integer(i)),
      name('_CRS', resourceTemplate([memory32Fixed(place.base, place.size), interrupt(place.gsi, true)])),
    ]),
  );
  return [
    ...name('\\_S5', pkg([integer(SLEEP_TYPE_S5), integer(SLEEP_TYPE_S5), integer(0), integer(0)])),
    ...scope('\\_SB', [pci, serial, clock, ...processors, ...virtio]),
  ];
}
