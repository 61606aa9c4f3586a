/** Breakpoints and watchpoints of a debugger outside of the guest. */
import { S_DEBUG, S_DR } from './layout.ts';

/** What is needed of the CPU. */
interface Core {
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  cpuAddress(vcpu: number): number;
  codeAddress(vcpu: number): bigint;
  probeCode(vcpu: number, address: bigint): number;
}
interface Code {
  setBreakpoint(hpa: number, isSet: boolean): void;
  hasBreakpoint(hpa: number): boolean;
  flush(): void;
}
interface DebugRegisters {
  watch(cpu: number): void;
}

export interface Watchpoint {
  /** Linear address, a multiple of `size`. */
  readonly address: bigint;
  /** Bytes. */
  readonly size: 1 | 2 | 4 | 8;
  readonly kind: 'write' | 'access';
}
/** As many as there are debug registers. */
export const MAX_WATCHPOINTS = 4;

const PAGE = 4096n;
const OFFSET = PAGE - 1n;
/** DR0 to DR3 and DR7. */
const WATCHED_REGISTERS = [0, 1, 2, 3, 7] as const;
/** DR7 (SDM vol. 3, 18.2.4): the length field by size, and what is always set. */
const DR7_LENGTH = { 1: 0, 2: 1, 4: 3, 8: 2 } as const;
const DR7_FIXED = 0x400n;
/** Breakpoint conditions in S_DEBUG. */
const HITS = 15;

/**
 * Breakpoints are at linear addresses. Code is kept by host-physical address, so a breakpoint is put wherever its page turns out to be: at once where the page is
 * mapped now, else when code of it is decoded. Running code is not slowed down. Where several pages are mapped at an address in turn (processes), those are
 * found that were mapped when the breakpoint was set, or that are decoded afterwards.
 *
 * Watchpoints use the debug registers, in which the guest's own values do not work meanwhile. Pages with watched bytes are slow.
 *
 * All of it may be changed only outside of generated code.
 */
export class DebugPoints {
  private readonly core: Core;
  private readonly code: Code;
  private readonly registers: DebugRegisters;
  /** Host-physical addresses by linear address. */
  private readonly places = new Map<bigint, Set<number>>();
  /** Linear addresses by page. */
  private readonly pages = new Map<bigint, bigint[]>();
  /** The guest's debug registers by vCPU, while it has watchpoints. */
  private readonly saved: (readonly bigint[] | undefined)[] = [];

  constructor(core: Core, code: Code, registers: DebugRegisters) {
    this.core = core;
    this.code = code;
    this.registers = registers;
  }

  // ------------------------------------------------------------ breakpoints
  get hasBreakpoints(): boolean {
    return this.places.size > 0;
  }

  /**
   * Replaces all breakpoints: `CpuCore.run` returns EXIT_REQUEST before the instruction at one, `runBlock` of a single instruction goes over it.
   *
   * @param hpasOf where an address is mapped now, empty: nowhere
   */
  setBreakpoints(addresses: ReadonlySet<bigint>, hpasOf: (address: bigint) => readonly number[]): void {
    const old = [...this.places].filter(([address]) => !addresses.has(address));
    for (const [address] of old) this.places.delete(address);
    const kept = new Set([...this.places.values()].flatMap((set) => [...set]));
    for (const hpa of new Set(old.flatMap(([, set]) => [...set]))) if (!kept.has(hpa)) this.code.setBreakpoint(hpa, false);
    let isEachMapped = true;
    for (const address of addresses) {
      if (this.places.has(address)) continue;
      this.places.set(address, new Set());
      const hpas = hpasOf(address);
      for (const hpa of hpas) this.place(address, hpa);
      isEachMapped &&= hpas.length > 0;
    }
    this.pages.clear();
    for (const address of this.places.keys()) {
      const page = address & ~OFFSET;
      this.pages.set(page, [...(this.pages.get(page) ?? []), address]);
    }
    // It may have been decoded already in an address space that is not current.
    if (!isEachMapped) this.code.flush();
  }

  /** Code at the next instruction of a vCPU, which is at `hpa`, is about to be decoded. */
  decoding(vcpu: number, hpa: number): void {
    const address = this.core.codeAddress(vcpu);
    const base = hpa - Number(address & OFFSET);
    for (const known of this.pages.get(address & ~OFFSET) ?? []) this.place(known, base + Number(known & OFFSET));
  }

  /** What is at the next instruction: a breakpoint; another address's breakpoint in the same page frame ('alias'), to be stepped over; or none. */
  breakpointHere(vcpu: number): 'breakpoint' | 'alias' | 'none' {
    if (!this.hasBreakpoints) return 'none';
    const address = this.core.codeAddress(vcpu);
    if (this.places.has(address)) return 'breakpoint';
    const hpa = this.core.probeCode(vcpu, address);
    return hpa !== 0 && this.code.hasBreakpoint(hpa) ? 'alias' : 'none';
  }

  private place(address: bigint, hpa: number): void {
    const places = this.places.get(address);
    if (places === undefined || places.has(hpa)) return;
    places.add(hpa);
    this.code.setBreakpoint(hpa, true);
  }

  // ------------------------------------------------------------ watchpoints
  /** At most MAX_WATCHPOINTS; none: the guest has its debug registers again. A hit makes `CpuCore.run` return EXIT_REQUEST after the instruction. */
  setWatchpoints(vcpu: number, watchpoints: readonly Watchpoint[]): void {
    const saved = this.saved[vcpu];
    if (watchpoints.length === 0 && saved === undefined) return;
    const { u64 } = this.core;
    const cpu = this.core.cpuAddress(vcpu);
    const register = (n: number) => (cpu + S_DR + n * 8) >>> 3;
    if (watchpoints.length === 0) {
      WATCHED_REGISTERS.forEach((n, i) => {
        u64[register(n)] = saved?.[i] ?? 0n;
      });
      this.saved[vcpu] = undefined;
    } else {
      this.saved[vcpu] ??= WATCHED_REGISTERS.map((n) => u64[register(n)] ?? 0n);
      let control = 0;
      watchpoints.forEach(({ address, size, kind }, n) => {
        u64[register(n)] = address;
        control |= (2 << (2 * n)) | ((kind === 'write' ? 1 : 3) << (16 + 4 * n)) | (DR7_LENGTH[size] << (18 + 4 * n));
      });
      u64[register(7)] = BigInt(control >>> 0) | DR7_FIXED;
    }
    this.registers.watch(cpu);
  }

  /** A watchpoint was hit and `takeHit` has not been asked yet. */
  isHit(vcpu: number): boolean {
    return this.saved[vcpu] !== undefined && ((this.core.u32[(this.core.cpuAddress(vcpu) + S_DEBUG) >>> 2] ?? 0) & HITS) !== 0;
  }
  /** Number of the watchpoint that was hit, undefined: none. */
  takeHit(vcpu: number): number | undefined {
    if (!this.isHit(vcpu)) return undefined;
    const at = (this.core.cpuAddress(vcpu) + S_DEBUG) >>> 2;
    const debug = this.core.u32[at] ?? 0;
    this.core.u32[at] = debug & ~HITS;
    return 31 - Math.clz32(debug & -debug & HITS);
  }
}
