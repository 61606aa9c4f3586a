/** Where the instruction of a recorded case is, and the memory that it works on. */
import { CODE, DATA } from './program.ts';

/** Where the instruction is; HLT is all around it. */
export const START = CODE + 0x2000;
/** 64 bytes of memory, half in one page and half in the next. */
export const WINDOW = DATA + 0xfe0;
export const WINDOW_BYTES = 64;
/** Status flags and DF. */
export const FLAGS = 0xcd5;

/** Memory that a case starts with and is looked at afterwards. */
export interface Area {
  readonly at: number;
  readonly words: number;
}
/** The window, and room for an XSAVE image with x87, SSE and header. */
export const AREAS: readonly [Area, Area] = [
  { at: WINDOW, words: WINDOW_BYTES / 8 },
  { at: DATA + 0x900, words: 80 },
];
