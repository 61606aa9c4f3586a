import type { DeviceItem, HostSide } from './devices.ts';
import type { ProofItem } from './items.ts';
import type { GuestSession } from './session.ts';

/** What came of an item. */
export interface Proof {
  readonly name: string;
  /** On the host's clock. */
  readonly seconds: number;
  /** Undefined: it works. */
  readonly problem: string | undefined;
}

/** The timeouts are for a quiet host; this one may be busy with other things. */
const PATIENCE = 20;
const DEFAULT_SECONDS = 60;

/** Types a command into the guest's shell and judges what it says. @throws Error when the guest does not answer */
export async function prove(guest: GuestSession, item: ProofItem): Promise<Proof> {
  const { status, output, seconds } = await guest.run(item.command, (item.timeoutSeconds ?? DEFAULT_SECONDS) * 1000 * PATIENCE);
  const problems = [
    ...(status === 0 ? [] : [`exit code ${status}`]),
    ...(item.says === undefined || item.says.test(output) ? [] : [`did not say ${item.says}`]),
    ...(item.silentOf?.test(output) === true ? [`said ${item.silentOf}`] : []),
  ];
  return { name: item.name, seconds, problem: problems.length === 0 ? undefined : `${problems.join(', ')}:\n${output}` };
}

/** The same for a device. */
export async function proveDevice(guest: GuestSession, host: HostSide, { name, prove }: DeviceItem): Promise<Proof> {
  const start = performance.now();
  let problem: string | undefined;
  try {
    await prove(guest, host);
  } catch (e) {
    problem = e instanceof Error ? e.message : String(e);
  }
  return { name, seconds: (performance.now() - start) / 1000, problem };
}

/** Item, result and seconds, a line each. */
export function table(proofs: readonly Proof[]): string {
  const width = Math.max(...proofs.map(({ name }) => name.length));
  const lines = proofs.map(
    ({ name, seconds, problem }) => `${name.padEnd(width)}  ${problem === undefined ? 'ok    ' : 'FAILED'}  ${seconds.toFixed(1).padStart(8)}`,
  );
  return [`${'item'.padEnd(width)}  result   seconds`, ...lines].join('\n');
}
