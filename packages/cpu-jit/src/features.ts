/** What the CPU is, by the levels of the x86-64 psABI. */
export const CPU_LEVELS = ['v2', 'v3'] as const;
export type CpuLevel = (typeof CPU_LEVELS)[number];
