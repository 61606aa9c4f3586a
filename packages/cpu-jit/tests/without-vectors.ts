/** Instructions that no recorded vector can show, and why. Their tests are written from the manual. */
export const WITHOUT_VECTORS: Readonly<Record<string, string>> = {
  ...reason("the answer is the machine's own: identification, time, randomness, processor number", 'cpuid rdtsc rdtscp rdpmc rdrand rdseed rdpid xgetbv'),
  ...reason('enters the kernel of the recording machine', 'syscall sysenter int int1 int3'),
  ...reason("Linux answers in place of a processor with UMIP, or the tables are the machine's own", 'sgdt sidt sldt str smsw'),
  ...reason('not offered: #UD, where the recording machine has them and raises #GP', 'xsaves xrstors'),
  ...reason('answered by the hypervisor under the recording machine', 'vmcall vmmcall'),
};

function reason(why: string, names: string): Record<string, string> {
  return Object.fromEntries(names.split(' ').map((name) => [name, why]));
}
