/** Whether any process uses something of a tree: it is walked, and all that is open is compared with it. */
import { closeSync } from 'node:fs'
import { codeOf } from '../contract/thrown.ts'
import { openDir, type OpenDir } from './foreign-files.ts'
import { type ForeignContents, type ForeignUse, pathOf } from './foreign-sweep.ts'
import { lookAtTree } from './foreign-tree.ts'

export type { ForeignUse }

/** Nobody uses what is not there. What cannot be walked whole is `unreadable`. */
export async function useOfTree(
  path: string,
  useOf: (contents: ForeignContents) => Promise<ForeignUse>,
): Promise<ForeignUse> {
  let directory: OpenDir
  try {
    directory = openDir(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return { state: 'unused' }
    return { state: 'unreadable', reason: `${path} cannot be opened: ${codeOf(error)}` }
  }
  try {
    const tree = await lookAtTree(directory, Infinity)
    if (tree.state !== 'read')
      return { state: 'unreadable', reason: `${path} cannot be looked through: ${tree.reason}` }
    return await useOf({ path: pathOf(directory), dev: tree.dev, inodes: tree.inodes })
  } finally {
    closeSync(directory.fd)
  }
}
