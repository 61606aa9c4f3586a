/**
 * The CPU's own walker and TLBs (the Wasm runtime) over each kind of page table: the guest's alone, with a second level, and shadow tables of both flavours.
 * vCPU 0 is the guest under test; vCPU 1, in an address space of its own that maps all of RAM, is the kernel that changes the tables.
 */
import { StateReader, StateWriter } from '@pvm/cpu-jit';
import {
  ACCESS_IMPLICIT_SUPERVISOR,
  CPU_BASE,
  CPU_STRIDE,
  EPT_QUAL_MISCONFIG,
  EPT_QUAL_TABLE,
  FRAME_POOL_BASE,
  JC_BASE,
  JC_CPU_SIZE,
  PAGING_EPT,
  PAGING_GUEST,
  PAGING_SHADOW,
  S_CODE_SIZE,
  S_CPL,
  S_CR0,
  S_CR3,
  S_CR4,
  S_EFER,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_QUAL,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_ICOUNT_LIMIT,
  S_JC,
  S_RFLAGS,
  S_TLB,
  TLB_BASE,
  TLB_CPU_SIZE,
  V_EPT_ROOT,
  V_LEVELS,
  V_PAGING,
  V_RAM_BASE,
  V_RAM_HIGH,
  V_RAM_LOW,
  V_ROOT,
  V_SLOT,
} from '@pvm/cpu-jit/layout';
import { type HelperExports, instantiateRuntime } from '@pvm/cpu-jit/testing';
import {
  ACCESS_AC,
  EPT_R,
  EPT_W,
  EPT_X,
  FAULT_FIXED,
  FAULT_MMIO,
  FAULT_PF,
  FAULT_TRACKED,
  MODE_32BIT,
  MODE_LA57,
  MODE_NO_PAGING,
  MODE_NO_WP,
  MODE_NX,
  MODE_PAE,
  MODE_PSE,
  MODE_SMAP,
  MODE_SMEP,
  SECOND_LEVEL_FIXED,
  type SecondLevel,
  type ShadowMmu,
} from '../index.ts';
import { gpaToHpa, POOL_FRAMES, RAM_BASE, RAM_HIGH, RAM_LOW, WRITER_ROOT } from './guest-ram.ts';
import { cpuOf, hypervisorTables, type Tables, va64, type WalkerOptions } from './hypervisor-tables.ts';
import { type Access, EXEC, type Registers, type Verdict, WRITE } from './plain-guest.ts';

const GUEST = CPU_BASE;
const WRITER = CPU_BASE + CPU_STRIDE;
const CR0_PG_PE = 0x8000_0001;
const CR0_WP = 1 << 16;
const CR4 = { pse: 1 << 4, pae: 1 << 5, pge: 1 << 7, la57: 1 << 12, pcide: 1 << 17, smep: 1 << 20, smap: 1 << 21 };
const EFER_LME_LMA = 0x500;
const EFER_NXE = 0x800;
const RFLAGS_AC = 1 << 18;
const CR3_NO_FLUSH = 1n << 63n;
const ALL = 0x67;

export class WalkerMachine {
  readonly memory: WebAssembly.Memory;
  readonly view: DataView;
  readonly words: Int32Array;
  /** The hypervisor's tables over the guest's; `restart` replaces the objects. */
  mmu: ShadowMmu | undefined;
  second: SecondLevel | undefined;
  private readonly tables: Tables;
  private readonly options: WalkerOptions;
  private readonly rt: HelperExports;
  private mmio = -1;
  private regs: Registers | undefined;
  private ac = false;

  private constructor(memory: WebAssembly.Memory, rt: HelperExports, tables: Tables, options: WalkerOptions) {
    this.memory = memory;
    this.view = new DataView(memory.buffer);
    this.words = new Int32Array(memory.buffer);
    this.rt = rt;
    this.tables = tables;
    this.options = options;
    this.words.fill(0, GUEST >>> 2, (WRITER + CPU_STRIDE) >>> 2);
    this.words.fill(0, FRAME_POOL_BASE >>> 2);
    this.start(GUEST, 0);
    this.start(WRITER, 1);
    this.createTables();
    if (this.second !== undefined) this.setBoth(V_EPT_ROOT, this.second.root);
    this.startWriter();
  }

  private createTables(): void {
    Object.assign(this, hypervisorTables(this.tables, this.memory, this.rt, this.options));
  }

  /** Saves the hypervisor's tables and goes on with new objects made from what was saved, as a restored machine does; memory and TLBs stay. */
  restart(): void {
    const saved = this.mmu ?? this.second;
    if (saved === undefined) return;
    const state = StateWriter.save(saved);
    const frames = this.words.slice(FRAME_POOL_BASE >>> 2, RAM_BASE >>> 2);
    const tlbs = this.words.slice(CPU_BASE >>> 2, (WRITER + CPU_STRIDE) >>> 2);
    this.createTables();
    this.words.set(frames, FRAME_POOL_BASE >>> 2);
    this.words.set(tlbs, CPU_BASE >>> 2);
    const restored = this.mmu ?? this.second;
    if (restored !== undefined) StateReader.restore(restored, state);
  }

  private static runtime: { memory: WebAssembly.Memory; rt: HelperExports; current: { machine: WalkerMachine | undefined } } | undefined;

  /** A machine with empty RAM; the runtime and its memory are shared, so there is one machine at a time. */
  static async create(tables: Tables, options: WalkerOptions = {}): Promise<WalkerMachine> {
    if (WalkerMachine.runtime === undefined) {
      const pages = Math.ceil((FRAME_POOL_BASE + POOL_FRAMES * 4096 + RAM_LOW + RAM_HIGH) / 65536);
      const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
      const table = new WebAssembly.Table({ element: 'anyfunc', initial: 64 });
      const current: { machine: WalkerMachine | undefined } = { machine: undefined };
      const rt = (await instantiateRuntime(memory, table, {
        mmuFault: (cpu) => current.machine?.mmuFault(cpu) ?? 3,
        mmio: (cpu) => current.machine?.onMmio(cpu) ?? 1,
        smc: () => 0,
        hot: () => {},
        hostTsc: () => 0,
      })) as HelperExports;
      WalkerMachine.runtime = { memory, rt, current };
    }
    const { memory, rt, current } = WalkerMachine.runtime;
    current.machine = undefined;
    const machine = new WalkerMachine(memory, rt, tables, options);
    current.machine = machine;
    return machine;
  }

  // ------------------------------------------------------------ state of the CPUs
  private get(cpu: number, offset: number): number {
    return this.words[(cpu + offset) >>> 2] as number;
  }
  private set(cpu: number, offset: number, value: number): void {
    this.words[(cpu + offset) >>> 2] = value;
  }
  private set64(cpu: number, offset: number, value: number): void {
    this.set(cpu, offset, value | 0);
    this.set(cpu, offset + 4, Math.floor(value / 2 ** 32));
  }
  private setBoth(offset: number, value: number): void {
    this.set(GUEST, offset, value);
    this.set(WRITER, offset, value);
  }

  private start(cpu: number, index: number): void {
    this.set(cpu, S_TLB, TLB_BASE + index * TLB_CPU_SIZE);
    this.set(cpu, S_JC, JC_BASE + index * JC_CPU_SIZE);
    this.set(cpu, S_CODE_SIZE, 64);
    this.set(cpu, V_RAM_BASE, RAM_BASE);
    this.set(cpu, V_RAM_LOW, RAM_LOW);
    this.set(cpu, V_RAM_HIGH, RAM_HIGH);
    this.set(cpu, V_LEVELS, 4);
    this.set64(cpu, S_ICOUNT_LIMIT, Number.MAX_SAFE_INTEGER);
    this.set(cpu, V_PAGING, this.tables === 'guest' ? PAGING_GUEST : this.tables === 'second-level' ? PAGING_EPT : PAGING_SHADOW);
    this.rt.tlbFlushAll(cpu);
  }

  /** 4 KiB pages at 0 for RAM below 4 GiB, and from 8 MiB on for the rest. */
  private startWriter(): void {
    const put = (gpa: number, index: number, entry: number) => this.view.setBigUint64(gpaToHpa(gpa) + index * 8, BigInt(entry), true);
    const [pdpt, pd, first] = [WRITER_ROOT + 0x1000, WRITER_ROOT + 0x2000, WRITER_ROOT + 0x3000];
    put(WRITER_ROOT, 0, pdpt + ALL);
    put(pdpt, 0, pd + ALL);
    for (let i = 0; i < 5; i++) put(pd, i, first + i * 4096 + ALL);
    const pages = (RAM_LOW + RAM_HIGH) / 4096;
    for (let page = 0; page < pages; page++) {
      const gpa = page * 4096 < RAM_LOW ? page * 4096 : 2 ** 32 + page * 4096 - RAM_LOW;
      put(first + (page >>> 9) * 4096, page & 511, gpa + ALL);
    }
    this.set(WRITER, S_CR0, CR0_PG_PE | CR0_WP);
    this.set(WRITER, S_CR4, CR4.pae);
    this.set(WRITER, S_EFER, EFER_LME_LMA | EFER_NXE);
    this.set(WRITER, S_CR3, WRITER_ROOT);
    if (this.mmu === undefined) return;
    if (this.tables === 'pvm') this.set(WRITER, S_CPL, 3);
    this.enterShadow(1, WRITER_ROOT, MODE_NX, true);
  }

  /** Makes the shadow of a CR3 current on a vCPU. */
  private enterShadow(vcpu: number, cr3: number, mode: number, flush: boolean): void {
    const { mmu } = this;
    if (mmu === undefined) throw new Error('no shadow tables');
    const cpu = cpuOf(vcpu);
    const slot = mmu.load(vcpu, cr3, cr3, mode, flush);
    this.set(cpu, V_SLOT, slot);
    this.set(cpu, V_LEVELS, mmu.levels(vcpu));
    this.selectPrivilege(vcpu, false);
  }

  /** Makes a privilege level current: its TLB array, and under PVM its root. */
  private selectPrivilege(vcpu: number, user: boolean): void {
    const cpu = cpuOf(vcpu);
    if (this.mmu !== undefined) this.set(cpu, V_ROOT, user ? this.mmu.userRoot(vcpu) : this.mmu.kernelRoot(vcpu));
    this.set(cpu, S_CPL, user || this.tables === 'pvm' ? 3 : 0);
    this.rt.selectArray(cpu, this.get(cpu, V_SLOT) * 2 + (user ? 1 : 0));
  }

  // ------------------------------------------------------------ the guest's control registers
  /** Loads all paging registers of the guest under test: every TLB entry goes. */
  setRegisters(regs: Registers): void {
    this.regs = regs;
    const is64 = regs.paging === '4-level' || regs.paging === '5-level';
    const bit = (condition: boolean, mask: number) => (condition ? mask : 0);
    const wp = bit(regs.wp, CR0_WP);
    if (this.tables !== 'pvm') {
      this.set(GUEST, S_CR0, regs.paging === 'off' ? 1 | wp : CR0_PG_PE | wp);
      const features = bit(regs.smep, CR4.smep) | bit(regs.smap, CR4.smap) | bit(regs.pge, CR4.pge) | bit(regs.pse, CR4.pse) | bit(regs.pcide, CR4.pcide);
      this.set(GUEST, S_CR4, features | bit(is64 || regs.paging === 'pae', CR4.pae) | bit(regs.paging === '5-level', CR4.la57));
      this.set(GUEST, S_EFER, bit(is64, EFER_LME_LMA) | bit(regs.nx, EFER_NXE));
    } else this.set(GUEST, S_EFER, EFER_LME_LMA | EFER_NXE);
    if (this.mmu !== undefined) {
      this.mmu.flushAll(0);
      this.enterShadow(0, regs.cr3 + regs.pcid, this.mode(), true);
      this.rt.tlbFlushAll(GUEST);
      return;
    }
    this.set64(GUEST, S_CR3, regs.cr3);
    this.set(GUEST, V_LEVELS, regs.paging === '5-level' ? 5 : 4);
    this.rt.tlbFlushAll(GUEST);
    this.rt.sys_write_cr(GUEST, S_CR3, BigInt(regs.cr3 + regs.pcid));
  }

  /** MODE_* of the guest's registers. */
  private mode(): number {
    const { regs } = this;
    if (regs === undefined) throw new Error('no registers');
    const paging = { '4-level': 0, '5-level': MODE_LA57, pae: MODE_PAE, '32-bit': MODE_32BIT, off: MODE_NO_PAGING }[regs.paging];
    if (regs.paging === 'off') return paging;
    const nx = regs.nx && regs.paging !== '32-bit' ? MODE_NX : 0;
    const pse = regs.pse && regs.paging === '32-bit' ? MODE_PSE : 0;
    return paging | nx | pse | (regs.smep ? MODE_SMEP : 0) | (regs.smap ? MODE_SMAP : 0) | (regs.wp ? 0 : MODE_NO_WP);
  }

  loadCr3(cr3: number, pcid: number, flush: boolean): void {
    if (this.mmu !== undefined) {
      this.enterShadow(0, cr3 + pcid, this.mode(), flush);
      if (flush && this.regs?.pcide === true) this.mmu.flushPcid(0, pcid);
    } else this.rt.sys_write_cr(GUEST, S_CR3, BigInt(cr3 + pcid) | (flush ? 0n : CR3_NO_FLUSH));
  }

  invlpg(low: number, high: number): void {
    if (this.mmu !== undefined) this.mmu.invlpg(0, low, high);
    else this.rt.sys_invlpg(GUEST, va64(low, high));
  }

  /** INVPCID (SDM vol. 2): type 0 one address of one PCID, 1 one PCID, 2 everything, 3 everything but globals. */
  invpcid(type: number, pcid: number, low: number, high: number): void {
    if (this.mmu === undefined) this.rt.invalidatePcid(GUEST, type, pcid, va64(low, high));
    else if (type === 0) this.mmu.invlpgPcid(0, pcid, low, high);
    else if (type === 1) this.mmu.flushPcid(0, pcid);
    else this.mmu.flushAll(0);
  }

  /** INVPCID of every PCID, or a change of CR4.PGE. */
  flushAll(): void {
    if (this.mmu !== undefined) this.mmu.flushAll(0);
    else this.rt.tlbFlushAll(GUEST);
  }

  // ------------------------------------------------------------ accesses
  /** One access of the guest under test, of 1 byte; a write stores `value`. */
  access({ low, high, user, kind, ac }: Access, value: number): Verdict {
    const { rt } = this;
    this.selectPrivilege(0, user);
    this.ac = ac;
    this.set(GUEST, S_RFLAGS, ac ? RFLAGS_AC : 0);
    rt.alignment(GUEST);
    this.mmio = -1;
    const va = va64(low, high);
    let hpa = 0;
    if (kind === WRITE) {
      // What a hook that emulates the store would write.
      this.set(GUEST, S_EXIT_VALUE, value);
      hpa = rt.translate(GUEST, va, 1) >>> 0;
      if (hpa !== 0) this.view.setUint8(hpa, value);
      else if (this.mmu !== undefined) hpa = this.mmu.faultHpa;
    } else hpa = (kind === EXEC ? rt.translateExec(GUEST, va) : rt.translate(GUEST, va, 0)) >>> 0;
    const exception = this.get(GUEST, S_EXC);
    this.set(GUEST, S_EXC, 0);
    if (this.mmio >= 0) return { kind: 'mmio', value: this.mmio };
    if (exception === 15) return { kind: 'fault', value: this.get(GUEST, S_EXC_ERROR) };
    if (exception !== 0 || hpa === 0) {
      const kind = this.get(GUEST, S_EXIT_ACCESS);
      throw new Error(`S_EXC 0x${exception.toString(16)} where only #PF can be: access ${kind} at ${va.toString(16)}, ${JSON.stringify(this.regs)}`);
    }
    return { kind: 'ram', value: hpa };
  }

  /** A store of the writer to a guest-physical address: 1, 2, 4 or 8 bytes, which may cross a page. */
  store(gpa: number, size: number, low: number, high: number): void {
    const { rt } = this;
    const va = BigInt(gpa < RAM_LOW ? gpa : gpa - 2 ** 32 + RAM_LOW);
    if (size === 8) rt.store64(WRITER, va, va64(low, high));
    else if (size === 4) rt.store32(WRITER, va, low);
    else if (size === 2) rt.store16(WRITER, va, low & 0xffff);
    else rt.store8(WRITER, va, low & 0xff);
    if (this.get(WRITER, S_EXC) !== 0) throw new Error(`the writer's store to gpa 0x${gpa.toString(16)} failed`);
  }

  /** Checks the structure of the tables under test. */
  check(): void {
    this.mmu?.check();
    this.second?.check();
  }

  // ------------------------------------------------------------ hooks of the CPU
  private onMmio(cpu: number): number {
    if (cpu === GUEST) this.mmio = this.view.getUint32(cpu + S_EXIT_GPA, true) + this.view.getUint32(cpu + S_EXIT_GPA + 4, true) * 2 ** 32;
    return 2;
  }

  private mmuFault(cpu: number): number {
    return this.second !== undefined ? this.secondFault(cpu, this.second) : this.shadowFault(cpu);
  }

  private secondFault(cpu: number, second: SecondLevel): number {
    const gpa = this.view.getUint32(cpu + S_EXIT_GPA, true) + this.view.getUint32(cpu + S_EXIT_GPA + 4, true) * 2 ** 32;
    const qualification = this.get(cpu, S_EXIT_QUAL);
    const access = this.get(cpu, S_EXIT_ACCESS) & 3;
    const isTable = (qualification & EPT_QUAL_TABLE) !== 0;
    const need = isTable ? EPT_R | EPT_W : access === 2 ? EPT_X : access !== 0 ? EPT_W : EPT_R;
    const result = (qualification & EPT_QUAL_MISCONFIG) !== 0 ? second.misconfiguration(gpa) : second.violation(gpa, need);
    if (result === SECOND_LEVEL_FIXED) return 0;
    if (!isTable) return this.onMmio(cpu);
    // A table in device memory reads as all ones: reserved bits.
    const user = this.get(cpu, S_CPL) === 3 ? 4 : 0;
    const regs = this.regs;
    const isFetch = access === 2 && (regs?.smep === true || (regs?.nx === true && regs.paging !== '32-bit'));
    this.rt.sys_invlpg(cpu, va64(this.get(cpu, S_EXIT_VA), this.get(cpu, S_EXIT_VA + 4)));
    return this.raise(cpu, 9 | (access === 1 || access === 3 ? 2 : 0) | user | (isFetch ? 16 : 0));
  }

  private raise(cpu: number, error: number): number {
    this.set(cpu, S_EXC, 15);
    this.set(cpu, S_EXC_ERROR, error);
    this.set(cpu, S_EXC_ADDR, this.get(cpu, S_EXIT_VA));
    return 1;
  }

  private shadowFault(cpu: number): number {
    const { mmu } = this;
    if (mmu === undefined) throw new Error('no shadow tables');
    const vcpu = cpu === GUEST ? 0 : 1;
    const access = this.get(cpu, S_EXIT_ACCESS) & (3 | ACCESS_IMPLICIT_SUPERVISOR);
    const user = this.get(cpu, S_TLB) & 0x8000 ? 1 : 0;
    const ac = cpu === GUEST && this.ac ? ACCESS_AC : 0;
    switch (mmu.fault(vcpu, user, this.get(cpu, S_EXIT_VA), this.get(cpu, S_EXIT_VA + 4), access | ac)) {
      case FAULT_FIXED:
        return 0;
      case FAULT_PF:
        return this.raise(cpu, mmu.errorCode);
      case FAULT_TRACKED: {
        const size = this.get(cpu, S_EXIT_SIZE);
        const value = cpu + S_EXIT_VALUE;
        if ((access & 3) === 3) new Uint8Array(this.memory.buffer).copyWithin(value, mmu.faultHpa, mmu.faultHpa + size);
        else mmu.emulateWrite(mmu.faultHpa, size, value);
        return 2;
      }
      case FAULT_MMIO:
        this.words[(cpu + S_EXIT_GPA) >>> 2] = mmu.faultGpa | 0;
        this.words[(cpu + S_EXIT_GPA + 4) >>> 2] = Math.floor(mmu.faultGpa / 2 ** 32);
        return this.onMmio(cpu);
      default:
        throw new Error('unknown answer of the shadow MMU');
    }
  }
}
