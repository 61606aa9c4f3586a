import type { PvmVcpu } from './pvm-vcpu.ts';

/** Revisions of the PVM guest ABI. */
export const ABI_REVISIONS = ['v2', 'rfc-v1'] as const;
export type AbiRevision = (typeof ABI_REVISIONS)[number];

/** Byte offsets of the PVCS that differ; those that do not are in constants.ts. */
export interface PvcsLayout {
  readonly cr2: number;
  readonly userGsBase: number;
  readonly eflags: number;
  readonly pkru: number;
  readonly rip: number;
  readonly rcx: number;
  readonly r11: number;
}

/** What a revision of the ABI does in its own way. It has no state: that is in the vCPU. */
export interface Revision {
  readonly name: AbiRevision;
  readonly pvcs: PvcsLayout;
  /** The layout for the switcher, see `P_PVCS_SHIFT`. */
  readonly pvcsShift: number;
  /** The supervisor may not execute user pages while NX is on. */
  readonly smep: boolean;
  /** RAX of LOAD_TLS. */
  readonly loadTlsResult: number;
  /** Root tables of smod and umod, as CR3 holds them; the vCPU is in smod. */
  roots(vcpu: PvmVcpu): { readonly kernel: bigint; readonly user: bigint };
  /** LOAD_PGTBL: its table arguments become CR3 and what goes with it. */
  setRoots(vcpu: PvmVcpu): void;
  /** The current pair of tables lets the switcher change between the modes. */
  canSwitch(vcpu: PvmVcpu): boolean;
  /** Exchange what a change of mode exchanges beside the state that both revisions save. */
  changeMode(vcpu: PvmVcpu, toSmod: boolean): void;
  /** Leave vector and error code of an event from umod in the PVCS. */
  storeUserEvent(vcpu: PvmVcpu, vector: number, error: number): void;
  /** Deliver an event that happened in smod. @throws TripleFault when the guest cannot take it */
  deliverFromSmod(vcpu: PvmVcpu, vector: number, error: number): void;
  /** Whether smod can take an interrupt, apart from the virtual IF, and an NMI. */
  takesInterrupt(vcpu: PvmVcpu): boolean;
  takesNmi(vcpu: PvmVcpu): boolean;
  /** A SYSCALL of smod that is neither ERETU nor a hypercall: returns its name for the ledger when it was one. @throws GuestPageFault */
  syntheticReturn(vcpu: PvmVcpu): string | undefined;
  /** MSRs that only this revision has. Undefined: not one of them. */
  readMsr(vcpu: PvmVcpu, index: number): bigint | undefined;
  /** False: #GP. */
  writeMsr(vcpu: PvmVcpu, index: number, value: bigint): boolean | undefined;
}
