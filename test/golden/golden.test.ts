// Histories that were once recorded fold to the same for ever.
import { basename } from 'node:path'
import { expect, test } from 'vitest'
import { goldenFiles, missingTypes, problemsOf } from './golden.ts'

test.each(goldenFiles().map((file) => ({ name: basename(file), file })))(
  '$name folds to what it did when it was written',
  ({ file }) => {
    expect(problemsOf(file)).toEqual([])
  },
)

test('every event type of today, in its version, is in a golden file', () => {
  expect(missingTypes(), 'node scripts/with-node.mjs node test/golden/add.ts NAME').toEqual([])
})
