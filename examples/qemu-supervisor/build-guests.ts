/** Makes the guests from Debian's packages: a Linux kernel with busybox, and a boot sector of 512 bytes. Nothing is installed. */
import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { join, resolve } from 'node:path'

export type Guests = {
  readonly kernel: string
  readonly initrd: string
  /** A raw ext4 disk with nothing much on it. */
  readonly disk: string
  /** A raw disk whose first sector prints a line and halts: a real VMM process, ready in 0.2 s. */
  readonly tiny: string
}

const source = join(import.meta.dirname, 'guests')
const modules = ['virtio', 'virtio_ring', 'virtio_mmio', 'failover', 'net_failover', 'virtio_net', 'virtio_blk']
const mib = 1024 * 1024

/** Makes what is missing in `folder`. Needs apt-get, dpkg, cpio, mke2fs, as, ld. */
export function buildGuests(folder: string): Guests {
  mkdirSync(folder, { recursive: true })
  const guests = {
    kernel: join(folder, 'vmlinuz'),
    initrd: join(folder, 'initrd.gz'),
    disk: join(folder, 'disk.ext4'),
    tiny: join(folder, 'tiny.img'),
  }
  if (Object.values(guests).every((path) => existsSync(path))) return guests
  const work = mkdtempSync(join(folder, 'build-'))
  try {
    tiny(work, guests.tiny)
    linux(work, guests)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return guests
}

/** Only the boot sector: no download. */
export function buildTiny(folder: string): string {
  mkdirSync(folder, { recursive: true })
  const path = join(folder, 'tiny.img')
  if (existsSync(path)) return path
  const work = mkdtempSync(join(folder, 'build-'))
  try {
    tiny(work, path)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return path
}

function tiny(work: string, to: string): void {
  run(work, 'as', ['--32', '-o', 'tiny.o', join(source, 'tiny.S')])
  run(work, 'ld', ['-m', 'elf_i386', '-Ttext', '0x7c00', '--oformat', 'binary', '-o', 'tiny.img', 'tiny.o'])
  // A disk wants more than one sector.
  truncateSync(join(work, 'tiny.img'), mib)
  renameSync(join(work, 'tiny.img'), to)
}

function linux(work: string, { kernel, initrd, disk }: Guests): void {
  const depends = run(work, 'apt-cache', ['depends', 'linux-image-cloud-amd64'])
  const image = /Depends: (linux-image-\S+)/.exec(depends)?.[1]
  if (image === undefined) throw new Error('apt-cache knows no linux-image-cloud-amd64; run `apt-get update` first')
  run(work, 'apt-get', ['download', '-qq', image, 'busybox-static'])
  for (const file of readdirSync(work).filter((name) => name.endsWith('.deb')))
    run(work, 'dpkg', ['-x', file, 'packages'])
  const packages = join(work, 'packages')
  const version = readdirSync(join(packages, 'lib', 'modules'))[0] ?? ''
  const root = join(work, 'initrd')
  for (const name of ['bin', 'proc', 'sys', 'dev', 'mod', 'newroot', 'etc'])
    mkdirSync(join(root, name), { recursive: true })
  copyFileSync(join(packages, 'bin', 'busybox'), join(root, 'bin', 'busybox'))
  copyFileSync(join(source, 'init'), join(root, 'init'))
  chmodSync(join(root, 'init'), 0o755)
  const found = readdirSync(join(packages, 'lib', 'modules', version), { recursive: true, encoding: 'utf8' })
  for (const name of modules) {
    const file = found.find((path) => path.endsWith(`/${name}.ko`))
    if (file !== undefined)
      copyFileSync(join(packages, 'lib', 'modules', version, file), join(root, 'mod', `${name}.ko`))
  }
  const names = ['.', ...readdirSync(root, { recursive: true, encoding: 'utf8' })].join('\n')
  const archive = execFileSync('cpio', ['-o', '-H', 'newc', '--quiet'], { cwd: root, input: names, maxBuffer: 64 * mib })
  writeFileSync(join(work, 'initrd.gz'), gzipSync(archive, { level: 1 }))
  writeFileSync(join(work, 'disk.ext4'), '')
  truncateSync(join(work, 'disk.ext4'), 64 * mib)
  run(work, 'mke2fs', ['-q', '-t', 'ext4', '-F', 'disk.ext4'])
  renameSync(join(work, 'initrd.gz'), initrd)
  renameSync(join(work, 'disk.ext4'), disk)
  renameSync(join(packages, 'boot', `vmlinuz-${version}`), kernel)
}

const run = (cwd: string, command: string, args: string[]): string =>
  execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })

if (process.argv[1] === import.meta.filename)
  console.log(JSON.stringify(buildGuests(resolve(process.argv[2] ?? 'guests')), null, 2))
