/** SDM vol. 3, table 6-1. */
const VECTOR_NAMES = [
  '#DE',
  '#DB',
  'NMI',
  '#BP',
  '#OF',
  '#BR',
  '#UD',
  '#NM',
  '#DF',
  '',
  '#TS',
  '#NP',
  '#SS',
  '#GP',
  '#PF',
  '',
  '#MF',
  '#AC',
  '#MC',
  '#XM',
  '#VE',
  '#CP',
];

/** `#PF` and so on; `vector 0x80` for those without a name. */
export function vectorName(vector: number): string {
  return VECTOR_NAMES[vector] || `vector 0x${vector.toString(16)}`;
}
