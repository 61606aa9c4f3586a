import { decode } from './decode.ts';
import type { CodeSize } from './forms.ts';
import type { DecodeFailure, Insn } from './types.ts';

const PAGE = 4096;
/** What of an instruction lies in the first page, and as many bytes as it may have in the second. */
const scratch = new Uint8Array(32);

/**
 * The instruction at `at` in `memory`, which may run on into another page: `nextPage` says where that one is, 0 when it cannot be fetched
 * ('fault'). It is asked only then. Bytes that make no instruction within 15 are 'gp' as elsewhere.
 */
export function decodeAcrossPages(memory: Uint8Array, at: number, codeSize: CodeSize, nextPage: () => number): Insn | 'ud' | 'gp' | 'fault' {
  const available = PAGE - (at & (PAGE - 1));
  const first: Insn | DecodeFailure = decode(memory, at, available, codeSize);
  if (first !== 'fetch') return first;
  const next = nextPage();
  if (next === 0) return 'fault';
  scratch.set(memory.subarray(at, at + available));
  scratch.set(memory.subarray(next, next + 16), available);
  const again = decode(scratch, 0, available + 16, codeSize);
  return again === 'fetch' ? 'gp' : again;
}
