// Writes the JSON schema of configurations (pvm run --config) into the package's build folder.
import { mkdirSync, writeFileSync } from 'node:fs';
import { configSchema } from '../src/config.ts';

const target = new URL('../build/vm.schema.json', import.meta.url);
mkdirSync(new URL('.', target), { recursive: true });
writeFileSync(target, `${JSON.stringify(configSchema(), null, 2)}\n`);
