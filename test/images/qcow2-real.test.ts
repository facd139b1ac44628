// What qemu-img writes is read as qemu-img reads it.
import { execFileSync } from 'node:child_process'
import { mkdirSync, realpathSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { chainReader } from '../../src/images/chain.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const missing = ((): boolean => {
  try {
    execFileSync('qemu-img', ['--version'])
    return false
  } catch {
    return true
  }
})()
const reason = missing ? ' (left out: qemu-img is not installed)' : ''

type Info = {
  readonly filename: string
  readonly 'format-specific'?: { readonly data: { readonly 'data-file'?: string } }
}

/** Created in the directory of the image, where relative data files are looked for. */
function create(path: string, ...options: string[]): string {
  mkdirSync(dirname(path), { recursive: true })
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, '1M'], {
    cwd: dirname(path),
  })
  return path
}

function qemuChain(path: string): string[] {
  const args = ['info', '--backing-chain', '--output=json', path]
  const infos = JSON.parse(
    execFileSync('qemu-img', args, { encoding: 'utf8', cwd: dirname(path) }),
  ) as Info[]
  return infos.flatMap((info) => {
    const data = info['format-specific']?.data['data-file']
    const image = realpathSync(info.filename)
    return data === undefined ? [image] : [image, realpathSync(join(dirname(path), data))]
  })
}

function ourChain(path: string): string[] {
  const chain = chainReader().chainOf(path)
  if (chain.kind === 'broken') throw new Error(`${chain.reachedBy.join(' -> ')}: ${chain.reason}`)
  return chain.members.map((member) => member.path)
}

const backed = (name: string, format = 'qcow2') => ['-b', name, '-F', format]

describe.skipIf(missing)(`qemu-img agrees${reason}`, () => {
  test('about a chain of 12, versions 2 and 3, absolute, relative and file: names by turns', () => {
    const root = temporaryDirectory('vmledger-qemu-')
    execFileSync('qemu-img', ['create', '-q', '-f', 'raw', join(root, 'base.ext4'), '1M'])
    let below = create(join(root, '0', 'disk.qcow2'), ...backed('../base.ext4', 'raw'))
    for (let i = 1; i < 12; i++) {
      const name = [below, `../${i - 1}/disk.qcow2`, `file:${below}`, `file://${below}`][i % 4]!
      const compat = i % 3 === 0 ? '0.10' : '1.1'
      below = create(join(root, `${i}`, 'disk.qcow2'), '-o', `compat=${compat}`, ...backed(name))
    }
    expect(ourChain(below)).toHaveLength(13)
    expect(ourChain(below)).toEqual(qemuChain(below))
  })

  test('about a data file, absolute and relative, below an overlay', () => {
    const root = temporaryDirectory('vmledger-qemu-')
    const relative = create(join(root, 'r.qcow2'), '-o', 'data_file=r.raw')
    expect(ourChain(relative)).toEqual([relative, join(root, 'r.raw')])
    expect(ourChain(relative)).toEqual(qemuChain(relative))
    const absolute = create(join(root, 'a.qcow2'), '-o', `data_file=${root}/a.raw`)
    const overlay = create(join(root, 'o.qcow2'), ...backed(absolute))
    expect(ourChain(overlay)).toEqual([overlay, absolute, join(root, 'a.raw')])
  })

  test.each(['512', '4k', '2M'])('about clusters of %s', (size) => {
    const root = temporaryDirectory('vmledger-qemu-')
    const base = create(join(root, 'base.qcow2'))
    const top = create(join(root, 'top.qcow2'), '-o', `cluster_size=${size}`, ...backed(base))
    expect(ourChain(top)).toEqual(qemuChain(top))
  })

  test('about snapshots, bitmaps and a rebased image', () => {
    const root = temporaryDirectory('vmledger-qemu-')
    const [a, b] = [create(join(root, 'a.qcow2')), create(join(root, 'b.qcow2'))]
    const top = create(join(root, 'top.qcow2'), ...backed(a))
    execFileSync('qemu-img', ['snapshot', '-c', 'one', top])
    execFileSync('qemu-img', ['bitmap', '--add', top, 'changes'])
    execFileSync('qemu-img', ['rebase', '-u', ...backed(b), top])
    expect(ourChain(top)).toEqual([top, b])
    expect(ourChain(top)).toEqual(qemuChain(top))
    execFileSync('qemu-img', ['rebase', '-u', '-b', '', top])
    expect(ourChain(top)).toEqual([top])
  })

  test('about an image that is named through a link', () => {
    const root = temporaryDirectory('vmledger-qemu-')
    create(join(root, 'images/base.qcow2'))
    create(join(root, 'vm/top.qcow2'), '-u', ...backed('../images/base.qcow2'))
    symlinkSync('vm', join(root, 'link'))
    expect(ourChain(join(root, 'link/top.qcow2'))).toEqual(qemuChain(join(root, 'link/top.qcow2')))
  })
})
