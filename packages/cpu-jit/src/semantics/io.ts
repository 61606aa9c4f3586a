import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  EXIT_IO,
  NEXT,
  S_EXIT_ACCESS,
  S_EXIT_QUAL,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_RFLAGS,
  V_IO_BITMAP,
} from '../layout.ts';
import { RAX, RDX, VECTOR } from './common.ts';
import { ioPrivilege } from './flags.ts';
import { native } from './privilege.ts';

/** #GP(0) without I/O privilege, unless the CPU looks at the permission bitmap of the TSS and that grants the ports. */
function requirePorts(e: Emitter, number: Val, size: number): void {
  // Virtual-8086 mode always goes by the bitmap.
  const isVirtual = e.ne(e.and(e.state(S_RFLAGS, 4), e.i32(1 << 17)), e.i32(0));
  const asks = e.codeSize === 64 || e.flat ? e.eqz(ioPrivilege(e)) : e.or(isVirtual, e.eqz(ioPrivilege(e)));
  e.if(asks, () => {
    const allowed = e.call('io_allowed', 'i32', [number, e.i32(size)]);
    e.checkException();
    e.if(e.eqz(allowed), () => e.raise(VECTOR.GP, 0));
  });
}

/** Ports that the I/O bitmap leaves to the CPU: nothing is there, reads give all ones. */
function whenOpen(e: Emitter, number: Val, access: number, size: number): void {
  e.if(e.state(V_IO_BITMAP, 4), () => {
    const isOpen = e.call('io_open', 'i32', [number, e.i32(size)]);
    e.if(isOpen, () => {
      if (access === ACCESS_READ) e.setReg(RAX, size, e.i32(-1));
      e.exit(NEXT, 'next');
    });
  });
}

/**
 * Port I/O is a VM exit with RIP at the instruction unless V_IO_BITMAP has it otherwise: S_EXIT_VA = port, S_EXIT_SIZE bytes, S_EXIT_ACCESS, and for OUT the
 * value.
 */
function port(access: number, number: (e: Emitter) => Val, open = true): Semantics {
  return (e) => {
    const size = e.form.opSize;
    const n = e.let(number(e));
    requirePorts(e, n, size);
    if (open) whenOpen(e, n, access, size);
    e.setState(S_EXIT_VA, 8, e.zext64(n));
    e.setState(S_EXIT_ACCESS, 4, e.i32(access));
    e.setState(S_EXIT_SIZE, 4, e.i32(size));
    e.setState(S_EXIT_QUAL, 4, e.i32(0));
    if (access === ACCESS_WRITE) e.setState(S_EXIT_VALUE, 8, e.zext64(e.reg(RAX, size)));
    e.exit(EXIT_IO, 'this');
  };
}
/** INS and OUTS: where the CPU works by itself, a helper does the part in memory, one element an exit. */
function stringPort(access: number): Semantics {
  const once = port(access, dx, false);
  return (e) => {
    const { opSize, addrSize, rep } = e.form;
    e.if(native(e), () => {
      requirePorts(e, dx(e), opSize);
      e.transfer('sys_string_io', [e.i32(access), e.i32(opSize), e.i32(addrSize), e.i32(rep), e.segmentOffset()]);
    });
    once(e);
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
  ins: stringPort(ACCESS_READ),
  outs: stringPort(ACCESS_WRITE),
};
