import type { DesignInfo } from '../design.ts';
import { perVcpu } from '../per-vcpu.ts';
import { KvmEptDesign } from './kvm-ept-design.ts';

export const kvmEpt: DesignInfo = {
  title: 'KVM with two-dimensional paging (EPT)',
  platforms: ['program', 'pc'],
  abiKernels: false,
  optimisations: { 'large-pages': true, kpti: false },
  switcher: false,
  smp: true,
  create: (context) => perVcpu<KvmEptDesign>(context, (index, first) => new KvmEptDesign(context, index, first?.table)),
};
