export { decodeAcrossPages } from './across-pages.ts';
export { createDecoder, type Decoder, type DecoderOptions, decode } from './decode.ts';
export { formatInsn, registerName } from './format.ts';
export { type CodeSize, formKey, forms } from './forms.ts';
export { operandForm } from './operands.ts';
export { rows } from './rows.ts';
export type * from './types.ts';
