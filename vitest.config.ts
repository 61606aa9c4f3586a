import { defineConfig } from 'vitest/config';

// Workspace packages resolve to their TypeScript sources, so tests never run against a stale build.
export default defineConfig({
  resolve: { conditions: ['source'] },
  ssr: { resolve: { conditions: ['source'], externalConditions: ['source'] } },
  test: {
    include: ['packages/*/src/**/*.test.ts', 'tests/**/*.test.ts', 'guests/**/*.test.ts', 'benchmarks/src/**/*.test.ts'],
    maxWorkers: 2,
    testTimeout: 60_000,
    execArgv: ['-C', 'source'],
  },
});
