import { type CpuCore, MAXPHYADDR, S_CR3 } from '@pvm/cpu-jit';
import type { GuestRam } from '@pvm/machine';
import { GuestWalk } from '@pvm/shadow-mmu';
import { pagingMode } from '../designs/kvm-spt/paging-mode.ts';
import { VcpuState } from '../vcpu-state.ts';

/** CR3: address of the top-level table; 32 bytes aligned for the pointers of PAE paging. */
const CR3_TABLE = 0x000f_ffff_ffff_f000n;
const CR3_POINTERS = 0xffff_ffe0n;

/** Guest memory by linear address, as the current page tables of a vCPU map it, whatever they permit. For debuggers: nothing is changed on the way. */
export class GuestView {
  private readonly core: CpuCore;
  private readonly ram: GuestRam;
  private readonly walk: GuestWalk;

  constructor(core: CpuCore, ram: GuestRam) {
    this.core = core;
    this.ram = ram;
    this.walk = new GuestWalk(core.i32, (gpa) => (gpa < core.ramBytes ? core.ramBase + gpa : -1), MAXPHYADDR, 'kvm');
    this.walk.pointers = core.i32;
  }

  /** Guest-physical address; undefined: not mapped, or no RAM. */
  translate(vcpu: number, address: bigint): number | undefined {
    const { core, walk } = this;
    const state = new VcpuState(core, vcpu);
    const cr3 = state.get64(S_CR3);
    const table = Number(cr3 & CR3_TABLE);
    walk.pointersAt = (core.ramBase + Number(cr3 & CR3_POINTERS)) >>> 2;
    const root = table < core.ramBytes ? core.ramBase + table : -1;
    if (!walk.walk(root, Number(address & 0xffff_ffffn) | 0, Number(address >> 32n) | 0, pagingMode(state))) return undefined;
    const gpa = walk.gpa + Number(address & 0xfffn);
    return this.ram.contains(gpa, 1) ? gpa : undefined;
  }

  /** As many bytes as are mapped from `address` on, up to `length`. */
  read(vcpu: number, address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let done = 0;
    for (const { gpa, size } of this.pieces(vcpu, address, length)) {
      bytes.set(this.ram.slice(gpa, size), done);
      done += size;
    }
    return bytes.subarray(0, done);
  }

  /** Writes all of `data`, or nothing. @returns false: some of it is not mapped */
  write(vcpu: number, address: bigint, data: Uint8Array): boolean {
    const pieces = [...this.pieces(vcpu, address, data.length)];
    if (pieces.reduce((sum, { size }) => sum + size, 0) < data.length) return false;
    let done = 0;
    for (const { gpa, size } of pieces) {
      this.ram.write(gpa, data.subarray(done, done + size));
      done += size;
    }
    return true;
  }

  private *pieces(vcpu: number, address: bigint, length: number): Generator<{ gpa: number; size: number }> {
    for (let done = 0; done < length; ) {
      const at = BigInt.asUintN(64, address + BigInt(done));
      const gpa = this.translate(vcpu, at);
      if (gpa === undefined) return;
      const size = Math.min(length - done, 4096 - Number(at & 0xfffn));
      yield { gpa, size };
      done += size;
    }
  }
}
