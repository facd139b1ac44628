/** What stands on the host, told by ip, nft, /proc and a walk: the ledger is never asked. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** One line a thing: `device NAME ifindex`, `table FAMILY NAME handle`, `process PID start command`. */
export const hostSeen = (): string[] => [...devices(), ...tables(), ...processes()]

export function devices(): string[] {
  const text = execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })
  const links = JSON.parse(text) as { ifname: string; ifindex: number }[]
  return links.filter(({ ifname }) => ifname !== 'lo').map((l) => `device ${l.ifname} ${l.ifindex}`)
}

export function tables(): string[] {
  const text = execFileSync('nft', ['-j', 'list', 'tables'], { encoding: 'utf8' })
  type Table = { readonly family: string; readonly name: string; readonly handle: number }
  const { nftables } = JSON.parse(text) as { nftables: { table?: Table }[] }
  return nftables.flatMap(({ table: t }) =>
    t === undefined ? [] : [`table ${t.family} ${t.name} ${t.handle}`],
  )
}

/** All of this process namespace but its init and ourselves; what has ended is only not reaped yet. */
export const processes = (): string[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && name !== '1' && name !== String(process.pid))
    .flatMap(processLine)

function processLine(pid: string): string[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim()
    return /^[ZX]/.test(fields[0] ?? '') ? [] : [`process ${pid} ${fields[19]} ${command}`]
  } catch {
    return []
  }
}

/** Every name below these folders of a home. */
export const namesIn = (home: string, folders: readonly string[]): string[] =>
  folders
    .filter((folder) => existsSync(join(home, folder)))
    .flatMap((folder) =>
      readdirSync(join(home, folder), { recursive: true }).map(
        (name) =>
          `name ${folder}/${String(name)} ${statSync(join(home, folder, String(name))).ino}`,
      ),
    )
