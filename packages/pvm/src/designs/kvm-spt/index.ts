import type { DesignInfo } from '../design.ts';
import { perVcpu } from '../per-vcpu.ts';
import { KvmSptDesign } from './kvm-spt-design.ts';

export const kvmSpt: DesignInfo = {
  title: 'KVM with shadow page tables',
  abiKernels: false,
  platforms: ['program', 'pc'],
  optimisations: { 'large-pages': true, unsync: true, kpti: false },
  switcher: false,
  smp: true,
  create: (context) => perVcpu<KvmSptDesign>(context, (index, first) => new KvmSptDesign(context, index, first?.mmu)),
};
