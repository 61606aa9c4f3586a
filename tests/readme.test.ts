import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { demoPath } from '../guests/src/index.ts';
import { pvm } from '../packages/cli/src/testing/pvm-process.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const README = readFileSync(`${ROOT}/README.md`, 'utf8');

/** Commands that have commands of their own. */
const GROUPS: ReadonlySet<string> = new Set(['bench', 'image', 'jit', 'snapshot', 'stat']);

/** The command's own README has the examples that the first one has no room for. */
const COMMAND_README = readFileSync(`${ROOT}/packages/cli/README.md`, 'utf8');
/** The lines that show the command `pvm`, without what they say about it. */
const LINES = [...`${README}\n${COMMAND_README}`.matchAll(/^ {4}(pvm .*)$/gm)].map((m) => (m[1] ?? '').split(/ {2,}# /)[0] ?? '');
/** By command, the options that examples give it. What comes after ` -- ` is for `pvm run`. */
const given = new Map<string, Set<string>>();
for (const line of LINES) {
  for (const [i, part] of line.split(' -- ').entries()) {
    const words = (i === 0 ? part.replace(/^pvm /, '') : `run ${part}`).split(' ');
    const command = words.slice(0, GROUPS.has(words[0] ?? '') ? 2 : 1).join(' ');
    const options = given.get(command) ?? new Set();
    given.set(command, options);
    // What follows a program's name is the program's.
    const own = words.findIndex((word) => word.startsWith('./'));
    for (const word of words.slice(0, own < 0 ? undefined : own)) if (/^--?[a-z]/.test(word)) options.add(word);
  }
}

it('has examples', () => {
  expect(LINES.length).toBeGreaterThan(15);
});

it.each([...given].map(([command, options]) => [command, [...options]] as const))('pvm %s has the options that the READMEs show: %j', (command, options) => {
  const { stdout, status } = pvm([...command.split(' '), '--help']);
  expect(status).toBe(0);
  for (const option of options) expect(` ${stdout.replaceAll(',', ' ')}`).toMatch(new RegExp(`\\s${option}[\\s=]`));
});

it('its program runs a guest and prints what that cost', () => {
  const [, code = ''] = /```ts\n(.*?)```/s.exec(README) ?? [];
  expect(code).toContain("'./hello'");
  const program = code.replace("'./hello'", JSON.stringify(demoPath));
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-C', 'source', '--input-type=module-typescript', '-e', program], {
    encoding: 'utf8',
    cwd: `${ROOT}/packages/cli`,
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toMatch(/^0 \d+n .*VM-EXIT/m);
});
