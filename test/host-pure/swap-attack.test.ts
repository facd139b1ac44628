// Against somebody who swaps directories for links while we delete, nothing outside the tree is lost.
import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { deleteTree } from '../../src/host/linux/delete-tree.ts'
import { deleteDirectory, emptyTrash } from '../../src/host/linux/deletion.ts'
import { lookAt, openDir } from '../../src/host/linux/descriptors.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** `VMLEDGER_ATTACK_MS=60000` for a longer look. */
const attackMs = Number(process.env['VMLEDGER_ATTACK_MS'] ?? 3_000)
const wholeAttackMs = Number(process.env['VMLEDGER_ATTACK_MS'] ?? 10_000)
/** It ends at the first file lost, mostly within 5 s; under load it may take longer. */
const controlMsMax = 30_000
const files = 50

type Attack = { readonly root: string; readonly tree: string; readonly outside: string }

/** Deletes `tree` over and over while it is swapped, until `msMax`, or something outside is lost; counts the rounds. */
async function underAttack(
  { root, tree, outside }: Attack,
  msMax: number,
  remove: () => Promise<void>,
): Promise<number> {
  mkdirSync(outside)
  for (let i = 0; i < files; i++) writeFileSync(join(outside, String(i)), 'kept')
  mkdirSync(tree)
  const attacker = spawn(process.execPath, [
    join(import.meta.dirname, '../support/swap.mjs'),
    tree,
    outside,
  ])
  let rounds = 0
  try {
    const deadline = performance.now() + msMax
    while (performance.now() < deadline && left(outside) === files) {
      rounds++
      await remove().catch(() => {})
      mkdirSync(tree, { recursive: true })
    }
  } finally {
    const ended = new Promise((resolve) => attacker.once('exit', resolve))
    attacker.kill('SIGKILL')
    await ended
  }
  expect(readdirSync(root)).toContain('outside')
  return rounds
}

/** The attacker itself puts more there, through its own links. */
const left = (outside: string): number =>
  readdirSync(outside).filter((name) => /^\d+$/.test(name)).length

function attackIn(root: string): Attack {
  return { root, tree: join(root, 'tree'), outside: join(root, 'outside') }
}

test.runIf(process.platform === 'linux')(
  'a swap of directories for links never leads outside',
  { timeout: attackMs + 30_000 },
  async () => {
    const attack = attackIn(temporaryDirectory('vmledger-swap-'))
    const top = await openDir(attack.root)
    const rounds = await underAttack(attack, attackMs, () => deleteTree(top, 'tree'))
    expect(rounds).toBeGreaterThan(10)
    expect(left(attack.outside)).toBe(files)
    await deleteTree(top, 'tree')
    expect(readdirSync(attack.root)).toEqual(['outside'])
    await top.handle.close()
  },
)

// The whole way: looked at, moved to the trash, looked at again, deleted there; the directory itself is swapped too.
test.runIf(process.platform === 'linux')(
  'nor does one while a directory goes by way of the trash',
  { timeout: wholeAttackMs + 30_000 },
  async () => {
    const attack = attackIn(temporaryDirectory('vmledger-swap-'))
    const trash = { trashDir: join(attack.root, 'trash'), ledgerId: 'ledger', vmId: 'vm' }
    let deleted = 0
    const rounds = await underAttack(attack, wholeAttackMs, async () => {
      const parent = await openDir(attack.tree)
      try {
        for (const name of ['a', 'a.aside']) {
          const found = await lookAt(parent, name)
          // The attacker comes no further while its own link stands there.
          if (found?.isSymbolicLink()) await unlink(join(attack.tree, name)).catch(() => {})
          if (!found?.isDirectory()) continue
          await deleteDirectory(trash, parent, name, found).then(
            () => deleted++,
            () => {},
          )
        }
        await emptyTrash(trash.trashDir, 1_000)
      } finally {
        await parent.handle.close()
      }
    })
    expect(rounds).toBeGreaterThan(10)
    expect(deleted).toBeGreaterThan(10)
    expect(left(attack.outside)).toBe(files)
  },
)

// The control: were the attack too weak, the test above would prove nothing.
test.runIf(process.platform === 'linux')(
  'what Node itself has for that loses files to the same attack',
  { timeout: controlMsMax + 30_000 },
  async () => {
    const attack = attackIn(temporaryDirectory('vmledger-swap-'))
    const { tree, outside } = attack
    await underAttack(attack, controlMsMax, () => rm(tree, { recursive: true, force: true }))
    expect(left(outside)).toBeLessThan(files)
    rmSync(tree, { recursive: true, force: true })
  },
)
