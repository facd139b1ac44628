/** Whose a home is: what root makes in somebody's home belongs to them. */
import { chownSync, type Stats } from 'node:fs'

export function giveTo(path: string, owner: Stats): void {
  if (process.geteuid?.() === 0 && owner.uid !== 0) chownSync(path, owner.uid, owner.gid)
}
