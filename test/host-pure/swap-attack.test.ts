// Against somebody who swaps directories for links while we delete, nothing outside the tree is lost.
// With fs.promises.rm in place of deleteTree this test fails: all the files outside are gone.
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { deleteTree } from '../../src/host/linux/delete-tree.ts'
import { openDir } from '../../src/host/linux/descriptors.ts'

const attackMs = 3_000
const files = 50

test.runIf(process.platform === 'linux')(
  'a swap of directories for links never leads outside',
  async () => {
    const root = mkdtempSync(join(tmpdir(), 'vmledger-swap-'))
    const [tree, outside] = [join(root, 'tree'), join(root, 'outside')]
    mkdirSync(outside)
    for (let i = 0; i < files; i++) writeFileSync(join(outside, String(i)), 'kept')
    mkdirSync(tree)
    const attacker = spawn(process.execPath, [
      join(import.meta.dirname, '../support/swap.mjs'),
      tree,
      outside,
    ])
    const top = await openDir(root)
    let [rounds, refusals] = [0, 0]
    try {
      const deadline = performance.now() + attackMs
      while (performance.now() < deadline) {
        rounds++
        await deleteTree(top, 'tree').catch(() => refusals++)
        mkdirSync(tree, { recursive: true })
      }
    } finally {
      const ended = new Promise((resolve) => attacker.once('exit', resolve))
      attacker.kill('SIGKILL')
      await ended
    }
    expect(rounds).toBeGreaterThan(10)
    expect(refusals).toBeLessThanOrEqual(rounds)
    // The attacker itself puts more there, through its own links.
    expect(readdirSync(outside).filter((name) => /^\d+$/.test(name))).toHaveLength(files)
    await deleteTree(top, 'tree')
    expect(readdirSync(root)).toEqual(['outside'])
    await top.handle.close()
    rmSync(root, { recursive: true, force: true })
  },
)
