/** The reserve: when it is made, what it is made of, and what it is given up for. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { LedgerError } from '../../src/contract/errors.ts'
import { reserveOf } from '../../src/reserve.ts'
import { openTestLedger, temporaryHome } from '../support/ledgers.ts'

const mib = 1024 * 1024
const diskFull = new LedgerError('DISK_FULL', 'for the test')

function emptyHome(): { home: string; file: string } {
  const home = temporaryHome()
  mkdirSync(home)
  return { home, file: join(home, 'reserve') }
}

describe('the reserve', () => {
  test('is made soon after the first VM, in the background, and once', async () => {
    const ledger = openTestLedger({ reserveBytes: mib + 5 })
    const file = join(ledger.home, 'reserve')
    const size = (): number | undefined => statSync(file, { throwIfNoEntry: false })?.size
    expect(size()).toBe(undefined)
    await ledger.createVm({ backend: 'test' })
    expect(size()).not.toBe(mib + 5)
    await expect.poll(size).toBe(mib + 5)
    unlinkSync(file)
    await ledger.createVm({ backend: 'test' })
    await ledger.reconcile({ dryRun: true })
    expect(size()).toBe(undefined)
  })

  test('is made by a pass, not by opening, nor by a dry run, and not twice', async () => {
    const ledger = openTestLedger({ reserveBytes: 3 * mib + 5 })
    const file = join(ledger.home, 'reserve')
    await ledger.reconcile({ dryRun: true })
    expect(existsSync(file)).toBe(false)
    await ledger.reconcile()
    const made = statSync(file)
    expect({ size: made.size, mode: made.mode & 0o777, uid: made.uid }).toEqual({
      size: 3 * mib + 5,
      mode: 0o600,
      uid: statSync(ledger.home).uid,
    })
    expect(made.blocks * 512).toBeGreaterThanOrEqual(made.size)
    const bytes = readFileSync(file)
    expect(deflateSync(bytes).length).toBeGreaterThan(0.99 * bytes.length)
    await ledger.reconcile()
    expect(statSync(file).ino).toBe(made.ino)
  })

  test('of 0 bytes is none, and leaves one that is there alone', async () => {
    const { home, file } = emptyHome()
    const reserve = reserveOf(home, 0)
    await reserve.make()
    expect(existsSync(file)).toBe(false)
    writeFileSync(file, '')
    await expect(reserve.spend(() => Promise.reject(diskFull))).rejects.toBe(diskFull)
    expect(existsSync(file)).toBe(true)
  })

  test('is smaller where it would take more than a quarter of the room', async () => {
    const { home, file } = emptyHome()
    await reserveOf(home, 2 ** 52).make()
    const { size, ino } = statSync(file)
    expect(size).toBe(mib)
    utimesSync(file, 1, 1)
    await reserveOf(home, 2 ** 52).make()
    expect(statSync(file).ino).toBe(ino)
    // Room came: it is made in its full size.
    await reserveOf(home, 2 * mib).make()
    expect(statSync(file).size).toBe(2 * mib)
  })

  test('is no matter for the pass where it cannot be made', async () => {
    const { home, file } = emptyHome()
    mkdirSync(file)
    await reserveOf(home, mib).make()
    expect(statSync(file).isDirectory()).toBe(true)
    chmodSync(home, 0o500)
    await reserveOf(join(home, 'not-there'), mib).make()
  })

  test('never follows a link', async () => {
    const { home, file } = emptyHome()
    const target = join(home, 'elsewhere')
    symlinkSync(target, file)
    await reserveOf(home, mib).make()
    expect(existsSync(target)).toBe(false)
  })

  test('of which a dead process left a half is made anew, of a living one it is left alone', async () => {
    const { home, file } = emptyHome()
    writeFileSync(file, 'half')
    await reserveOf(home, mib).make()
    expect(statSync(file).size).toBe(4)
    utimesSync(file, 1, 1)
    await reserveOf(home, mib).make()
    expect(statSync(file).size).toBe(mib)
  })
})

describe('on a full disk', () => {
  test('it is given up, once, and the work is done again', async () => {
    const { home, file } = emptyHome()
    const reserve = reserveOf(home, mib)
    await reserve.make()
    const work = async () => {
      if (existsSync(file)) throw diskFull
      return 'done'
    }
    expect(await Promise.all([reserve.spend(work), reserve.spend(work)])).toEqual(['done', 'done'])
    let tries = 0
    const hopeless = () => {
      tries++
      return Promise.reject(diskFull)
    }
    await expect(reserve.spend(hopeless)).rejects.toBe(diskFull)
    expect(tries).toBe(2)
  })

  test('of another error it hears nothing', async () => {
    const { home, file } = emptyHome()
    const reserve = reserveOf(home, mib)
    await reserve.make()
    const busy = new LedgerError('BUSY', 'for the test')
    await expect(reserve.spend(() => Promise.reject(busy))).rejects.toBe(busy)
    expect(existsSync(file)).toBe(true)
  })
})
