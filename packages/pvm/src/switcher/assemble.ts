import * as layout from '@pvm/cpu-jit/layout';
import wabt from 'wabt';
import * as rfc from '../abi-rfc-v1/constants.ts';
import * as abi from '../abi-v2/constants.ts';

/** Fields that layout.ts describes by base and stride. */
const derived: Readonly<Record<string, number>> = {
  PVCS_RSP: rfc.PVCS_RSP,
  RFC_EVENT_ERRCODE: rfc.PVCS_EVENT_ERRCODE,
  RFC_EVENT_VECTOR: rfc.PVCS_EVENT_VECTOR,
  RCX: layout.S_GPR + 8,
  RSP: layout.S_GPR + 4 * 8,
  R11: layout.S_GPR + 11 * 8,
  GS_BASE: layout.S_SEG + layout.GS * layout.SEG_STRIDE + layout.SEG_BASE,
  CS_SELECTOR: layout.S_SEG + layout.CS * layout.SEG_STRIDE + layout.SEG_SELECTOR,
  SS_SELECTOR: layout.S_SEG + layout.SS * layout.SEG_STRIDE + layout.SEG_SELECTOR,
  T_CTX_USER: layout.T_CTX + 4,
};

/**
 * Puts the constants into the switcher's source and assembles it.
 *
 * @throws Error naming the unknown constant, or wabt's message
 */
export async function assembleSwitcher(source: string): Promise<Uint8Array> {
  const constants: Readonly<Record<string, unknown>> = { ...layout, ...abi, ...derived };
  const code = source.replace(/;;.*$/gm, '').replace(/(?<=offset=|const )[A-Z][A-Z0-9_]*/g, (name) => {
    const value = constants[name];
    if (typeof value !== 'number') throw new Error(`switcher.wat names an unknown constant: ${name}`);
    return String(value);
  });
  const module = (await wabt()).parseWat('switcher.wat', code, { threads: true, tail_call: true });
  try {
    return module.toBinary({}).buffer;
  } finally {
    module.destroy();
  }
}
