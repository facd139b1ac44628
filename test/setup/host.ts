// Runs before each host test file, in its worker.
import { assertOwnNamespaces } from '../host/guard.ts'

assertOwnNamespaces()
