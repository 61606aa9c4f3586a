import binaryen from 'binaryen';
import type { Form } from '../decoder/types.ts';
import { WASM_FEATURES } from '../emit/features.ts';
import { addFlagFunctions } from '../emit/flag-functions.ts';
import { HandlerEmitter, TABLE } from '../emit/handler-emitter.ts';
import { slowName } from '../emit/handler-memory.ts';
import { addExactPaths } from '../emit/slow-paths.ts';
import { typeOfSize } from '../emit/tlb-path.ts';
import type { ValType } from '../emit/val.ts';
import {
  EXIT_EXCEPTION,
  EXIT_REQUEST,
  NEXT,
  R_BASE,
  R_HANDLER,
  R_IDX,
  R_IMM,
  R_INDEX,
  R_OFF,
  R_SCALE,
  REC_SIZE,
  S_BLOCK_RIP,
  S_EA,
  S_EXC,
  S_EXC_ERROR,
  S_ICOUNT,
  S_RIP,
} from '../layout.ts';
import { semantics } from '../semantics/index.ts';
import { handlerForms } from './handler-forms.ts';
import { type InterpreterPart, PARTS, PSEUDO } from './handler-table.ts';

const CPU = 0;
const REC = 1;

export interface InterpreterBuild {
  wasm: Uint8Array;
  /** Forms in table order, from the part's first index. */
  forms: Form[];
}

/**
 * Generates a part of the interpreter: one function per instruction form, linked by tail calls through the shared table. All share
 * the pseudo-handlers of the first.
 */
export function buildInterpreter(part: InterpreterPart): InterpreterBuild {
  const isBase = part === PARTS.base;
  const m = new binaryen.Module();
  m.setFeatures(WASM_FEATURES);
  m.setMemory(1, 65536, undefined, [], true);
  m.addMemoryImport('0', 'env', 'memory', true);
  m.addTable(TABLE, 1, -1);
  m.addTableImport(TABLE, 'env', 'table');
  addFlagFunctions(binaryen, m);
  addSlowPaths(m);
  if (isBase) addExactPaths(binaryen, m);
  const names: string[] = isBase ? addPseudoHandlers(m) : [];
  const list = handlerForms(part);
  const { first } = part;
  if (first + list.length > part.end) throw new Error(`${list.length} handlers are more than the table has room for`);
  const imports = new Map<string, { params: ValType[]; result: ValType | 'none' }>();
  const failures: string[] = [];
  for (const [i, form] of list.entries()) {
    const name = `h${first + i}_${form.row.name}`;
    const e = new HandlerEmitter(binaryen, m, form, imports, part.legacy ? 32 : 64);
    try {
      semantics[form.row.name]?.(e);
      e.finish(name);
    } catch (error) {
      failures.push(`${form.row.name} [${form.row.operands.join()}] opSize ${form.opSize} ${form.isMem ? 'mem' : 'reg'}: ${String(error)}`);
    }
    names.push(name);
  }
  if (failures.length > 0) throw new Error(`no handler for ${failures.length} forms:\n${failures.join('\n')}`);
  for (const [name, { params, result }] of imports) {
    m.addFunctionImport(name, 'env', name, binaryen.createType(params.map((p) => binaryen[p])), binaryen[result]);
  }
  m.addFunctionImport('host_syscall', 'env', 'host_syscall', binaryen.i32, binaryen.i32);
  const at = m.i32.const(isBase ? 0 : first);
  m.addActiveElementSegment(TABLE, 'handlers', names, at);
  if (!m.validate()) throw new Error('the generated interpreter does not validate');
  const wasm = m.emitBinary();
  m.dispose();
  return { wasm, forms: list };
}

/** `slow_<op><bits>(cpu, rec, va[, value])`: makes RIP and the retired count exact around the runtime's slow path. */
function addSlowPaths(m: binaryen.Module): void {
  const b = binaryen;
  for (const size of [1, 2, 4, 8, 16]) {
    for (const op of ['load', 'loadw', 'store'] as const) {
      const type = b[typeOfSize(size)];
      const isStore = op === 'store';
      const runtime = `${op}${size * 8}`;
      m.addFunctionImport(runtime, 'env', runtime, b.createType(isStore ? [b.i32, b.i64, type] : [b.i32, b.i64]), isStore ? b.none : type);
      const params = isStore ? [b.i32, b.i32, b.i64, type] : [b.i32, b.i32, b.i64];
      const result = params.length;
      const cpu = () => m.local.get(CPU, b.i32);
      const index = () => m.i64.load8_u(R_IDX, 1, m.local.get(REC, b.i32));
      const count = () => m.i64.load(S_ICOUNT, 8, cpu());
      const args = [cpu(), m.local.get(2, b.i64)];
      if (isStore) args.push(m.local.get(3, type));
      const call = m.call(runtime, args, isStore ? b.none : type);
      const body = [
        m.i64.store(S_RIP, 8, cpu(), m.i64.add(m.i64.load(S_BLOCK_RIP, 8, cpu()), m.i64.load16_u(R_OFF, 2, m.local.get(REC, b.i32)))),
        m.i64.store(S_ICOUNT, 8, cpu(), m.i64.add(count(), index())),
        isStore ? call : m.local.set(result, call),
        // On a fault the handler returns at once and the count stays exact.
        m.if(m.i32.eqz(m.i32.load(S_EXC, 4, cpu())), m.i64.store(S_ICOUNT, 8, cpu(), m.i64.sub(count(), index()))),
      ];
      if (!isStore) body.push(m.local.get(result, type));
      m.addFunction(slowName(op, size), b.createType(params), isStore ? b.none : type, isStore ? [] : [type], m.block(null, body, isStore ? b.none : type));
    }
  }
}

/** Adds the pseudo-handlers; returns the names of the table entries before the first handler of a form. */
function addPseudoHandlers(m: binaryen.Module): string[] {
  const b = binaryen;
  const cpu = () => m.local.get(CPU, b.i32);
  const rec = () => m.local.get(REC, b.i32);
  const signature = b.createType([b.i32, b.i32]);
  const leave = (reason: number): binaryen.ExpressionRef[] => [
    m.i64.store(S_RIP, 8, cpu(), m.i64.add(m.i64.load(S_BLOCK_RIP, 8, cpu()), m.i64.load16_u(R_OFF, 2, rec()))),
    m.i64.store(S_ICOUNT, 8, cpu(), m.i64.add(m.i64.load(S_ICOUNT, 8, cpu()), m.i64.load8_u(R_IDX, 1, rec()))),
    m.i32.const(reason),
  ];
  const fault = (vector: number) =>
    m.block(null, [m.i32.store(S_EXC, 4, cpu(), m.i32.const(vector + 1)), m.i32.store(S_EXC_ERROR, 4, cpu(), m.i32.const(0)), ...leave(EXIT_EXCEPTION)], b.i32);
  m.addFunction('p_trap', signature, b.i32, [], m.unreachable());
  m.addFunction('p_end', signature, b.i32, [], m.block(null, leave(NEXT), b.i32));
  m.addFunction('p_break', signature, b.i32, [], m.block(null, leave(EXIT_REQUEST), b.i32));
  m.addFunction('p_ud', signature, b.i32, [], fault(6));
  m.addFunction('p_gp', signature, b.i32, [], fault(13));
  for (const bits of [16, 32, 64] as const) {
    const at = (offset: number) => m.i64.load(0, 8, m.i32.add(cpu(), m.i32.load16_u(offset, 2, rec())));
    const index = m.i64.shl(at(R_INDEX), m.i64.load8_u(R_SCALE, 1, rec()));
    let ea = m.i64.add(m.i64.add(at(R_BASE), index), m.i64.load(R_IMM, 8, rec()));
    if (bits !== 64) ea = m.i64.and(ea, m.i64.const(bits === 16 ? 0xffffn : 0xffff_ffffn));
    const next = m.i32.load(REC_SIZE + R_HANDLER, 4, rec());
    const go = m.return_call_indirect(TABLE, next, [cpu(), m.i32.add(rec(), m.i32.const(REC_SIZE))], signature, b.i32);
    m.addFunction(`p_ea${bits}`, signature, b.i32, [], m.block(null, [m.i64.store(S_EA, 8, cpu(), ea), go]));
  }
  const names: string[] = new Array<string>(PARTS.base.first).fill('p_trap');
  for (const [name, i] of Object.entries(PSEUDO)) names[i] = `p_${name}`;
  return names;
}
