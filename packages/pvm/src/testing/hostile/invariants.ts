import type { CpuCore } from '@pvm/cpu-jit';
import {
  CODE_BITS,
  CODE_BITS_END,
  CPU_BASE,
  CPU_STRIDE,
  FRAME_POOL_BASE,
  JC_BASE,
  JC_CPU_SIZE,
  LOOP_ASK,
  MAX_VCPUS,
  RUN_LIMIT,
  TLB_ADDEND,
  TLB_ARRAY_SIZE,
  TLB_ARRAYS,
  TLB_BASE,
  TLB_CPU_SIZE,
  TLB_ENTRY_SIZE,
  TLB_EXEC,
  TLB_READ,
  TLB_WRITE,
  V_APIC_PAGE,
} from '@pvm/cpu-jit/layout';

const TLB_INVALID = (1n << 64n) - 1n;

const zeros = Buffer.alloc(1 << 24);

/** Whether the bytes [from, to) are all zero. */
function isZero(core: CpuCore, from: number, to: number): boolean {
  for (let at = from; at < to; at += zeros.length) {
    const length = Math.min(zeros.length, to - at);
    if (!Buffer.from(core.memory.buffer, at, length).equals(zeros.subarray(0, length))) return false;
  }
  return true;
}

/**
 * What no guest can bring about, whatever it does: parts of linear memory that nobody uses have changed, or a translation leads out of guest RAM.
 *
 * @returns what is wrong, empty when nothing is
 */
export function violations(core: CpuCore): string[] {
  const found: string[] = [];
  const unused = (what: string, from: number, to: number) => {
    if (!isZero(core, from, to)) found.push(`${what} was written`);
  };
  const ramEnd = core.ramBase + core.ramBytes;
  unused('memory below the cells of compiled code', 0, RUN_LIMIT);
  unused('memory below the state blocks', LOOP_ASK + 8, CPU_BASE);
  unused('the state block of a vCPU that is not there', core.cpuAddress(core.vcpus), CPU_BASE + MAX_VCPUS * CPU_STRIDE);
  unused('the TLB of a vCPU that is not there', TLB_BASE + core.vcpus * TLB_CPU_SIZE, TLB_BASE + MAX_VCPUS * TLB_CPU_SIZE);
  unused('the jump cache of a vCPU that is not there', JC_BASE + core.vcpus * JC_CPU_SIZE, JC_BASE + MAX_VCPUS * JC_CPU_SIZE);
  unused('memory above guest RAM', ramEnd, core.memory.buffer.byteLength);
  // Code comes from guest RAM alone.
  const codeBits = (hpa: number) => CODE_BITS + (hpa >>> 12) * 8;
  unused('the map of code below guest RAM', CODE_BITS, codeBits(core.ramBase));
  unused('the map of code above guest RAM', codeBits(ramEnd), CODE_BITS_END);
  for (let vcpu = 0; vcpu < core.vcpus; vcpu++) found.push(...badTranslations(core, vcpu));
  return found;
}

function badTranslations(core: CpuCore, vcpu: number): string[] {
  const { u64, u32 } = core;
  const apicPage = u32[(core.cpuAddress(vcpu) + V_APIC_PAGE) >>> 2] ?? 0;
  const first = TLB_BASE + vcpu * TLB_CPU_SIZE;
  const found: string[] = [];
  for (let at = first; at < first + TLB_ARRAYS * TLB_ARRAY_SIZE; at += TLB_ENTRY_SIZE) {
    for (const kind of [TLB_READ, TLB_WRITE, TLB_EXEC]) {
      const tag = u64[(at + kind) >>> 3] ?? TLB_INVALID;
      if (tag === TLB_INVALID || tag === 0n) continue;
      const page = Number(tag & 0xffff_f000n);
      const hpa = (page + (u32[(at + TLB_ADDEND) >>> 2] ?? 0)) >>> 0;
      if (hpa >= core.ramBase && hpa < core.ramBase + core.ramBytes && hpa % 4096 === 0) continue;
      if (hpa === apicPage && apicPage >= FRAME_POOL_BASE) continue;
      found.push(`vCPU ${vcpu}: 0x${tag.toString(16)} is translated to 0x${hpa.toString(16)}, which is not guest RAM`);
    }
  }
  return found.slice(0, 4);
}
