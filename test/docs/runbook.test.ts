// What docs/runbook.md shows is what its commands print; VMLEDGER_WRITE_DOCS=1 writes it there.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { phases } from '../../src/contract/phases.ts'
import { phaseTransitions } from '../../src/machines/fold.ts'
import type { Machine } from '../cli/cli.ts'
import { play, scenes } from './runbook-scenes.ts'
import { blocksOf, root, textOf } from './snippets.ts'

const document = 'docs/runbook.md'
const text = textOf(document)
const shown = blocksOf(text).filter(({ language }) => language === 'console')
const isWriting = process.env['VMLEDGER_WRITE_DOCS'] === '1'

test('every block of output belongs to a scene, and every scene is shown', () => {
  expect([...new Set(shown.map(({ info }) => info))].toSorted()).toEqual(
    Object.keys(scenes).toSorted(),
  )
})

test.each(Object.entries(scenes))(
  'the commands print what is shown: %s',
  async (scene, build) => {
    const machine: Machine = await build()
    for (const { info, text: block } of shown) {
      if (info !== scene) continue
      const commands = [...block.matchAll(/^\$ (.*)$/gm)].map(([, command]) => command ?? '')
      expect(commands.length).toBeGreaterThan(0)
      const played = await play(machine, commands)
      const told = isWriting ? write(scene, block, played) : block
      expect(alike(played)).toBe(alike(told))
    }
  },
  60_000,
)

test('another output would be told', () => {
  expect(alike('web-1  cleaned\n')).not.toBe(alike('web-1  kept\n'))
  expect(alike('pid 5000001, 3 s ago\n')).toBe(alike('pid 16246,  now ago\n'))
})

test('the table of phases is what the machine says', () => {
  const section = /^## Phases$(?<rows>[^]*?)^## /m.exec(text)?.groups?.['rows'] ?? ''
  const rows = [...section.matchAll(/^\| `(\w+)` \| [^|]* \| ([^|]*) \|$/gm)]
  const told = rows.map(([, phase, next = '']) => [
    phase,
    [...next.matchAll(/`(\w+)`/g)].map(([, name]) => name),
  ])
  const transitions = phaseTransitions()
  expect(told).toEqual(
    phases.map((phase) => [phase, transitions[phase].filter((next) => next !== phase)]),
  )
})

/**
 * What differs from run to run: times, pids and other long numbers, hashes, ids, the width of columns, and
 * which of two that nothing holds in order is done first.
 */
function alike(output: string): string {
  return output
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replace(/\d{4}-\d\d-\d\d/g, 'DAY')
    .replace(/\d\d:\d\d:\d\d\.\d+/g, 'TIME')
    .replace(/\b[0-9a-f]{64}\b/g, 'HASH')
    .replace(/\b[0-9A-HJKMNP-TV-Z]{26}\b/g, 'ULID')
    .replace(/\b\d{4,}\b/g, 'NUMBER')
    .replace(/\b(?:\d+ (?:s|min)|now)\b/g, 'AGE')
    .replace(/ +/g, ' ')
    .replace(/^ ?\d+ TIME/gm, 'TIME')
    .split('\n')
    .toSorted()
    .join('\n')
}

function write(scene: string, block: string, played: string): string {
  const file = join(root, document)
  const before = readFileSync(file, 'utf8')
  const fenced = (output: string): string => `\`\`\`console ${scene}\n${output}\`\`\``
  expect(before.split(fenced(block)).length).toBe(2)
  writeFileSync(
    file,
    before.replace(fenced(block), () => fenced(played)),
  )
  return played
}
