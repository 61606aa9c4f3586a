import type { Insn } from '@pvm/cpu-jit';
import { DS, ES, FS, GS } from '@pvm/cpu-jit/layout';
import { checkWritable, readVirtual, writeVirtual } from '../guest-memory.ts';
import { RAX, RCX, RDI, RDX, RSI } from '../vcpu-state.ts';
import type { Devices } from './devices.ts';
import type { PvmVcpu } from './pvm-vcpu.ts';

/** What came of an instruction: `sub` is its ledger sub-reason. */
export type Emulation =
  | { readonly sub: string; readonly wait?: Promise<void> | undefined }
  /** Not one the hypervisor emulates, or its operands are bad: the exception goes to the guest. */
  | { readonly sub: string; readonly fault: number };

const RFLAGS_DF = 1 << 10;
/** Most elements a REP form moves in one exit; it stays at the instruction for the rest. */
const MAX_ELEMENTS = 4096n;

/** IN, OUT, INS, OUTS. @throws GuestPageFault */
export function portIo(vcpu: PvmVcpu, devices: Devices, insn: Insn): Emulation {
  const { name } = insn.row;
  const immediate = insn.row.op >= 0xe4 && insn.row.op <= 0xe7;
  const port = immediate ? insn.immLow & 0xff : Number(vcpu.reg(RDX) & 0xffffn);
  const size = insn.opSize === 1 ? 1 : insn.opSize === 2 ? 2 : 4;
  const sub = `${name.toUpperCase()} 0x${port.toString(16)}`;
  switch (name) {
    case 'in': {
      const value = BigInt(devices.readPort(port, size) >>> 0);
      const mask = (1n << BigInt(8 * size)) - 1n;
      vcpu.setReg(RAX, size === 4 ? value : (vcpu.reg(RAX) & ~mask) | (value & mask));
      vcpu.skip(insn.length);
      return { sub };
    }
    case 'out': {
      const value = Number(vcpu.reg(RAX) & 0xffff_ffffn) & (size === 4 ? -1 : (1 << (8 * size)) - 1);
      vcpu.skip(insn.length);
      return { sub, wait: devices.writePort(port, size, value >>> 0) };
    }
    case 'ins':
      return { sub, wait: stringIo(vcpu, insn, RDI, size, (at) => input(vcpu, devices, port, size, at)) };
    default:
      return { sub, wait: stringIo(vcpu, insn, RSI, size, (at) => output(vcpu, devices, port, size, at, insn)) };
  }
}

/** The loop of INS and OUTS. Registers are updated after each element, so that a page fault leaves the rest to do. */
function stringIo(vcpu: PvmVcpu, insn: Insn, index: number, size: number, element: (at: bigint) => Promise<void> | undefined): Promise<void> | undefined {
  const bits = insn.addrSize * 8;
  const step = (vcpu.rflags & RFLAGS_DF) !== 0 ? -size : size;
  const count = insn.rep === 0 ? 1n : BigInt.asUintN(bits, vcpu.reg(RCX));
  const todo = count < MAX_ELEMENTS ? count : MAX_ELEMENTS;
  let wait: Promise<void> | undefined;
  let done = 0n;
  while (done < todo && wait === undefined) {
    wait = element(BigInt.asUintN(bits, vcpu.reg(index)));
    vcpu.setReg(index, BigInt.asUintN(bits, vcpu.reg(index) + BigInt(step)));
    done++;
    if (insn.rep !== 0) vcpu.setReg(RCX, count - done);
  }
  if (done === count) vcpu.skip(insn.length);
  else vcpu.retire();
  return wait;
}

function input(vcpu: PvmVcpu, devices: Devices, port: number, size: 1 | 2 | 4, at: bigint): undefined {
  const data = new DataView(new ArrayBuffer(4));
  const address = at + base(vcpu, ES);
  // A page fault must come before the device is read.
  checkWritable(vcpu, address, size);
  data.setUint32(0, devices.readPort(port, size) >>> 0, true);
  writeVirtual(vcpu, address, new Uint8Array(data.buffer, 0, size));
}

function output(vcpu: PvmVcpu, devices: Devices, port: number, size: 1 | 2 | 4, at: bigint, insn: Insn): Promise<void> | undefined {
  const data = readVirtual(vcpu, at + base(vcpu, insn.mem?.seg ?? DS), size);
  return devices.writePort(port, size, size === 1 ? data.getUint8(0) : size === 2 ? data.getUint16(0, true) : data.getUint32(0, true));
}

/** Only FS and GS have a base in 64-bit mode. */
function base(vcpu: PvmVcpu, segment: number): bigint {
  return segment === FS || segment === GS ? vcpu.segmentBase(segment) : 0n;
}
