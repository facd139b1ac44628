// Stops the host tests, which make and remove devices, unless in namespaces of their own.
import { execFileSync } from 'node:child_process'
import { readlinkSync } from 'node:fs'

const kinds = ['net', 'mnt', 'pid'] as const

/**
 * Throws unless this process is fenced off from the machine (network, mounts, pids) and its
 * network holds nothing but `lo`, which is brought up. The caller's namespaces come in
 * VMLEDGER_OUTER_NS; what is missing or cannot be read counts as not fenced off.
 */
export function assertOwnNamespaces(): void {
  const outer = (process.env['VMLEDGER_OUTER_NS'] ?? '').split(' ')
  for (const kind of kinds) {
    const callers = outer.find((id) => id.startsWith(`${kind}:[`))
    if (callers === undefined)
      refuse(`VMLEDGER_OUTER_NS does not name the caller's ${kind} namespace`)
    if (callers === readlinkSync(`/proc/self/ns/${kind}`))
      refuse(`the ${kind} namespace is the caller's`)
  }
  const names = linkNames()
  if (names.join() !== 'lo')
    refuse(`other network devices than lo exist: ${names.join(', ')} (left by an earlier file?)`)
  execFileSync('ip', ['link', 'set', 'lo', 'up'])
}

function linkNames(): string[] {
  const links = JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as {
    ifname: string
  }[]
  return links.map((link) => link.ifname)
}

function refuse(reason: string): never {
  throw new Error(`host tests refused: ${reason}; run them through npm test`)
}
