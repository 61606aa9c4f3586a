import type { DesignName } from '../designs/index.ts';
import { PAGE_FAULT } from '../ledger/sub-reasons.ts';
import type { Primitive, Steps } from './primitives.ts';

/** Primitives of one exit beside its two world switches. */
type Handling = readonly Primitive[];
type Handlers = (reason: string, sub: string) => Handling;

interface Composition {
  /** Undefined: no hypervisor is there, what leaves is the devices' own time. */
  readonly worldSwitch: Primitive | undefined;
  readonly handlers: Handlers;
}

const LEAST: Handling = [];
const DEVICE: Handling = ['emulate', 'handle.pio'];
const FAULT: Handling = ['handle.fault'];
const REGISTER: Handling = ['handle.register'];

/** Reasons of a VMX host (SDM vol. 3, appendix C), as `designs/vmx` and what is built on it name them. */
const VMX_HANDLERS: Readonly<Record<string, Handling>> = {
  CPUID: ['handle.cpuid'],
  IO_INSTRUCTION: ['handle.pio'],
  MMIO: DEVICE,
  APIC_ACCESS: ['emulate', 'handle.register'],
  EPT_VIOLATION: FAULT,
  EPT_MISCONFIG: FAULT,
  EXCEPTION_NMI: FAULT,
  VMCALL: LEAST,
  HLT: LEAST,
  EXTERNAL_INTERRUPT: LEAST,
  PENDING_INTERRUPT: LEAST,
  TPR_BELOW_THRESHOLD: LEAST,
  PAUSE_INSTRUCTION: LEAST,
  MONITOR_INSTRUCTION: LEAST,
  MWAIT_INSTRUCTION: LEAST,
};

/** What is left are accesses to registers and flushes. */
function vmx(reason: string, sub: string): Handling {
  if (reason === 'EXCEPTION_NMI' && sub === `#PF ${PAGE_FAULT.tableWrite}`) return ['emulate'];
  if (sub.endsWith(PAGE_FAULT.mmio)) return DEVICE;
  return VMX_HANDLERS[reason] ?? REGISTER;
}

/** Hypercalls that only wait or tell something; the others load registers or flush. */
const LIGHT_HYPERCALLS: ReadonlySet<string> = new Set(['IRQ_WIN', 'IRQ_HALT', 'unknown']);
/** Crossings that the switcher would have made alone, and interrupts. */
const PVM_LIGHT: ReadonlySet<string> = new Set(['SYSCALL', 'ERETU', 'ERETS', 'INT80', 'INTERRUPT', 'HLT', 'FAILED_VMENTRY']);

/** Reasons of the PVM ABI; `#GP` with an instruction is that instruction, emulated. */
function pvm(reason: string, sub: string): Handling {
  if (PVM_LIGHT.has(reason)) return LEAST;
  if (reason === 'HYPERCALL') return LIGHT_HYPERCALLS.has(sub) ? LEAST : REGISTER;
  if (reason === '#PF') return sub === PAGE_FAULT.tableWrite ? ['emulate'] : sub === PAGE_FAULT.mmio ? DEVICE : FAULT;
  if (reason === '#GP' && sub !== '') return emulated(sub);
  if (reason === 'MMIO') return DEVICE;
  return reason.startsWith('#') ? FAULT : REGISTER;
}

const REGISTER_INSTRUCTIONS = /^(RD|WR)MSR|^MOV .*\b[CD]R\d|^(INVLPG|INVPCID|XSETBV|CLTS|LMSW|WBINVD|INVD)/;

function emulated(instruction: string): Handling {
  if (/^(IN|OUT|INS|OUTS)\b/.test(instruction)) return DEVICE;
  // The synthetic CPUID is known by its bytes: nothing is decoded.
  if (instruction === 'CPUID') return ['handle.cpuid'];
  return REGISTER_INSTRUCTIONS.test(instruction) ? ['emulate', 'handle.register'] : ['emulate'];
}

/** A design without an entry does not compile: say here what its exits consist of. */
const COMPOSITIONS = {
  bare: { worldSwitch: undefined, handlers: () => LEAST },
  'kvm-ept': { worldSwitch: 'switch.vmx', handlers: vmx },
  'kvm-spt': { worldSwitch: 'switch.vmx', handlers: vmx },
  pvm: { worldSwitch: 'switch.pvm', handlers: pvm },
} as const satisfies Readonly<Record<DesignName, Composition>>;

/** What one exit of a design consists of; undefined: no such design. */
export function exitSteps(design: string, reason: string, sub: string): Steps | undefined {
  const composition: Composition | undefined = Object.hasOwn(COMPOSITIONS, design) ? COMPOSITIONS[design as DesignName] : undefined;
  if (composition === undefined) return undefined;
  const { worldSwitch, handlers } = composition;
  if (worldSwitch === undefined) return {};
  const steps: Partial<Record<Primitive, number>> = { [worldSwitch]: 2 };
  for (const primitive of handlers(reason, sub)) steps[primitive] = 1;
  return steps;
}
