import { readFileSync } from 'node:fs';
import binaryen from 'binaryen';
import { describe, expect, it } from 'vitest';
import { S_SCRATCH } from './layout.ts';
import { CPU, RAM_BASE, RuntimeMachine } from './testing/runtime-machine.ts';

const { i32, i64, v128 } = binaryen;

/** JavaScript cannot pass v128: functions that load the operands from RAM and call the helper. */
function shim(m: RuntimeMachine): { i(imm: number): number; e(imm: number, la: bigint, lb: bigint): number } {
  const b = new binaryen.Module();
  b.setFeatures(binaryen.Features.SIMD128 | binaryen.Features.Atomics);
  b.setMemory(1, 65536, null, [], true);
  b.addMemoryImport('0', 'env', 'memory', true);
  b.addFunctionImport('pi', 'env', 'pcmpistr', binaryen.createType([i32, v128, v128, i32]), i32);
  b.addFunctionImport('pe', 'env', 'pcmpestr', binaryen.createType([i32, v128, v128, i32, i64, i64]), i32);
  const operands = () => [b.i32.const(CPU), b.v128.load(RAM_BASE, 1, b.i32.const(0)), b.v128.load(RAM_BASE + 16, 1, b.i32.const(0)), b.local.get(0, i32)];
  b.addFunction('i', i32, i32, [], b.call('pi', operands(), i32));
  b.addFunction('e', binaryen.createType([i32, i64, i64]), i32, [], b.call('pe', [...operands(), b.local.get(1, i64), b.local.get(2, i64)], i32));
  b.addFunctionExport('i', 'i');
  b.addFunctionExport('e', 'e');
  const imports = { env: { ...(m.rt as unknown as WebAssembly.ModuleImports), memory: m.memory } };
  const instance = new WebAssembly.Instance(new WebAssembly.Module(b.emitBinary() as Uint8Array<ArrayBuffer>), imports);
  return instance.exports as unknown as ReturnType<typeof shim>;
}

describe('PCMPxSTRx', () => {
  it('answers as silicon does, for every immediate', async () => {
    const m = await RuntimeMachine.create();
    const call = shim(m);
    const lines = readFileSync(new URL('./testing/pcmpstr.vectors.txt', import.meta.url), 'utf8')
      .trim()
      .split('\n');
    for (const line of lines) {
      const [a = '', b = '', la = '', lb = '', implicit = '', explicit = ''] = line.split(' ');
      m.u8.set(Buffer.from(a + b, 'hex'), RAM_BASE);
      let gotImplicit = '';
      let gotExplicit = '';
      const result = (index: number) =>
        index.toString(16).padStart(2, '0') +
        Buffer.from(m.u8.slice(CPU + S_SCRATCH, CPU + S_SCRATCH + 16)).toString('hex') +
        m.rt.getFlags(CPU).toString(16).padStart(3, '0');
      for (let imm = 0; imm < 128; imm++) {
        gotImplicit += result(call.i(imm));
        gotExplicit += result(call.e(imm, BigInt(la), BigInt(lb)));
      }
      expect(gotImplicit).toBe(implicit);
      expect(gotExplicit).toBe(explicit);
    }
    expect(lines.length).toBe(6);
  });
});
