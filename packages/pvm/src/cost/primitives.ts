/**
 * What modelled time is made of. A profile has a price for some of these; what an exit consists of does not depend on the machine and is
 * `exitSteps`.
 */
export const PRIMITIVES = {
  'switch.vmx': 'one world switch by hardware, with half of what the hypervisor does at every exit (a null hypercall is two)',
  'switch.pvm': 'the same through the switcher',
  'switch.direct': 'one direct switch, by the switcher alone',
  'handle.cpuid': 'answer CPUID',
  'handle.register': "read or write an MSR or a control register, flush translations: the hypervisor's part",
  'handle.pio': 'an access to a port or device register, by the device model',
  'handle.fault': 'find out what an exception is about, and resolve or inject it',
  emulate: 'fetch, decode and emulate one instruction that hardware does not describe',
  instruction: 'one guest instruction',
  'tlb.miss': 'one TLB miss with its walk',
} as const;

export type Primitive = keyof typeof PRIMITIVES;
export const PRIMITIVE_NAMES = Object.keys(PRIMITIVES) as readonly Primitive[];

/** How often each primitive occurs. */
export type Steps = Readonly<Partial<Record<Primitive, number>>>;
