// The reserve, where somebody puts something under its name after it was looked for.
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import type * as files from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { reserveOf } from '../../src/reserve.ts'
import { temporaryHome } from '../support/ledgers.ts'

/** Between the look for it and its making the room is asked for. */
const meanwhile = vi.hoisted(() => ({ act: () => {} }))
vi.mock('node:fs', async (original) => {
  const real = await original<typeof files>()
  const statfsSync = (path: string) => {
    meanwhile.act()
    return real.statfsSync(path)
  }
  return { ...real, statfsSync }
})

const bytes = 4096

test.each(['that leads nowhere', 'to a file'])(
  'a link %s that appears meanwhile is not followed',
  async (kind) => {
    const home = temporaryHome()
    mkdirSync(home)
    const [file, elsewhere] = [join(home, 'reserve'), join(home, 'elsewhere')]
    if (kind === 'to a file') writeFileSync(elsewhere, 'theirs')
    meanwhile.act = () => symlinkSync(elsewhere, file)
    await reserveOf(home, bytes).make()
    expect(readlinkSync(file)).toBe(elsewhere)
    const behind = existsSync(elsewhere) ? readFileSync(elsewhere, 'utf8') : null
    expect(behind).toBe(kind === 'to a file' ? 'theirs' : null)
  },
)

test('a file that appears meanwhile is somebody else’s, and left alone', async () => {
  const home = temporaryHome()
  mkdirSync(home)
  const file = join(home, 'reserve')
  meanwhile.act = () => writeFileSync(file, 'being made')
  await reserveOf(home, bytes).make()
  expect(readFileSync(file, 'utf8')).toBe('being made')
})
