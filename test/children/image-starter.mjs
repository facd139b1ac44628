/**
 * Starts "VMs" on images until the time is over: half on files just written, half on old ones that gc is free to
 * take at any moment. Whatever it uses it looks at again; a file that is gone then was deleted while it lived.
 */
import { existsSync, mkdirSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openImages } from '../../dist/index.js'
import { atBarrier } from './child.mjs'

const [, , cache, home, name, ms, pins] = process.argv
const ledger = `01JZZZZZZZZZZZZZZZZZZZZZZ${name}`
const pause = (max) => new Promise((resolve) => setTimeout(resolve, Math.random() * max))
const old = Date.now() / 1000 - 3_600

await atBarrier(
  () => openImages({ cache, home }),
  async (images) => {
    const until = Date.now() + Number(ms)
    const done = { lost: [], fresh: 0, reused: 0, refused: 0 }
    for (let i = 0; Date.now() < until; i++) {
      const vm = `vm-${name.toLowerCase()}-${i}`
      const path = await (i % 2 === 0
        ? startFresh(images, vm, done)
        : startReused(images, vm, done))
      if (path === null) continue
      const overlay = join(home, 'vms', vm, 'top.qcow2')
      mkdirSync(join(home, 'vms', vm), { recursive: true })
      await pause(60)
      if (!existsSync(path)) done.lost.push(`${vm}: ${path}`)
      unlinkSync(writeOverlay(overlay, path))
      if (pins === 'pins') await images.unpin({ ledger, vm })
    }
    return done
  },
)

/** Written, then registered, then pinned: until the pin only its age protects it. */
async function startFresh(images, vm, done) {
  const path = join(images.directory, `${vm}.ext4`)
  writeFileSync(path, vm)
  await pause(8)
  if (!existsSync(path))
    return (void done.lost.push(`${vm}: ${path} before it was registered`), null)
  try {
    await images.register({ digest: `sha256:${vm}`, path })
    if (pins === 'pins') await images.pin({ digest: `sha256:${vm}`, ledger, vm })
  } catch (error) {
    done.lost.push(`${vm}: ${error.message}`)
    return null
  }
  done.fresh += 1
  // Old from now on, as one that was built yesterday: only the pin is left.
  utimesSync(path, old, old)
  return path
}

/** One of ten contents that both homes use, over and over, whenever gc has not just taken it. */
async function startReused(images, vm, done) {
  const content = String(Math.floor(Math.random() * 10))
  const from = join(home, `content-${content}`)
  writeFileSync(from, content)
  const tag = `${vm}:${content}`
  let added
  try {
    added = await images.add({ from, tag })
  } catch (error) {
    done.lost.push(`${vm}: ${error.message}`)
    return null
  }
  const { digest, path } = added
  try {
    utimesSync(path, old, old)
    await images.untag({ tag })
    await pause(8)
    if (pins === 'pins') await images.pin({ digest, ledger, vm })
    else if (!existsSync(path)) throw new Error('taken before it was used')
  } catch {
    // gc was faster: a start that is refused is no harm.
    done.refused += 1
    return null
  }
  done.reused += 1
  return path
}

/** A qcow2 header of version 2 with a backing file; nothing else of it is read. */
function writeOverlay(overlay, backing) {
  const header = Buffer.alloc(512)
  header.writeUInt32BE(0x514649fb, 0)
  header.writeUInt32BE(2, 4)
  header.writeBigUInt64BE(128n, 8)
  header.writeUInt32BE(Buffer.byteLength(backing), 16)
  header.write(backing, 128)
  writeFileSync(overlay, header)
  return overlay
}
