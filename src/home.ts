/** Where home and cache are when nobody says: the environment first, then the XDG place. */
import { homedir } from 'node:os'
import { join } from 'node:path'

type Environment = Readonly<Record<string, string | undefined>>

/** `$VMLEDGER_HOME`, `$STATE_DIRECTORY` (systemd), else `$XDG_STATE_HOME/vmledger`. */
export function defaultHome(env: Environment = process.env): string {
  const stateDirectory = env['STATE_DIRECTORY']?.split(':')[0]
  return (
    env['VMLEDGER_HOME'] ||
    stateDirectory ||
    join(env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state'), 'vmledger')
  )
}

/** Whether the environment names a home: then one that is not there is missing, and not merely not made yet. */
export const isHomeNamed = (env: Environment = process.env): boolean =>
  Boolean(env['VMLEDGER_HOME'] || env['STATE_DIRECTORY']?.split(':')[0])

/** `$VMLEDGER_CACHE`, `$CACHE_DIRECTORY` (systemd), else `$XDG_CACHE_HOME/vmledger`. */
export function defaultCache(env: Environment = process.env): string {
  const cacheDirectory = env['CACHE_DIRECTORY']?.split(':')[0]
  return (
    env['VMLEDGER_CACHE'] ||
    cacheDirectory ||
    join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'vmledger')
  )
}
