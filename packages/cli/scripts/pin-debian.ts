// Writes images/debian-12.json anew: the packages of the image as apt on this Debian host would fetch them now, by path, size and SHA-256.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KERNEL, PACKAGES } from '../src/image/debian.ts';

const folder = mkdtempSync(join(tmpdir(), 'pin-'));
writeFileSync(join(folder, 'status'), '');
const apt = (...args: string[]) =>
  execFileSync('apt-get', ['-o', 'Acquire::ForceHash=SHA256', '-o', 'Debug::NoLocking=1', '-qq', ...args], { encoding: 'utf8' });
const kernel = /Depends: (linux-image-\S+)/.exec(execFileSync('apt-cache', ['depends', KERNEL], { encoding: 'utf8' }))?.[1] ?? '';
const install = ['-o', `Dir::State::status=${join(folder, 'status')}`, '-o', `Dir::Cache::archives=${join(folder, 'none')}`, '-y', '--no-install-recommends'];
const lines = apt(...install, '--print-uris', 'install', ...PACKAGES) + apt('--print-uris', 'download', kernel);
rmSync(folder, { recursive: true });
const files = [...lines.matchAll(/^'[^']*?\/(pool\/[^']+)' \S+ (\d+) SHA256:([0-9a-f]{64})$/gm)].map((m) => ({
  path: m[1],
  bytes: Number(m[2]),
  sha256: m[3],
}));
writeFileSync(new URL('../images/debian-12.json', import.meta.url), `[\n${files.map((file) => `  ${JSON.stringify(file)}`).join(',\n')}\n]\n`);
console.log(`${files.length} packages, ${files.reduce((sum, file) => sum + file.bytes, 0)} bytes`);
