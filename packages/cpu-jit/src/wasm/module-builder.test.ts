import binaryen from 'binaryen';
import { describe, expect, it, test } from 'vitest';
import { WASM_FEATURES } from '../emit/features.ts';
import { WASM_TYPES } from './builder.ts';
import { ModuleBuilder } from './module-builder.ts';
import { INSTRUCTIONS, type Instruction } from './opcodes.ts';
import type { Expr, WasmModule, WasmTypes } from './types.ts';

type Maker = (...args: unknown[]) => Expr;
/** The function of a dotted name, undefined where a module has none. */
function makerOf(m: WasmModule, name: string): Maker | undefined {
  return name.split('.').reduce<unknown>((group, part) => (group as Record<string, unknown> | undefined)?.[part], m) as Maker | undefined;
}

/** Builds one function of no parameters with both, and gives the text that Binaryen has for each; ours is read back from its bytes. */
function both(
  result: 'i32' | 'i64' | 'none',
  build: (m: WasmModule, b: WasmTypes) => Expr,
  locals: readonly ('i32' | 'i64' | 'v128')[] = [],
): [string, string] {
  const own = new ModuleBuilder();
  own.addFunction(
    'f',
    WASM_TYPES.none,
    WASM_TYPES[result],
    locals.map((type) => WASM_TYPES[type]),
    build(own, WASM_TYPES),
  );
  own.addFunctionExport('f', 'f');
  const bytes = own.emit(false);
  expect(WebAssembly.validate(bytes)).toBe(true);
  const reference = new binaryen.Module();
  reference.setFeatures(WASM_FEATURES);
  reference.setMemory(1, 65536, undefined, [], true);
  reference.addMemoryImport('0', 'env', 'memory', true);
  reference.addTable('table', 1, -1);
  reference.addTableImport('table', 'env', 'table');
  reference.addFunction(
    'f',
    binaryen.none,
    binaryen[result],
    locals.map((type) => binaryen[type]),
    build(reference, binaryen),
  );
  reference.addFunctionExport('f', 'f');
  return [normalised(bytes), normalised(reference.emitBinary())];
}

/** The text of a module after Binaryen has read it, without what only says the same in another way. */
function normalised(bytes: Uint8Array): string {
  const m = binaryen.readBinary(bytes);
  m.setFeatures(WASM_FEATURES);
  m.runPasses(['vacuum', 'remove-unused-names', 'merge-blocks', 'simplify-locals', 'vacuum']);
  const text = m.emitText();
  m.dispose();
  return text;
}

const zeroes = new Array<number>(16).fill(0);
/** Constants that an instruction gets, by the type that its parameters most likely have: Binaryen does not look at them before it validates. */
function statement({ name, shape, result }: Instruction, m: WasmModule): Expr | undefined {
  const make = makerOf(m, name);
  if (make === undefined) return undefined;
  const operand = () => operandOf(name, m);
  const v = () => m.v128.const(zeroes);
  const scalar = (): Expr =>
    name.startsWith('i64x2') ? m.i64.const(0n) : name.startsWith('f32x4') ? m.f32.const(0) : name.startsWith('f64x2') ? m.f64.const(0) : m.i32.const(0);
  switch (shape) {
    case 'load':
      return m.drop(make(24, 1, m.i32.const(1)));
    case 'store':
      return make(
        24,
        1,
        m.i32.const(1),
        result === 'i32' ? m.i32.const(7) : result === 'i64' ? m.i64.const(7n) : result === 'f32' ? m.f32.const(7) : result === 'f64' ? m.f64.const(7) : v(),
      );
    case 'extract':
      return m.drop(make(v(), 1));
    case 'replace':
      return m.drop(make(v(), 1, scalar()));
    case 'ternary':
      return m.drop(make(v(), v(), v()));
    case 'binary':
      return m.drop(make(operand(), /\.sh[lr]/.test(name) && /x\d/.test(name) ? m.i32.const(1) : operand()));
    case 'unary':
      return m.drop(make(name.endsWith('.splat') ? scalar() : operand()));
  }
}

/** A constant of the type that an instruction works on. */
function operandOf(name: string, m: WasmModule): Expr {
  const [type = '', op = '', from] = name.split('.');
  const swapped: Readonly<Record<string, string>> = {
    'i32.wrap': 'i64',
    'f32.demote': 'f64',
    'f64.promote': 'f32',
    'i64.extend_s': 'i32',
    'i64.extend_u': 'i32',
  };
  const reinterpreted: Readonly<Record<string, string>> = { i32: 'f32', i64: 'f64', f32: 'i32', f64: 'i64' };
  switch (from ?? swapped[name] ?? (op === 'reinterpret' ? reinterpreted[type] : type)) {
    case 'i32':
      return m.i32.const(-5);
    case 'i64':
      return m.i64.const(-5n);
    case 'f32':
      return m.f32.const(1.5);
    case 'f64':
      return m.f64.const(1.5);
    default:
      return m.v128.const(zeroes);
  }
}

describe('the builder of modules', () => {
  it.each(INSTRUCTIONS.filter(({ name }) => !name.includes('relaxed')))('encodes $name as Binaryen does', (instruction) => {
    const [own, reference] = both('none', (m) => {
      const s = statement(instruction, m);
      if (s === undefined) throw new Error(`Binaryen has no ${instruction.name}`);
      return s;
    });
    expect(own).toBe(reference);
  });

  const get = (m: WasmModule, b: WasmTypes) => m.local.get(0, b.i32);
  const cases: Readonly<Record<string, (m: WasmModule, b: WasmTypes) => Expr>> = {
    'an if with values': (m, b) => m.if(get(m, b), m.i32.const(1), m.i32.const(-70)),
    'an if one arm of which leaves': (m, b) => m.if(get(m, b), m.return(m.i32.const(300_000)), m.i32.const(2)),
    'an if both arms of which leave': (m, b) => m.block(null, [m.if(get(m, b), m.return(m.i32.const(1)), m.return(m.i32.const(2)))], b.i32),
    'a loop with branches': (m, b) =>
      m.block(
        null,
        [
          m.loop(
            'again',
            m.block('out', [m.local.set(0, m.i32.add(get(m, b), m.i32.const(1))), m.br('out', m.i32.gt_u(get(m, b), m.i32.const(9))), m.br('again')]),
          ),
          get(m, b),
        ],
        b.i32,
      ),
    'a loop without branches': (m, b) => m.block(null, [m.loop('never', m.local.set(0, m.i32.const(1))), get(m, b)], b.i32),
    'blocks of the same name inside each other': (m, b) =>
      m.block(
        null,
        [m.block('x', [m.block('x', [m.br('x', get(m, b)), m.local.set(0, m.i32.const(1))]), m.br('x', get(m, b)), m.local.set(0, m.i32.const(2))]), get(m, b)],
        b.i32,
      ),
    'a switch': (m, b) =>
      m.block(
        null,
        [
          m.block('c', [m.block('b', [m.block('a', [m.switch(['a', 'b', 'a'], 'c', get(m, b))]), m.return(m.i32.const(1))]), m.return(m.i32.const(2))]),
          m.i32.const(3),
        ],
        b.i32,
      ),
    'what is set and used right away': (m, b) => m.block(null, [m.local.set(0, m.i32.const(4)), m.i32.add(get(m, b), get(m, b))], b.i32),
    'a local that is set before a block and used in it': (m, b) =>
      m.block(null, [m.local.set(0, m.i32.const(4)), m.block('x', [m.br('x', get(m, b))]), get(m, b)], b.i32),
    'select, tee and drop': (m, b) =>
      m.block(null, [m.drop(m.i32.const(1)), m.select(m.local.tee(0, m.i32.const(1), b.i32), get(m, b), m.i32.const(0))], b.i32),
    'an indirect tail call': (m, b) => m.return_call_indirect('table', get(m, b), [m.i32.const(7), m.i64.const(1n)], b.createType([b.i32, b.i64]), b.i32),
    'a tail call of itself': (m, b) => m.return_call('f', [], b.i32),
    'copies and fills of memory': (m, b) =>
      m.block(
        null,
        [m.memory.copy(m.i32.const(1), m.i32.const(2), m.i32.const(3)), m.memory.fill(m.i32.const(1), m.i32.const(2), m.i32.const(3)), get(m, b)],
        b.i32,
      ),
    'nothing that is after a branch': (m, b) => m.block(null, [m.block('x', [m.br('x'), m.local.set(0, m.i32.const(2))]), m.nop(), get(m, b)], b.i32),
    'a shuffle': (m) =>
      m.i32x4.extract_lane(
        m.i8x16.shuffle(
          m.v128.const(zeroes),
          m.v128.const(zeroes),
          zeroes.map((_, i) => 31 - i),
        ),
        2,
      ),
  };
  it.each(Object.entries(cases))('encodes %s as Binaryen does', (_, build) => {
    const [own, reference] = both('i32', build, ['i32']);
    expect(own).toBe(reference);
  });

  const numbers = [
    0n,
    1n,
    -1n,
    63n,
    64n,
    -64n,
    -65n,
    0x7fff_ffffn,
    0x8000_0000n,
    -0x8000_0000n,
    0xffff_ffffn,
    1n << 40n,
    -(1n << 40n),
    (1n << 63n) - 1n,
    -(1n << 63n),
  ];
  it.each(numbers)('encodes %d', (value) => {
    const [own, reference] = both('i64', (m) => m.i64.const(value));
    expect(own).toBe(reference);
  });
});

test('the likely arm of an if begins with a nop, and is named by its offset in the body', () => {
  const m = new ModuleBuilder();
  const likely = m.if(m.local.get(0, WASM_TYPES.i32), m.block(null, [m.nop(), m.return(m.i32.const(1))]));
  m.addFunction('f', WASM_TYPES.i32, WASM_TYPES.i32, [], m.block(null, [likely, m.i32.const(2)], WASM_TYPES.i32));
  const bytes = m.emit(false);
  const [section] = WebAssembly.Module.customSections(new WebAssembly.Module(bytes), 'metadata.code.branch_hint');
  // One function, number 0, one hint: no locals (1 byte), local.get 0 (2 bytes), likely.
  expect([...new Uint8Array(section ?? new ArrayBuffer(0))]).toEqual([1, 0, 1, 3, 1, 1]);
});

test('a branch to a label that is not around it is refused', () => {
  const m = new ModuleBuilder();
  m.addFunction('f', WASM_TYPES.none, WASM_TYPES.none, [], m.br('elsewhere'));
  expect(() => m.emit(false)).toThrow(/label/);
});

test('functions have names where a profiler wants them, and only there', () => {
  const m = new ModuleBuilder();
  m.addFunctionImport('helper', WASM_TYPES.i32, WASM_TYPES.none);
  m.addFunction('main+0x12', WASM_TYPES.none, WASM_TYPES.none, [], m.nop());
  const sections = (hasNames: boolean) => WebAssembly.Module.customSections(new WebAssembly.Module(m.emit(hasNames)), 'name');
  expect(sections(false)).toEqual([]);
  const [names] = sections(true);
  // Function names (1), 12 bytes: one function, number 1 behind the import.
  expect(Buffer.from(names ?? new ArrayBuffer(0)).toString('latin1')).toBe('\x01\x0c\x01\x01\x09main+0x12');
});
