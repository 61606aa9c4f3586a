// CPUID from the table that TypeScript filled (CPUID_* in layout.ts), with the bits that mirror control registers.
import {
  CPUID_ANY_SUBLEAF, CPUID_COUNT, CPUID_ENTRIES, CPUID_ENTRY_SIZE, S_CR4, S_GPR, S_XCR0,
} from "../src/layout";
import { CR4_PKE } from "./cpu";

const CR4_OSXSAVE: u32 = 1 << 18;
const OSXSAVE: u32 = 1 << 27;
const OSPKE: u32 = 1 << 4;
/** Bytes of the legacy region and header; with AVX. */
const XSAVE_SSE: u32 = 576;
const XSAVE_AVX: u32 = 832;

function find(cpu: u32, leaf: u32, subleaf: u32): u32 {
  const n = load<u32>(cpu, CPUID_COUNT);
  let entry = cpu + CPUID_ENTRIES;
  for (let i: u32 = 0; i < n; i++, entry += CPUID_ENTRY_SIZE) {
    if (load<u32>(entry) != leaf) continue;
    const wanted = load<u32>(entry, 4);
    if (wanted == subleaf || wanted == <u32>CPUID_ANY_SUBLEAF) return entry;
  }
  return 0;
}

/** Leaf EAX, subleaf ECX; answers in RAX, RBX, RCX, RDX of the state block. */
export function cpuid(cpu: u32): void {
  const leaf = load<u32>(cpu, S_GPR);
  const subleaf = load<u32>(cpu, S_GPR + 8);
  let a: u32 = 0, b: u32 = 0, c: u32 = 0, d: u32 = 0;
  const entry = find(cpu, leaf, subleaf);
  if (entry) {
    a = load<u32>(entry, 8);
    b = load<u32>(entry, 12);
    c = load<u32>(entry, 16);
    d = load<u32>(entry, 20);
    const cr4 = load<u32>(cpu, S_CR4);
    if (leaf == 1) {
      c = cr4 & CR4_OSXSAVE ? c | OSXSAVE : c & ~OSXSAVE;
    } else if (leaf == 7 && subleaf == 0) {
      c = cr4 & CR4_PKE ? c | OSPKE : c & ~OSPKE;
    } else if (leaf == 13 && subleaf < 2) {
      // Size of the XSAVE area for what XCR0 enables.
      b = load<u32>(cpu, S_XCR0) & 4 ? XSAVE_AVX : XSAVE_SSE;
    }
  }
  store<u64>(cpu, a, S_GPR);
  store<u64>(cpu, c, S_GPR + 8);
  store<u64>(cpu, d, S_GPR + 16);
  store<u64>(cpu, b, S_GPR + 24);
}

/** Components that XCR0 may enable: CPUID leaf 13, or x87 and SSE when the table has none. */
export function supportedXcr0(cpu: u32): u64 {
  const entry = find(cpu, 13, 0);
  return entry ? <u64>load<u32>(entry, 8) | <u64>load<u32>(entry, 20) << 32 : 3;
}
