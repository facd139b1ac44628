// Three projects: unit runs anywhere, load one file at a time and beside nothing else (its tests hold
// shares and waits to bounds), host only inside the namespaces that scripts/test.ts makes.
import { defineConfig } from 'vitest/config'

const shared = {
  globalSetup: 'test/setup/bundle.ts',
  testTimeout: 30_000,
  hookTimeout: 30_000,
}

export default defineConfig({
  test: {
    passWithNoTests: true,
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/host/**', 'test/load/**'],
        },
      },
      {
        test: {
          ...shared,
          name: 'load',
          include: ['test/load/**/*.test.ts'],
          fileParallelism: false,
        },
      },
      {
        test: {
          ...shared,
          name: 'host',
          include: ['test/host/**/*.test.ts'],
          setupFiles: 'test/setup/host.ts',
          fileParallelism: false,
        },
      },
    ],
  },
})
