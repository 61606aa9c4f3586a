import { table0f } from './table-0f.ts';
import { table0f3a } from './table-0f3a.ts';
import { table0f38 } from './table-0f38.ts';
import { table1 } from './table-1.ts';
import { tableAvx } from './table-avx.ts';
import { tableAvx0f3a } from './table-avx-0f3a.ts';
import { tableAvx0f38, tableFma } from './table-avx-0f38.ts';
import { tablePacked } from './table-packed.ts';
import { tableSse } from './table-sse.ts';
import { tableSystem } from './table-system.ts';
import { tableX87 } from './table-x87.ts';
import type { Row } from './types.ts';

/** Every row of every table. A row's index here is its identity (`Form.rowIndex`). */
export const rows: readonly Row[] = [
  ...table1,
  ...table0f,
  ...tableSystem,
  ...tableSse,
  ...tablePacked,
  ...table0f38,
  ...table0f3a,
  ...tableX87,
  ...tableAvx,
  ...tableAvx0f38,
  ...tableFma,
  ...tableAvx0f3a,
];
