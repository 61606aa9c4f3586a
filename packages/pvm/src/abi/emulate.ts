import type { Insn } from '@pvm/cpu-jit';
import { CS, FS, GS, LDTR, S_CR2, S_CR3, S_CR4, S_GDTR, S_IDTR, S_SEG, S_XCR0, SEG_BASE, SEG_STRIDE, SS, TR } from '@pvm/cpu-jit/layout';
import { cpuid } from '../cpuid.ts';
import { readVirtual } from '../guest-memory.ts';
import { RAX, RBX, RCX, RDX, RSP } from '../vcpu-state.ts';
import * as abi from './constants.ts';
import type { Devices } from './devices.ts';
import { lookupDataSegment } from './hypercalls.ts';
import type { KvmClock } from './kvm-clock.ts';
import { msrName, readMsr, writeMsr } from './msrs.ts';
import { type Emulation, portIo } from './port-io.ts';
import { ATTR_CODE64, ATTR_DATA, CR0_FIXED_SET, CR4_ALLOWED, CR4_FSGSBASE, CR4_LA57, CR4_PAE, CR4_PCIDE, CR4_SMEP, type PvmVcpu } from './pvm-vcpu.ts';

/** Linear address of the `invlpg` that starts the synthetic CPUID: "PVM" and its marks. */
const SYNTHETIC_CPUID_ADDRESS = 0xffff_ffff_ff4d_5650n;
const CPUID_OPCODE = 0xa20f;

/** CPUID leaf whose EAX has the components that XCR0 may enable. */
const CPUID_XSAVE = 0xd;
const CR3_NO_FLUSH = 1n << 63n;

/**
 * Emulate the privileged instruction at RIP in smod, which the CPU refused because it runs at privilege level 3. On success
 * RIP is behind it. @throws GuestPageFault, TripleFault
 */
export function emulate(vcpu: PvmVcpu, clock: KvmClock, devices: Devices, insn: Insn): Emulation {
  const done = (sub: string): Emulation => {
    vcpu.skip(insn.length);
    return { sub };
  };
  const fault = (sub: string, vector = abi.VECTOR_GP): Emulation => ({ sub, fault: vector });
  const name = insn.row.name;
  switch (name) {
    case 'cli':
    case 'sti':
      vcpu.setVirtualIf(name === 'sti');
      return done(name.toUpperCase());
    case 'hlt':
      vcpu.halted = !vcpu.interruptPending;
      return done('HLT');
    case 'wbinvd':
    case 'invd':
    case 'clts':
      return done(name.toUpperCase());
    case 'in':
    case 'out':
    case 'ins':
    case 'outs':
      return portIo(vcpu, devices, insn);
    case 'rdmsr': {
      const index = Number(BigInt.asUintN(32, vcpu.reg(RCX)));
      const value = readMsr(vcpu, clock, devices, index);
      if (value === undefined) return fault(`RDMSR ${msrName(index)}`);
      vcpu.setReg(RAX, value & 0xffff_ffffn);
      vcpu.setReg(RDX, value >> 32n);
      return done(`RDMSR ${msrName(index)}`);
    }
    case 'wrmsr': {
      const index = Number(BigInt.asUintN(32, vcpu.reg(RCX)));
      if (!writeMsr(vcpu, clock, devices, index, edxEax(vcpu))) return fault(`WRMSR ${msrName(index)}`);
      return done(`WRMSR ${msrName(index)}`);
    }
    case 'mov_r_cr':
    case 'mov_cr_r':
      return movCr(vcpu, insn) ? done(`MOV CR${insn.reg}`) : fault(`MOV CR${insn.reg}`, insn.reg > 4 && insn.reg !== 8 ? abi.VECTOR_UD : abi.VECTOR_GP);
    case 'mov_r_dr':
      vcpu.setReg(insn.rm, vcpu.debug.read(debugRegister(insn.reg)));
      return done('MOV DR');
    case 'mov_dr_r':
      return vcpu.debug.write(debugRegister(insn.reg), vcpu.reg(insn.rm)) ? done('MOV DR') : fault('MOV DR');
    case 'lmsw':
      return done('LMSW');
    case 'lgdt':
    case 'lidt': {
      const operand = readVirtual(vcpu, effectiveAddress(vcpu, insn), 10);
      const table = name === 'lgdt' ? S_GDTR : S_IDTR;
      vcpu.set64(table, operand.getBigUint64(2, true));
      vcpu.set32(table + 8, operand.getUint16(0, true));
      return done(name.toUpperCase());
    }
    case 'lldt':
    case 'ltr':
      vcpu.setSelector(name === 'lldt' ? LDTR : TR, operand16(vcpu, insn));
      return done(name.toUpperCase());
    case 'invlpg':
      return invlpg(vcpu, insn);
    case 'invpcid':
      return invpcid(vcpu, insn) ? done('INVPCID') : fault('INVPCID');
    case 'xsetbv':
      if (BigInt.asUintN(32, vcpu.reg(RCX)) !== 0n || !validXcr0(vcpu, edxEax(vcpu))) return fault('XSETBV');
      vcpu.set64(S_XCR0, edxEax(vcpu));
      return done('XSETBV');
    case 'mov_seg_r':
      return loadSegment(vcpu, insn.reg, operand16(vcpu, insn), true) ? done('MOV SEG') : fault('MOV SEG');
    case 'retf':
      return farReturn(vcpu, insn);
    case 'iret':
      return interruptReturn(vcpu, insn);
    case 'swapgs':
    case 'sysret':
    case 'stac':
    case 'clac':
      return fault(name.toUpperCase(), abi.VECTOR_UD);
    default:
      return fault('');
  }
}

/** A segment-register load by umod code, which the CPU leaves to the hypervisor. @returns the exception, or undefined when it was done */
export function emulateUser(vcpu: PvmVcpu, insn: Insn): number | undefined {
  if (insn.row.name === 'mov_seg_r' && loadSegment(vcpu, insn.reg, operand16(vcpu, insn), false)) {
    vcpu.skip(insn.length);
    return undefined;
  }
  if (insn.row.name === 'iret' || insn.row.name === 'retf') {
    const result = insn.row.name === 'iret' ? interruptReturn(vcpu, insn) : farReturn(vcpu, insn);
    return 'fault' in result ? result.fault : undefined;
  }
  return abi.VECTOR_GP;
}

function edxEax(vcpu: PvmVcpu): bigint {
  return ((vcpu.reg(RDX) & 0xffff_ffffn) << 32n) | (vcpu.reg(RAX) & 0xffff_ffffn);
}

/** DR4 and DR5 are aliases of DR6 and DR7. */
function debugRegister(n: number): number {
  return n === 4 || n === 5 ? n + 2 : n & 7;
}

function validXcr0(vcpu: PvmVcpu, value: bigint): boolean {
  const supported = BigInt(cpuid(vcpu, CPUID_XSAVE, 0)[0]);
  return (value & 1n) !== 0n && (value & ~supported) === 0n && ((value & 4n) === 0n || (value & 2n) !== 0n);
}

function effectiveAddress(vcpu: PvmVcpu, insn: Insn): bigint {
  const m = insn.mem;
  if (m === null) throw new RangeError(`${insn.row.name} has no memory operand`);
  let address = BigInt(m.disp);
  if (m.base === 16) address += vcpu.rip + BigInt(insn.length);
  else if (m.base >= 0) address += vcpu.reg(m.base);
  if (m.index >= 0) address += vcpu.reg(m.index) << BigInt(m.scale);
  if (insn.addrSize === 4) address = BigInt.asUintN(32, address);
  if (m.seg === FS || m.seg === GS) address += vcpu.get64(S_SEG + m.seg * SEG_STRIDE + SEG_BASE);
  return BigInt.asUintN(64, address);
}

function operand16(vcpu: PvmVcpu, insn: Insn): number {
  return insn.isMem ? readVirtual(vcpu, effectiveAddress(vcpu, insn), 2).getUint16(0, true) : Number(vcpu.reg(insn.rm) & 0xffffn);
}

function movCr(vcpu: PvmVcpu, insn: Insn): boolean {
  const { reg, rm } = insn;
  if (insn.row.name === 'mov_r_cr') {
    if (reg === 8) {
      vcpu.setReg(rm, BigInt(vcpu.interrupts.taskPriority));
      return true;
    }
    const fields: Readonly<Record<number, number>> = { 2: S_CR2, 3: S_CR3, 4: S_CR4 };
    const field = fields[reg];
    if (reg !== 0 && field === undefined) return false;
    vcpu.setReg(rm, field === undefined ? CR0_FIXED_SET : vcpu.get64(field));
    return true;
  }
  const value = vcpu.reg(rm);
  switch (reg) {
    case 0:
      // PE, PG, WP, ET, NE, AM, MP read set and CD, NW, EM, TS clear, whatever is written.
      return value >> 32n === 0n;
    case 2:
      vcpu.set64(S_CR2, value);
      return true;
    case 3: {
      const pcide = (vcpu.get64(S_CR4) & CR4_PCIDE) !== 0n;
      vcpu.loadCr3(value & ~CR3_NO_FLUSH, !(pcide && (value & CR3_NO_FLUSH) !== 0n));
      return true;
    }
    case 4: {
      const old = vcpu.get64(S_CR4);
      if ((value & ~CR4_ALLOWED) !== (old & CR4_LA57)) return false;
      // SMEP follows NX; PAE and FSGSBASE cannot be turned off.
      vcpu.set64(S_CR4, (value & ~CR4_SMEP) | CR4_PAE | CR4_FSGSBASE);
      if (((value ^ old) & CR4_PCIDE) !== 0n) vcpu.loadRoots(true);
      return true;
    }
    case 8:
      if (value > 15n) return false;
      vcpu.interrupts.taskPriority = Number(value);
      return true;
    default:
      return false;
  }
}

function invlpg(vcpu: PvmVcpu, insn: Insn): Emulation {
  const va = effectiveAddress(vcpu, insn);
  if (va === SYNTHETIC_CPUID_ADDRESS) {
    const next = readVirtual(vcpu, vcpu.rip + BigInt(insn.length), 2).getUint16(0, true);
    if (next === CPUID_OPCODE) {
      const [eax, ebx, ecx, edx] = cpuid(vcpu, Number(BigInt.asUintN(32, vcpu.reg(RAX))), Number(BigInt.asUintN(32, vcpu.reg(RCX))));
      vcpu.setReg(RAX, BigInt(eax));
      vcpu.setReg(RBX, BigInt(ebx));
      vcpu.setReg(RCX, BigInt(ecx));
      vcpu.setReg(RDX, BigInt(edx));
      // Two instructions in one exit.
      vcpu.skip(insn.length);
      vcpu.skip(2);
      return { sub: 'CPUID' };
    }
  }
  vcpu.mmu.invlpg(vcpu.index, Number(va & 0xffff_ffffn), Number(va >> 32n));
  vcpu.skip(insn.length);
  return { sub: 'INVLPG' };
}

/** SDM vol. 2, INVPCID: type 0 one address of one PCID, 1 one PCID, 2 everything, 3 everything but globals. */
function invpcid(vcpu: PvmVcpu, insn: Insn): boolean {
  const type = vcpu.reg(insn.reg);
  const descriptor = readVirtual(vcpu, effectiveAddress(vcpu, insn), 16);
  const address = descriptor.getBigUint64(8, true);
  if (type > 3n || descriptor.getBigUint64(0, true) > 0xfffn || (type === 0n && !vcpu.isCanonical(address))) return false;
  if (type === 0n) vcpu.mmu.invlpg(vcpu.index, Number(address & 0xffff_ffffn), Number(address >> 32n));
  else vcpu.mmu.flushAll(vcpu.index);
  return true;
}

/** Load DS, ES, FS, GS or SS. `kernel`: RPL 0 selectors, whose GDT is never used, load the flat segment. */
function loadSegment(vcpu: PvmVcpu, segment: number, selector: number, kernel: boolean): boolean {
  if (segment === CS || segment > GS) return false;
  if (selector <= 3 && segment !== SS) {
    vcpu.setSegment(segment, selector, 0, 0n, 0);
    return true;
  }
  const found = lookupDataSegment(vcpu, selector) ?? (kernel && (selector & 3) === 0 ? { base: 0n, limit: 0xffff_ffff, attributes: ATTR_DATA } : undefined);
  if (found === undefined) return false;
  vcpu.setSegment(segment, (selector & 3) === 0 ? abi.USER_DS : selector, found.attributes, found.base, found.limit);
  return true;
}

/** Far return: the selector is ignored in smod, where code runs in the one flat segment. */
function farReturn(vcpu: PvmVcpu, insn: Insn): Emulation {
  const size = insn.opSize;
  const stack = readVirtual(vcpu, vcpu.reg(RSP), 2 * size);
  const rip = size === 8 ? stack.getBigUint64(0, true) : BigInt(size === 4 ? stack.getUint32(0, true) : stack.getUint16(0, true));
  const selector = stack.getUint16(size, true);
  if (!vcpu.smod && selector !== abi.USER_CS) return { sub: 'RETF', fault: abi.VECTOR_GP };
  const extra = insn.row.op === 0xca ? BigInt(insn.immLow & 0xffff) : 0n;
  vcpu.setReg(RSP, vcpu.reg(RSP) + BigInt(2 * size) + extra);
  vcpu.rip = rip;
  vcpu.retire();
  return { sub: 'RETF' };
}

/** IRETQ to the same privilege: RIP, CS, RFLAGS, RSP, SS from the stack; IF and IOPL are not touched. */
function interruptReturn(vcpu: PvmVcpu, insn: Insn): Emulation {
  if (insn.opSize !== 8) return { sub: 'IRET', fault: abi.VECTOR_GP };
  const stack = readVirtual(vcpu, vcpu.reg(RSP), 40);
  const cs = stack.getUint16(8, true);
  const ss = stack.getUint16(32, true);
  const ok = (selector: number, user: number) => selector === user || (vcpu.smod && (selector & 3) === 0);
  if (!ok(cs, abi.USER_CS) || !ok(ss, abi.USER_DS)) return { sub: 'IRET', fault: abi.VECTOR_GP };
  vcpu.rip = stack.getBigUint64(0, true);
  vcpu.setReg(RSP, stack.getBigUint64(24, true));
  vcpu.setSegment(CS, abi.USER_CS, ATTR_CODE64);
  vcpu.rflags = (stack.getUint32(16, true) & abi.RFLAGS_ERETU) | abi.RFLAGS_SMOD;
  vcpu.retire();
  return { sub: 'IRET' };
}
