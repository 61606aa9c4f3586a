import { PvmError } from '../../errors.ts';
import type { DesignInfo } from '../design.ts';
import { perVcpu } from '../per-vcpu.ts';
import { PvmDesign } from './pvm-design.ts';
import { StockDesign } from './stock/stock-design.ts';

export const pvm: DesignInfo = {
  title: 'PVM: guest kernel and user at privilege level 3 on shadow page tables',
  platforms: ['program', 'pc'],
  abiKernels: true,
  optimisations: { 'direct-switch': true, prefault: true, 'pcid-map': true, 'inject-direct': false, kpti: false },
  switcher: true,
  smp: true,
  create: (context) => {
    const { core, ram, ledger, platform, time, options } = context;
    const { stock } = options;
    if (stock !== undefined) {
      const { 'pcid-map': pcidMap, 'inject-direct': injectDirect } = options.optimisations;
      if (injectDirect || !pcidMap)
        throw new PvmError('bad-option', 'the switches pcid-map and inject-direct are for guests that speak the PVM ABI, not for unmodified kernels');
      return perVcpu<StockDesign>(context, (index, first) => new StockDesign(context, stock, index, first?.shadow));
    }
    return new PvmDesign({
      core,
      ram,
      ledger,
      platform,
      tsc: (vcpu) => time.tsc(vcpu),
      wallClock: () => time.wallClock(),
      abi: options.abi ?? 'auto',
      directSwitch: options.optimisations['direct-switch'] === true,
      prefault: options.optimisations.prefault === true,
      pcidMap: options.optimisations['pcid-map'] === true,
      injectDirect: options.optimisations['inject-direct'] === true,
    });
  },
};
