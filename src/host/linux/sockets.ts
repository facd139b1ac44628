/** Reads /proc for who has a unix socket open: a bound socket is listed as long as any process has it. */
import { basename } from 'node:path'
import { descriptorsOf, linkOf, pids, statOf, textOf, type FileId } from './proc.ts'

export type BoundSocket = { readonly inode: string; readonly path: string }

/**
 * The processes that have the socket open which was bound at `path` and is `file`; null where there are none.
 * Empty where it is open, but no process of it may be looked into.
 */
export function socketUsers(path: string, file: FileId): number[] | null {
  const name = basename(path)
  const namesakes = new Map<string, readonly BoundSocket[]>()
  const users = pids().filter((pid) => {
    const sockets = socketsOf(pid)
    if (sockets.size === 0) return false
    // A VMM may have a network namespace of its own, and the table is one of the namespace.
    const namespace = linkOf(`/proc/${pid}/ns/net`) || String(pid)
    const bound = namesakes.get(namespace) ?? namesakesIn(`/proc/${pid}/net/unix`, name)
    namesakes.set(namespace, bound)
    return bound.some((socket) => sockets.has(socket.inode) && isBoundAt(pid, socket, path, file))
  })
  if (users.length > 0) return users
  return namesakesIn('/proc/net/unix', name).some((socket) => socket.path === latin1(path))
    ? []
    : null
}

/** `Num RefCount Protocol Flags Type St Inode Path`; a socket without a name has no path. */
export const parseUnix = (text: string): BoundSocket[] =>
  text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, inode, path] = /^\S+: (?:\S+ ){5}\s*(\d+) (.+)$/.exec(line) ?? []
      return inode === undefined || path === undefined ? [] : [{ inode, path }]
    })

/** latin1, as a path is bytes: compared in the same way on both sides. */
const namesakesIn = (table: string, name: string): BoundSocket[] =>
  parseUnix(textOf(table)).filter((socket) => basename(socket.path) === latin1(name))

const latin1 = (text: string): string => Buffer.from(text).toString('latin1')

/** The path is as it was given to `bind`: relative to where the process was, within its root. */
function isBoundAt(pid: number, socket: BoundSocket, path: string, file: FileId): boolean {
  if (socket.path === latin1(path)) return true
  const within = socket.path.startsWith('/') ? 'root' : 'cwd'
  const found = statOf(Buffer.from(`/proc/${pid}/${within}/${socket.path}`, 'latin1'))
  return found !== null && found.dev === file.dev && found.ino === file.ino
}

const socketsOf = (pid: number): Set<string> =>
  new Set(
    descriptorsOf(pid).flatMap(
      (fd) => /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1] ?? [],
    ),
  )
