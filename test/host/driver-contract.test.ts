// Every driver of this host keeps the contract that users' drivers are held to.
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Resource } from '../../src/contract/resources.ts'
import { directoryDriver } from '../../src/host/linux/directory.ts'
import { fileDriver } from '../../src/host/linux/file.ts'
import { nftTableDriver } from '../../src/host/linux/nft-table.ts'
import { overlayDriver } from '../../src/host/linux/overlay.ts'
import { socketDriver } from '../../src/host/linux/socket.ts'
import { tapDriver } from '../../src/host/linux/tap.ts'
import { placeOf } from '../../src/host/place.ts'
import { directory, fileCopy, nftTable, overlay, socket, tap } from '../../src/host/resources.ts'
import { driverContract, type DriverContractOptions } from '../../src/testing/driver-contract.ts'
import { contextOf, ledgerId } from '../support/place.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const home = temporaryDirectory('vmledger-contract-')
const place = placeOf(home, ledgerId, 'vm-contract')
const image = join(home, 'image.raw')
for (const dir of ['locks', 'trash', 'vms', 'aside']) mkdirSync(join(home, dir))
// Of the directory driver it is the state directory itself that comes and goes.
beforeAll(() => {
  closeSync(openSync(image, 'w'))
  truncateSync(image, 1024 * 1024)
})
afterAll(() => rmSync(place.stateDir, { recursive: true, force: true }))

const quietly = (program: string, ...args: string[]): void => {
  try {
    execFileSync(program, args, { stdio: 'ignore' })
  } catch {
    // It was not there.
  }
}

const tapOptions: Partial<DriverContractOptions> = {
  replace: ({ name }) => {
    quietly('ip', 'link', 'del', 'dev', name)
    execFileSync('ip', ['tuntap', 'add', 'dev', name, 'mode', 'tap'])
  },
  remove: ({ name }) => quietly('ip', 'link', 'del', 'dev', name),
}

const tableOf = ({ name }: Resource): string => name.slice('ip/'.length)
const tableOptions: Partial<DriverContractOptions> = {
  replace: (resource) => {
    quietly('nft', 'delete', 'table', 'ip', tableOf(resource))
    execFileSync('nft', ['add', 'table', 'ip', tableOf(resource)])
  },
  remove: (resource) => quietly('nft', 'delete', 'table', 'ip', tableOf(resource)),
}

const pathOf = ({ name }: Resource): string => join(place.stateDir, name)
let asides = 0
/** The old one stays where it is kept, or the new one might get its inode. */
const setAside = (path: string): void => {
  if (existsSync(path)) renameSync(path, join(home, 'aside', String(asides++)))
}
const pathOptions: Partial<DriverContractOptions> = {
  replace: (resource) => {
    setAside(pathOf(resource))
    writeFileSync(pathOf(resource), 'of somebody else')
  },
  remove: (resource) => rmSync(pathOf(resource), { recursive: true, force: true }),
}
const socketOptions: Partial<DriverContractOptions> = {
  ...pathOptions,
  // Whoever bound it is dead by then.
  appear: (resource) => {
    const bind = 'IO::Socket::UNIX->new(Local => shift, Listen => 1) or die'
    execFileSync('perl', ['-MIO::Socket::UNIX', '-e', bind, pathOf(resource)])
  },
}
const directoryOptions: Partial<DriverContractOptions> = {
  ...pathOptions,
  replace: (resource) => {
    setAside(pathOf(resource))
    mkdirSync(pathOf(resource))
    writeFileSync(join(pathOf(resource), 'theirs'), '')
  },
}

const three = (make: (name: string) => Resource): Resource[] => ['a', 'b', 'c'].map(make)
const subjects = [
  [tapDriver, three((name) => tap({ name: `fc-${name}` })), tapOptions],
  [nftTableDriver, three((name) => nftTable({ name })), tableOptions],
  [fileDriver, three((to) => fileCopy({ from: image, to })), pathOptions],
  [overlayDriver, three((to) => overlay({ backing: image, to, format: 'raw' })), pathOptions],
  [socketDriver, three((name) => socket({ name })), socketOptions],
  [directoryDriver, [directory('.')], directoryOptions],
] as const

describe.each(subjects)('$kind', (driver, [resource, ...others], { replace, remove, appear }) => {
  if (resource === undefined || replace === undefined || remove === undefined)
    throw new Error('nothing to check')
  const hasState = driver !== directoryDriver
  const checks = driverContract({
    driver,
    context: contextOf(place),
    resource,
    others,
    ...(appear !== undefined && { appear }),
    replace,
    remove,
  })
  test.each(checks)('$name', async ({ check }) => {
    if (hasState) mkdirSync(place.stateDir, { recursive: true })
    else rmSync(place.stateDir, { recursive: true, force: true })
    await expect(check()).resolves.toBeUndefined()
    expect(existsSync(dirname(place.stateDir))).toBe(true)
  })
})
