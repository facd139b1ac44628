/** Makes the guests: a Linux kernel with busybox from Debian's packages, and a boot sector. Nothing is installed. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

export type LinuxGuest = {
  readonly kernel: string
  readonly initrd: string
  /** A raw disk with an empty ext4. */
  readonly disk: string
}

const sources = join(import.meta.dirname, 'guests')
/** In the order in which they are loaded: virtio needs virtio_ring. */
const modules = [
  ...['virtio_ring', 'virtio', 'virtio_mmio'],
  ...['failover', 'net_failover', 'virtio_net', 'virtio_blk'],
]
const mib = 1024 * 1024
const diskBytes = 16 * mib

/** Where they are kept between runs; another one when their sources change. @throws Error for a stranger's */
export function guestsFolder(): string {
  const hash = createHash('sha256').update(readFileSync(import.meta.filename))
  for (const name of readdirSync(sources).toSorted()) hash.update(readFileSync(join(sources, name)))
  const folder = join(tmpdir(), `vmledger-guests-${hash.digest('hex').slice(0, 12)}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const { uid } = lstatSync(folder)
  if (uid !== process.getuid?.()) throw new Error(`${folder} belongs to user ${uid}; remove it`)
  return folder
}

/** A raw disk whose first sector prints a line and halts: a real VMM, ready in 0.2 s. Needs as and ld. */
export function buildTiny(folder: string): string {
  const disk = join(folder, 'tiny.img')
  if (existsSync(disk)) return disk
  inside(folder, (work) => {
    const [object, image] = [join(work, 'tiny.o'), join(work, 'tiny.img')]
    run(work, 'as', ['--32', '-o', object, join(sources, 'tiny.S')])
    const layout = ['-m', 'elf_i386', '-Ttext', '0x7c00', '--oformat', 'binary']
    run(work, 'ld', [...layout, '-o', image, object])
    truncateSync(image, mib) // A disk wants more than one sector.
    renameSync(image, disk)
  })
  return disk
}

/** The guest where it was built before. */
export function builtLinux(folder: string): LinuxGuest | null {
  const guest = linuxIn(folder)
  return Object.values(guest).every((path) => existsSync(path)) ? guest : null
}

/** Downloads 28 MB the first time. Needs apt-get, dpkg, cpio and mke2fs. */
export function buildLinux(folder: string): LinuxGuest {
  const guest = linuxIn(folder)
  if (builtLinux(folder) !== null) return guest
  inside(folder, (work) => {
    run(work, 'apt-get', ['download', '-qq', kernelPackage(work), 'busybox-static'])
    for (const file of readdirSync(work).filter((name) => name.endsWith('.deb')))
      run(work, 'dpkg', ['-x', file, 'packages'])
    const packages = join(work, 'packages')
    const version = readdirSync(join(packages, 'lib', 'modules'))[0] ?? ''
    writeFileSync(join(work, 'initrd.gz'), initrd(work, packages, version))
    writeFileSync(join(work, 'disk.ext4'), '')
    truncateSync(join(work, 'disk.ext4'), diskBytes)
    run(work, 'mke2fs', ['-q', '-t', 'ext4', '-F', 'disk.ext4'])
    renameSync(join(packages, 'boot', `vmlinuz-${version}`), guest.kernel)
    renameSync(join(work, 'initrd.gz'), guest.initrd)
    renameSync(join(work, 'disk.ext4'), guest.disk)
  })
  return guest
}

const linuxIn = (folder: string): LinuxGuest => ({
  kernel: join(folder, 'vmlinuz'),
  initrd: join(folder, 'initrd.gz'),
  disk: join(folder, 'disk.ext4'),
})

/** The newest kernel for clouds: small, and virtio is in it. */
function kernelPackage(work: string): string {
  const known = (): string | undefined => {
    try {
      const depends = run(work, 'apt-cache', ['depends', 'linux-image-cloud-amd64'])
      return /Depends: (linux-image-\S+)/.exec(depends)?.[1]
    } catch {
      return undefined // A fresh machine has no lists yet.
    }
  }
  let name = known()
  if (name === undefined) {
    run(work, 'apt-get', ['update', '-qq'])
    name = known()
  }
  if (name === undefined) throw new Error('apt-cache knows no linux-image-cloud-amd64')
  return name
}

function initrd(work: string, packages: string, version: string): Buffer {
  const root = join(work, 'initrd')
  for (const name of ['bin', 'proc', 'sys', 'dev', 'mod', 'newroot', 'etc'])
    mkdirSync(join(root, name), { recursive: true })
  copyFileSync(join(packages, 'bin', 'busybox'), join(root, 'bin', 'busybox'))
  copyFileSync(join(sources, 'init'), join(root, 'init'))
  chmodSync(join(root, 'init'), 0o755)
  const folder = join(packages, 'lib', 'modules', version)
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  for (const name of modules) {
    const file = files.find((path) => path.endsWith(`/${name}.ko`))
    // What the kernel has built in needs no file.
    if (file !== undefined) copyFileSync(join(folder, file), join(root, 'mod', `${name}.ko`))
  }
  const names = ['.', ...readdirSync(root, { recursive: true, encoding: 'utf8' })].join('\n')
  const cpio = ['-o', '-H', 'newc', '--quiet']
  const archive = execFileSync('cpio', cpio, { cwd: root, input: names, maxBuffer: 64 * mib })
  return gzipSync(archive, { level: 1 })
}

/** What is half done never stands under its final name. */
function inside(folder: string, make: (work: string) => void): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const work = mkdtempSync(join(folder, 'build-'))
  try {
    make(work)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

const run = (cwd: string, command: string, args: string[]): string =>
  execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })

if (process.argv[1] === import.meta.filename) {
  const folder = process.argv[2] ?? guestsFolder()
  console.log(JSON.stringify({ ...buildLinux(folder), tiny: buildTiny(folder) }, null, 2))
}
