// Two projects: unit runs anywhere, host only inside the namespaces that scripts/test.ts makes.
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
          exclude: ['test/host/**'],
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
