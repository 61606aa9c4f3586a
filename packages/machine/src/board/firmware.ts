import type { VirtioMmioPlace } from '../acpi/dsdt.ts';
import { writeAcpiTables } from '../acpi/tables.ts';
import { PCI_FIRST_GSI, PCI_MEMORY_FIRST, PCI_MEMORY_LAST, pciLine } from '../pci/pci-bus.ts';
import type { GuestRam } from '../ram.ts';
import { writeSmbiosTables } from '../smbios/tables.ts';

/** Write the SMBIOS and ACPI tables of a board into `ram`. @returns GPA of the ACPI root pointer */
export function buildTablesFor(ram: GuestRam, vcpus: number, virtioMmio: readonly VirtioMmioPlace[]): number {
  writeSmbiosTables(ram, { vcpus, ramSize: ram.size });
  return writeAcpiTables(ram, {
    vcpus,
    pciMemory: { first: PCI_MEMORY_FIRST, last: PCI_MEMORY_LAST },
    pciGsi: (slot, pin) => PCI_FIRST_GSI + pciLine(slot, pin),
    virtioMmio,
  });
}
