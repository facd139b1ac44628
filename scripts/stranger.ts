// Somebody else's empty project: the package is installed into it and used as its documents say, by a given Node.
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')
const timeoutMs = 120_000

export type Project = {
  readonly directory: string
  /** The Node that everything in it runs with. */
  readonly node: string
}
/** null where it went as it should, else what was seen instead. */
export type Try = { readonly what: string; readonly problem: string | null }

/**
 * Installs the tarball. `offline`: its dependencies are linked from this checkout, so no registry is asked.
 * @throws Error with what npm said
 */
export function install(project: Project, tarball: string, offline: boolean): void {
  const { directory } = project
  mkdirSync(directory, { recursive: true })
  chmodSync(directory, 0o755)
  writeFileSync(
    join(directory, 'package.json'),
    '{ "name": "stranger", "type": "module", "private": true }',
  )
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const given = offline ? ['--offline', ...links()] : ['--prefer-offline']
  execFileSync('npm', ['install', ...flags, ...given, tarball], {
    cwd: directory,
    encoding: 'utf8',
    timeout: timeoutMs,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
}

/** What else a project in TypeScript has; from this checkout, for the versions are ours to choose. */
function links(): string[] {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  return Object.keys(dependencies).map((name) => `${name}@file:${join(root, 'node_modules', name)}`)
}

/** What is installed beside the package because of it, as `name version`. */
export function installed({ directory }: Project): string[] {
  const lock = JSON.parse(readFileSync(join(directory, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version?: string }>
  }
  return Object.entries(lock.packages)
    .filter(([path]) => path.startsWith('node_modules/') && path !== 'node_modules/vmledger')
    .map(
      ([path, { version }]) => `${path.replace(/.*node_modules\//, '')} ${version ?? '(linked)'}`,
    )
}

/** All that is promised of an installed package. */
export function tryAll(project: Project): Try[] {
  writeSources(project.directory)
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    version: string
  }
  const npx = ['npx', '--no', '--', 'vmledger']
  return [
    expect('every export can be imported', project, ['node', 'every.js'], { stdout: /^ok$/m }),
    expect('types resolve, strict', project, ['node', tsc, '-p', '.'], {
      status: 'any',
      stdout: onlyErrorsOfXstate,
    }),
    expect("README's example runs", project, ['node', 'example.ts'], { stdout: /^cleaned \[/ }),
    expect('the image ledger opens', project, ['node', 'images.js'], { stdout: /^true$/m }),
    expect('vmledger --version', project, [...npx, '--version'], {
      stdout: new RegExp(`^${version}$`, 'm'),
    }),
    expect('no home is 66', project, [...npx, 'list', '--home', '/nonexistent/home'], {
      status: 66,
      stderr: /No home at \/nonexistent\/home/,
    }),
    expect('demo without root', project, [...asNobody(), 'node', bin, 'demo'], {
      stdout: /simulated[^]*Nothing: every/,
    }),
  ]
}

const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
/** Its declarations do not hold with exactOptionalPropertyTypes; nobody but skipLibCheck can help that. */
const onlyErrorsOfXstate = /^(?:\S*node_modules\/xstate\/.* error TS.*\n(?: .*\n)*)*$/
const bin = 'node_modules/vmledger/dist/cli.js'

/** Nobody may not even look into where root works: there the demo finds its way by itself. */
function asNobody(): string[] {
  const user = ['--reuid=65534', '--regid=65534', '--clear-groups', '--bounding-set=-all']
  return process.getuid?.() === 0 ? ['setpriv', ...user, '--inh-caps=-all', '--'] : []
}

type Expected = {
  readonly status?: number | 'any'
  readonly stdout?: RegExp
  readonly stderr?: RegExp
}

function expect(
  what: string,
  { directory, node }: Project,
  [program = '', ...args]: readonly string[],
  { status = 0, stdout = /(?:)/, stderr = status === 66 ? /(?:)/ : /^$/ }: Expected,
): Try {
  const command = [program, ...args].map((word) => (word === 'node' ? node : word))
  const ran = spawnSync(command[0] ?? '', command.slice(1), {
    cwd: directory,
    encoding: 'utf8',
    timeout: timeoutMs,
    env: {
      PATH: [dirname(node), process.env['PATH'] ?? ''].join(delimiter),
      HOME: directory,
      VMLEDGER_HOME: join(directory, 'home'),
      npm_config_update_notifier: 'false',
    },
  })
  const isEnded = status === 'any' ? ran.status !== null : ran.status === status
  const isAsExpected = isEnded && stdout.test(ran.stdout) && stderr.test(ran.stderr)
  const said = `${ran.stdout ?? ''}${ran.stderr ?? ''}${ran.error?.message ?? ''}`.trim()
  const problem = isAsExpected ? null : `exit ${ran.status ?? ran.signal}: ${said.slice(-1_000)}`
  return { what, problem }
}

function writeSources(directory: string): void {
  const write = (name: string, text: string) => writeFileSync(join(directory, name), text)
  const types = join(directory, 'node_modules', 'vmledger', 'dist', 'types')
  const entries = { vmledger: 'index.d.ts', 'vmledger/testing': 'testing/index.d.ts' }
  const exported = Object.entries(entries).map(
    ([name, file]) => [name, namesIn(readFileSync(join(types, file), 'utf8'))] as const,
  )
  write('every.js', everyImport(exported))
  write('every.ts', everyType(exported))
  write('host.ts', simulated)
  write('example.ts', example().replace(`from 'vmledger'`, `from './host.ts'`))
  write('images.js', images)
  write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['every.ts', 'example.ts'] }))
}

type Names = { readonly values: readonly string[]; readonly types: readonly string[] }

/** The names that an entry's declarations export: they are lists of names and nothing else. */
export function namesIn(declarations: string): Names {
  const lists = [...declarations.matchAll(/^export (type )?\{([^}]*)\}/gm)].flatMap(
    ([, type = '', list = '']) =>
      list.split(',').flatMap((name) => (name.trim() === '' ? [] : [`${type}${name.trim()}`])),
  )
  const types = lists.filter((name) => name.startsWith('type '))
  return {
    values: lists.filter((name) => !name.startsWith('type ')),
    types: types.map((name) => name.replace('type ', '')),
  }
}

/** Fails to link where one is missing, and to run where one more is there that no type tells of. */
const everyImport = (exported: readonly (readonly [string, Names])[]): string =>
  [
    ...exported.map(([name, { values }]) => `import { ${values.join(', ')} } from '${name}'`),
    `import about from 'vmledger/package.json' with { type: 'json' }`,
    ...exported.map(
      ([name, { values }]) => `if (Object.keys(await import('${name}')).sort().join() !== \
${JSON.stringify(values.toSorted().join())}) throw new Error('${name} exports something else')`,
    ),
    `for (const value of [${exported.flatMap(([, { values }]) => values).join(', ')}])`,
    `  if (value === undefined) throw new Error('an export is undefined')`,
    `console.log(about.name === 'vmledger' ? 'ok' : about.name)`,
  ].join('\n')

/** Type aliases with parameters are named where they are exported again, which needs none. */
const everyType = (exported: readonly (readonly [string, Names])[]): string =>
  exported
    .map(([name, { types, values }]) => {
      const all = [...types.map((each) => `type ${each}`), ...values]
      return `export { ${all.join(', ')} } from '${name}'`
    })
    .join('\n')

const simulated = `import { type LedgerOptions, openLedger as open } from 'vmledger'
import { simulatedHost } from 'vmledger/testing'
export * from 'vmledger'
export const openLedger = (options: LedgerOptions = {}) => open({ host: simulatedHost(), ...options })
`
const images = `import { openImages } from 'vmledger'
const images = openImages({ cache: 'cache' })
console.log(images.verify().ok)
images.close()
`
const example = (): string =>
  /```ts\n(?<code>[^]*?)```/.exec(readFileSync(join(root, 'README.md'), 'utf8'))?.groups?.[
    'code'
  ] ?? ''

/** As strict as it gets, and without skipLibCheck: our declarations are checked as well. */
const compilerOptions = {
  target: 'es2023',
  module: 'nodenext',
  types: ['node'],
  typeRoots: [join(root, 'node_modules', '@types')],
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  verbatimModuleSyntax: true,
  erasableSyntaxOnly: true,
  allowImportingTsExtensions: true,
  skipLibCheck: false,
  noEmit: true,
}
