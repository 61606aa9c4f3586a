import { loadGuestImage } from './guest-image.ts';
import { checkGivenOptions, checkOptions, type VmOptions } from './options.ts';
import { restoredOptions } from './snapshot/machine-config.ts';
import { SnapshotReader } from './snapshot/reader.ts';
import { Vm } from './vm.ts';

/**
 * Build a machine that runs one program, or boots a stock kernel: reads and checks the files, allocates guest RAM, loads the kernel.
 *
 * @throws PvmError, MachineError: bad options, unreadable or unsuitable files; the reason of `signal` when that ends waiting for the writer of a pipe
 */
export async function createVm(options: VmOptions): Promise<Vm> {
  const { restore } = options;
  if (restore !== undefined) return restoreVm(options, restore);
  const checked = checkOptions(options);
  const image = await loadGuestImage(checked);
  const vm = await Vm.create(checked);
  try {
    vm.load(image);
  } catch (e) {
    await vm.dispose();
    throw e;
  }
  return vm;
}

async function restoreVm(options: VmOptions, from: string | Uint8Array): Promise<Vm> {
  checkGivenOptions(options);
  const snapshot = SnapshotReader.open(from, 'last');
  try {
    snapshot.checkBuild();
    snapshot.start();
    const vm = await Vm.create(checkOptions(restoredOptions(options, snapshot.header.config, snapshot.header.sources)));
    try {
      await vm.restore(snapshot);
    } catch (e) {
      await vm.dispose();
      throw e;
    }
    return vm;
  } catch (e) {
    // Whatever it came to, damage is the reason.
    snapshot.checkIntact();
    throw e;
  } finally {
    snapshot.close();
  }
}
