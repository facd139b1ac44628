// Image gc at size: 10,000 old files, 2,000 of them under overlays; planned, done and looked at again.
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { simulatedHost } from '../src/host/simulated/host.ts'
import { openLedger } from '../src/ledger.ts'
import { openImages } from '../src/open-images.ts'
import { qcow2Header } from '../test/images/qcow2-header.ts'

const filesCount = 10_000
const overlaysCount = 2_000
const root = mkdtempSync(
  join(process.env['VMLEDGER_BENCH_DIR'] ?? tmpdir(), 'vmledger-bench-images-'),
)
const directory = join(root, 'cache', 'images')
const vms = join(root, 'vms')

try {
  prepare()
  openLedger({ home: join(root, 'home'), host: simulatedHost(), disk: false }).close()
  const images = openImages({ cache: join(root, 'cache'), home: join(root, 'home') })
  for (const [name, dryRun] of [
    ['dry run', true],
    ['gc', false],
    ['second gc', false],
  ] as const) {
    const startedAt = performance.now()
    const { reclaimed, kept, failed } = await images.gc({ overlays: [vms], dryRun })
    const ms = Math.round(performance.now() - startedAt)
    process.stdout.write(
      `${name}: ${ms} ms, ${reclaimed} reclaimed, ${kept} kept, ${failed} failed\n`,
    )
  }
  images.close()
} finally {
  rmSync(root, { recursive: true })
}

function prepare(): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  for (let i = 0; i < filesCount; i++) {
    const path = join(directory, `image-${i}.ext4`)
    writeFileSync(path, 'x')
    utimesSync(path, 1, 1)
    if (i >= overlaysCount) continue
    mkdirSync(join(vms, `vm-${i}`), { recursive: true })
    const header = qcow2Header({ backing: path, backingFormat: 'raw' })
    writeFileSync(join(vms, `vm-${i}`, 'top.qcow2'), header)
  }
}
