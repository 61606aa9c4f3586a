import wabt from 'wabt';
import { formatInsn } from '../decoder/format.ts';
import { compileRegions } from './compile.ts';
import { codeOf } from './compile-requests.ts';
import type { CompiledRegion } from './jit.ts';

/** What wabt must be told to read our modules. */
const FEATURES = { simd: true, tail_call: true, threads: true, bulk_memory: true, sign_extension: true, sat_float_to_int: true, relaxed_simd: true };

/** The guest code of a region, block by block, and the Wasm text that the region emitter makes of it; `u8` is linear memory. */
export async function dumpRegion(u8: Uint8Array, { rip, region: shape }: CompiledRegion): Promise<string> {
  const region = codeOf(u8, { ...shape, blocks: [...shape.blocks.values()].map(({ start, end, rate }) => [start, end, rate] as const) });
  if (region === undefined) return `region at 0x${rip.toString(16)}: its code has changed\n`;
  const hex = (offset: number) => `0x${BigInt.asUintN(64, rip + BigInt(offset)).toString(16)}`;
  const entries = [0, ...region.entries.map((e) => e.offset)].map(hex);
  const lines = [`region at ${hex(0)}: ${shape.insnCount} instructions in ${region.blocks.size} blocks; entered at ${entries.join(', ')}`];
  for (const block of [...region.blocks.values()].sort((a, b) => a.start - b.start)) {
    lines.push('', `${hex(block.start)}:`);
    let offset = block.start;
    for (const insn of block.insns) {
      lines.push(`    ${hex(offset)}  ${formatInsn(insn, rip + BigInt(offset))}`);
      offset += insn.length;
    }
  }
  return [...lines, '', await wasmText(compileRegions([region])), ''].join('\n');
}

/** Text of the region's own function, the first one. */
async function wasmText(wasm: Uint8Array): Promise<string> {
  const { readWasm } = await wabt();
  const module = readWasm(wasm, FEATURES);
  try {
    const text = module.toText({ foldExprs: false, inlineExport: false });
    const functions = text.split(/^(?= {2}\(func )/m).filter((part) => part.startsWith('  (func '));
    return (functions[0] ?? text).replace(/^ {2}\(export [\s\S]*$/m, '').trimEnd();
  } finally {
    module.destroy();
  }
}
