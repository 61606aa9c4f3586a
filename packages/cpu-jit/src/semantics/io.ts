import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { ACCESS_READ, ACCESS_WRITE, EXIT_IO, S_EXIT_ACCESS, S_EXIT_SIZE, S_EXIT_VA, S_EXIT_VALUE } from '../layout.ts';
import { RAX, RDX, VECTOR } from './common.ts';
import { ioPrivilege } from './flags.ts';

/**
 * Port I/O is always a VM exit with RIP at the instruction: S_EXIT_VA = port, S_EXIT_SIZE bytes, S_EXIT_ACCESS, and for OUT the
 * value. Without I/O privilege it is #GP(0): the permission bitmap of the TSS grants nothing here.
 */
function port(access: number, number: (e: Emitter) => Val): Semantics {
  return (e) => {
    e.if(e.eqz(ioPrivilege(e)), () => e.raise(VECTOR.GP, 0));
    const size = e.form.opSize;
    e.setState(S_EXIT_VA, 8, e.zext64(number(e)));
    e.setState(S_EXIT_ACCESS, 4, e.i32(access));
    e.setState(S_EXIT_SIZE, 4, e.i32(size));
    if (access === ACCESS_WRITE) e.setState(S_EXIT_VALUE, 8, e.zext64(e.reg(RAX, size)));
    e.exit(EXIT_IO, 'this');
  };
}
const dx = (e: Emitter) => e.reg(RDX, 2);
/** Port operand `i`: an unsigned byte or DX. */
function operand(i: number): (e: Emitter) => Val {
  return (e) => (e.form.operands[i]?.kind === 'imm' ? e.imm(1) : dx(e));
}

/** Port I/O (SDM vol. 2, by mnemonic). */
export const io: Record<string, Semantics> = {
  in: port(ACCESS_READ, operand(1)),
  out: port(ACCESS_WRITE, operand(0)),
  ins: port(ACCESS_READ, dx),
  outs: port(ACCESS_WRITE, dx),
};
