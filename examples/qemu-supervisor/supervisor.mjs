#!/usr/bin/env node
/** The door: keeps what Node compiles, types stripped, so that the next start does not wait for it. */
import { enableCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'

// Not in /tmp, as without a directory: what root runs must lie where only root writes.
const caches = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
enableCompileCache(join(caches, 'qemu-supervisor'))
await import('./main.ts')
