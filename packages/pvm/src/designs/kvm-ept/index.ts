import type { DesignInfo } from '../design.ts';
import { KvmEptDesign } from './kvm-ept-design.ts';

export const kvmEpt: DesignInfo = {
  title: 'KVM with two-dimensional paging (EPT)',
  platforms: ['program', 'pc'],
  abiKernels: false,
  optimisations: { 'large-pages': true },
  switcher: false,
  create: (context) => new KvmEptDesign(context),
};
