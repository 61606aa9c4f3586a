/** For programs that will make a machine in a moment: what can begin before the rest of this package is loaded. */
export { prepareCompiler } from '@pvm/cpu-jit/compiler-thread';
