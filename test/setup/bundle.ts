// Bundles dist/ before the tests, some of which run the CLI as users do.
import { bundleIfStale } from '../../scripts/bundle.ts'

export default bundleIfStale
