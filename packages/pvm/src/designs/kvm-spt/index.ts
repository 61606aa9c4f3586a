import type { DesignInfo } from '../design.ts';
import { KvmSptDesign } from './kvm-spt-design.ts';

export const kvmSpt: DesignInfo = {
  title: 'KVM with shadow page tables',
  abiKernels: false,
  platforms: ['program', 'pc'],
  optimisations: { 'large-pages': true, unsync: true },
  switcher: false,
  create: (context) => new KvmSptDesign(context),
};
