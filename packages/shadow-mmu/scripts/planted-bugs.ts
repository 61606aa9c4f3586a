// Shows that the tests of the bug classes can fail: plants a bug of each class in the sources, runs those tests, and takes it out again. Takes some minutes.
//   node -C source packages/shadow-mmu/scripts/planted-bugs.ts [CLASS ...]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../../..');
const source = join(import.meta.dirname, '../src');
const report = join(mkdtempSync(join(tmpdir(), 'planted-bugs-')), 'report.json');
const TESTS = ['packages/shadow-mmu/src/bug-classes.test.ts', 'packages/shadow-mmu/src/bug-classes-all-modes.test.ts'];

interface Planted {
  readonly bugClass: number;
  readonly file: string;
  /** What is there once, and what is put in its place. */
  readonly edits: readonly (readonly [from: string, to: string])[];
}
const BUGS: readonly Planted[] = [
  {
    bugClass: 1,
    file: 'shadow-fill.ts',
    edits: [['(level - 1) | (rights << ROLE_ACC_SHIFT) | inherited | (level', '(level - 1) | (ACC_ALL << ROLE_ACC_SHIFT) | inherited | (level']],
  },
  {
    bugClass: 2,
    file: 'unsync.ts',
    edits: [['if (this.pages.pool.unsync[frame] !== 0) this.writes.synchronisePage(frame);\n    else this.syncBelow(frame);', 'this.count += frame - frame;']],
  },
  {
    bugClass: 3,
    file: 'unsync.ts',
    edits: [
      [
        'this.pages.protect(pool.key[page] as number);',
        'this.pages.inSync[pool.key[page] as number] = (this.pages.inSync[pool.key[page] as number] as number) + 1;',
      ],
    ],
  },
  {
    bugClass: 4,
    file: 'shadow-fill.ts',
    edits: [['ROLE_DIRECT | (rights << ROLE_ACC_SHIFT) | inherited', 'ROLE_DIRECT | (ACC_ALL << ROLE_ACC_SHIFT) | inherited']],
  },
  {
    bugClass: 5,
    file: 'pte-write.ts',
    edits: [['const rights = roleAccess(role) & accessOf(low, high);', 'const rights = roleAccess(role) & (accessOf(low, high) | ACC_W);']],
  },
  {
    bugClass: 6,
    file: 'pte-write.ts',
    edits: [['const leafRights = (low & PTE_D) !== 0 ? rights : rights & ~ACC_W;', 'const leafRights = (low & PTE_D) !== 0 ? rights : rights | 0;']],
  },
  {
    bugClass: 7,
    file: 'shadow-pages.ts',
    edits: [
      [
        '      this.drop(sidx);\n    }\n    const frame',
        '      pool.words[word + 1] = high;\n      pool.words[word] = low;\n      return true;\n    }\n    const frame',
      ],
    ],
  },
  { bugClass: 8, file: 'shadow-fill.ts', edits: [['=== this.wantKey && this.pages.pool.role[child] === this.wantRole', '=== this.wantKey']] },
  {
    bugClass: 9,
    file: 'shadow-pages.ts',
    edits: [
      ['if (pool.currentUses[frame] !== 0) this.empty(frame);', 'if (pool.currentUses[frame] === -1) this.empty(frame);'],
      ['if (pool.role[frame] === 0 || pool.currentUses[frame] !== 0) continue;', 'if (pool.role[frame] === 0) continue;'],
    ],
  },
  { bugClass: 10, file: 'pte-write.ts', edits: [['if (hpa < 0 || (level', 'if (hpa < 0) return true;\n    if ((level']] },
  { bugClass: 11, file: 'guest-walk.ts', edits: [['const marks = level === this.leafLevel && write ?', 'const marks = write ?']] },
  {
    bugClass: 12,
    file: 'shadow-pages.ts',
    edits: [['return this.blockTracked[block] === 0 && this.blockLogged[block] === 0;', 'return this.blockLogged[block] === 0;']],
  },
  {
    bugClass: 13,
    file: 'shadow-pages.ts',
    edits: [['this.reach.flushArrays();\n    if (pool.isOrphan(child)) this.free(child);', 'this.reach.flushArrays();\n    this.free(child);']],
  },
  { bugClass: 14, file: 'shadow-pages.ts', edits: [['else if (pool.present[child] !== 0) this.reach.flushArrays();', '']] },
  { bugClass: 15, file: 'shadow-pages.ts', edits: [['const loses = (oldLow & ~low & PTE_W) !== 0 || ', 'const loses = ']] },
  {
    bugClass: 16,
    file: 'shadow-mmu.ts',
    edits: [
      ['if (this.roots.pcid(vcpu) === pcid) this.flushCurrent(vcpu);\n    this.roots.forgetPcid(vcpu, pcid);', ''],
      ['else this.unsync.syncBelow(this.roots.current(vcpu, 0));\n    return slot;', 'return slot;'],
    ],
  },
  { bugClass: 17, file: 'roots.ts', edits: [["if (user === 0 || this.flavour === 'pvm') reach.array(vcpu, (at - vcpu * SLOTS) * 2 + user);", '']] },
  {
    bugClass: 18,
    file: 'roots.ts',
    edits: [['this.pages.pool.currentUses[frame] = (this.pages.pool.currentUses[frame] as number) - 1;', 'this.pages.pool.currentUses[frame] = 0;']],
  },
  { bugClass: 19, file: 'shadow-mmu.ts', edits: [['this.roots.clear();\n    this.reach.everything();', 'this.roots.clear();']] },
];

/** Full names of the tests that fail; a run that ends without a report (the planted bug may not even compile) is an error. */
function failingTests(): string[] {
  rmSync(report, { force: true });
  const args = ['node_modules/vitest/vitest.mjs', 'run', '--reporter=json', `--outputFile=${report}`, '--testTimeout=20000', ...TESTS];
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8', timeout: 120_000 });
  if (!existsSync(report)) throw new Error(`no report: ${stdout.slice(-500)}${stderr.slice(-500)}`);
  const { testResults } = JSON.parse(readFileSync(report, 'utf8')) as { testResults: { assertionResults: { status: string; fullName: string }[] }[] };
  return testResults.flatMap((file) => file.assertionResults.filter((t) => t.status === 'failed').map((t) => t.fullName));
}

const wanted = process.argv.slice(2).map(Number);
let missed = 0;
for (const { bugClass, file, edits } of BUGS.filter((b) => wanted.length === 0 || wanted.includes(b.bugClass))) {
  const path = join(source, file);
  const original = readFileSync(path, 'utf8');
  let planted = original;
  for (const [from, to] of edits) {
    if (planted.split(from).length !== 2) throw new Error(`class ${bugClass}: ${file} does not hold once: ${from}`);
    planted = planted.replace(from, () => to);
  }
  try {
    writeFileSync(path, planted);
    const failed = failingTests();
    const own = failed.filter((name) => new RegExp(`(^| |, )${bugClass}(, \\d+)?: `).test(name));
    if (own.length === 0) missed++;
    console.log(`class ${bugClass}: ${own.length} of its tests fail, ${failed.length} in all${own.length === 0 ? '  <-- NOT CAUGHT' : ''}`);
  } finally {
    writeFileSync(path, original);
  }
}
process.exitCode = missed === 0 ? 0 : 1;
