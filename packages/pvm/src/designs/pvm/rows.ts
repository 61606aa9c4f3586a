import * as abi from '../../abi/constants.ts';
import { hypercallName } from '../../abi/hypercalls.ts';
import { vectorName } from '../../abi/vectors.ts';
import { errorClass, PAGE_FAULT } from '../../ledger/sub-reasons.ts';
import type { ExitLedger } from '../../ledger.ts';

export type PvmRows = ReturnType<typeof internRows>;

/** Ledger rows that are used often, looked up once. */
export function internRows(ledger: ExitLedger) {
  const exceptions = new Map<number, number>();
  const hypercalls = new Map<number, number>();
  const faults = new Map<number, number>();
  const once = (map: Map<number, number>, key: number, make: () => number) => {
    const known = map.get(key);
    if (known !== undefined) return known;
    const row = make();
    if (map.size < 64) map.set(key, row);
    return row;
  };
  return {
    syscall: ledger.row('SYSCALL'),
    eretu: ledger.row('ERETU'),
    int80: ledger.row('INT80'),
    badInt: ledger.row('#GP', 'INT n'),
    emulate: ledger.row('#GP', 'emulate'),
    guestFault: (error: number) => once(faults, error, () => ledger.row('#PF', PAGE_FAULT.guest, errorClass(abi.VECTOR_PF, error))),
    shadowFault: ledger.row('#PF', PAGE_FAULT.shadow),
    tableWrite: ledger.row('#PF', PAGE_FAULT.tableWrite),
    mmio: ledger.row('#PF', PAGE_FAULT.mmio),
    exception: (vector: number, error = 0) =>
      once(exceptions, vector * 0x1_0000 + (error & 0xffff), () => ledger.row(vectorName(vector), '', errorClass(vector, error))),
    hypercall: (number: number) => once(hypercalls, number, () => ledger.row('HYPERCALL', hypercallName(number))),
  };
}
