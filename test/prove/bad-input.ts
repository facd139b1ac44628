/** Hostile ids, paths, events, arguments and database bytes: an answer or a LedgerError, no way out, nothing written. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve, sep } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { CommanderError } from 'commander'
import { createProgram } from '../../src/cli/program.ts'
import { CorruptEventError, LedgerError } from '../../src/contract/errors.ts'
import { type EventType, eventTypes, vmEventTypes } from '../../src/contract/events.ts'
import { streamId, vmId } from '../../src/contract/ids.ts'
import { decode, encodeData } from '../../src/events/codec.ts'
import { segmentsOf } from '../../src/host/linux/holder.ts'
import { placeOf } from '../../src/host/place.ts'
import { tapName } from '../../src/host/resources.ts'
import { simulatedHost } from '../../src/host/simulated/host.ts'
import { seededRandom } from '../../src/host/simulated/random.ts'
import { parseQcow2 } from '../../src/images/qcow2.ts'
import { type Ledger, openLedger } from '../../src/ledger.ts'
import { samples } from '../support/samples.ts'
import { Findings, type Proof, type ProofOptions, type Result } from './proof.ts'

export const proof: Proof = {
  name: 'bad-input',
  claim:
    'whatever is given as id, path, event, argument or database: a clear answer or a LedgerError, no name outside the home, nothing written',
  unit: 'inputs',
  share: { ci: 50_000, full: 1_000_000 },
  isOnHost: false,
  lanes: 2,
  controls: [{ patch: 'bad-input-loose-ids', within: 5_000 }],
  controlsInCi: 'all',
  run,
}

/** Shares of what is good, without which only the first check of all would be tried. */
const goodIdsMin = 0.3
const goodEventsMin = 0.5
/** In a run of a few cases they say nothing. */
const judgedMin = 100
const kinds = {
  database: 1,
  recorded: 10,
  arguments: 15,
  stored: 100,
  path: 250,
  event: 300,
  header: 50,
  id: 274,
}
type Kind = keyof typeof kinds
const plan = Object.entries(kinds).flatMap(([kind, n]) => Array<Kind>(n).fill(kind as Kind))
const idCharacters = 'abcdefghijklmnopqrstuvwxyz0123456789-'
const nastyTexts = [
  '..',
  '.',
  '/',
  '../../etc/passwd',
  'a/../../b',
  '\0',
  'a\0b',
  '-',
  '--home',
  '',
  ' ',
  '\n',
  'vm\n',
  '\u202e',
  'ａ',
  'é',
  '💥',
  '\ud800',
  '%2e%2e',
  '$(id)',
  '`id`',
  ';',
  '"',
  "'",
  '\\',
  '{}',
  '#',
  '*',
  'NaN',
  '1e999',
  '__proto__',
  'constructor',
  'x'.repeat(64),
  'y'.repeat(5_000),
  'VM',
  '0x10',
  '-1',
  '9007199254740993',
  '2026-01-01T00:00:00.000Z',
  '2026-13-45',
  'vm-abc12345',
  'host',
  'image/sha256:00',
]

async function run(options: ProofOptions): Promise<Result> {
  const found = new Findings(options)
  const { seed, first, count } = options
  const only = options.only === null ? null : Number(options.only)
  // Commands that run in this process listen for signals, each anew.
  process.setMaxListeners(0)
  const tries = new Tries(options.scratch, await makeDatabase(join(options.scratch, 'template')))
  const [from, to] = only === null ? [first, first + count] : [only, only + 1]
  let done = 0
  for (let number = from; number < to && !found.isEnough; number++) {
    tries.random = seededRandom((seed ^ Math.imul(number + 1, 0x9e3779b1)) >>> 0)
    const kind = plan[number % plan.length]!
    const problems: string[] = []
    try {
      problems.push(...(await tries[kind]()))
    } catch (error) {
      problems.push(`${kind} threw ${error instanceof Error ? error.stack : String(error)}`)
    }
    found.add(`--seed ${seed} --only ${number}`, problems)
    done += 1
  }
  if (only === null) found.add(`--seed ${seed} --count ${count}`, tries.end())
  return { done, found: found.all, figures: tries.figures }
}

class Tries {
  random: () => number = Math.random
  readonly figures: Record<string, number> = {
    'good ids': 0,
    'bad ids': 0,
    'good events': 0,
    'bad events': 0,
    'databases refused': 0,
    'databases read': 0,
  }
  readonly #home: string
  readonly #nowhere: string
  readonly #scratch: string
  readonly #ledger: Ledger
  readonly #database: Buffer

  constructor(scratch: string, database: Buffer) {
    this.#scratch = scratch
    this.#home = join(scratch, 'home')
    this.#nowhere = join(scratch, 'nowhere')
    this.#ledger = openLedger({ home: this.#home, host: simulatedHost() })
    this.#database = database
  }

  /** Good shares, and a ledger in which nothing but the VM for `recorded` ever was. */
  end(): string[] {
    const { figures } = this
    const areTooFew = (good: string, bad: string, shareMin: number): boolean => {
      const tried = (figures[good] ?? 0) + (figures[bad] ?? 0)
      return tried >= judgedMin && (figures[good] ?? 0) / tried < shareMin
    }
    const problems = this.#ledger.verify().findings.map((finding) => JSON.stringify(finding))
    this.#ledger.close()
    if (areTooFew('good ids', 'bad ids', goodIdsMin)) problems.push('too few ids pass the grammar')
    if (areTooFew('good events', 'bad events', goodEventsMin)) problems.push('too few events pass')
    return problems
  }

  async id(): Promise<string[]> {
    const text = this.#id()
    const isGood = isIdByHand(text)
    this.#count(isGood ? 'good ids' : 'bad ids')
    const taken = refusedBy(() => vmId(text), 'INVALID_ID')
    const stream = refusedBy(() => streamId(`vm/${String(text)}`), 'INVALID_ID')
    const problems =
      taken !== isGood || (typeof text === 'string' && stream !== isGood)
        ? [`the id ${JSON.stringify(text)} is ${taken ? 'taken' : 'refused'}`]
        : []
    if (!taken) return problems
    const place = placeOf(this.#home, '01JD0000000000000000000000', text as string)
    for (const path of [place.stateDir, place.vmmLock, place.helperLock])
      if (!isBelow(path, this.#home)) problems.push(`${path} of ${JSON.stringify(text)} is outside`)
    if (!/^fc-[a-z0-9]{1,12}$/.test(tapName(text as string)))
      problems.push(`the TAP of ${JSON.stringify(text)} is ${tapName(text as string)}`)
    return problems
  }

  async path(): Promise<string[]> {
    const parts = Array.from({ length: 1 + this.#below(4) }, () =>
      this.#chance(0.7) ? this.#word() : this.#pick(nastyTexts),
    )
    const text = (this.#chance(0.1) ? '/' : '') + parts.join('/')
    let segments: string[]
    try {
      segments = segmentsOf(text)
    } catch {
      return [] // refused: what is thrown is turned into an answer by the drivers
    }
    const path = resolve(this.#home, ...segments)
    return isBelow(path, this.#home) && !text.includes('\0')
      ? []
      : [`the path ${JSON.stringify(text)} leads to ${path}`]
  }

  async event(): Promise<string[]> {
    const type = this.#chance(0.97) ? this.#pick(eventTypes) : this.#pick(nastyTexts)
    const data = this.#payload(type)
    let encoded: ReturnType<typeof encodeData>
    try {
      encoded = encodeData(type, data)
    } catch (error) {
      this.#count('bad events')
      return isRefusal(error, 'INVALID_EVENT') ? [] : [`${type} threw ${String(error)}`]
    }
    this.#count('good events')
    const back = decode(rowOf(type, encoded.text)).data
    return isDeepStrictEqual(back, encoded.data)
      ? []
      : [`${type} comes back as ${JSON.stringify(back)}, was ${encoded.text}`.slice(0, 400)]
  }

  /** A stored row that somebody else wrote. */
  async stored(): Promise<string[]> {
    const type = this.#pick(eventTypes)
    const text = jsonOf(this.#payload(type))
    const at = this.#below(text.length + 1)
    const broken = this.#chance(0.5)
      ? text
      : text.slice(0, at) + this.#pick(nastyTexts) + text.slice(at + 1)
    try {
      decode({ ...rowOf(type, broken), schemaVersion: this.#pick([1, 1, 1, 0, 2, 99]) })
      return []
    } catch (error) {
      return error instanceof CorruptEventError ? [] : [`decode threw ${String(error)}: ${broken}`]
    }
  }

  /** The first bytes of an image: what it names is what was put there, or it is not understood. */
  async header(): Promise<string[]> {
    const backing = this.#chance(0.7) ? `/images/${this.#word()}.ext4` : null
    const head = qcow2Header(this.#pick([2, 3] as const), backing)
    const isWhole = this.#chance(0.5)
    const bytes = isWhole
      ? head
      : Buffer.concat([this.#damaged(head.subarray(0, 4096)), head.subarray(4096)])
    const said = parseQcow2(bytes)
    const names = said.kind === 'qcow2' ? [said.backing, said.dataFile] : []
    const problems = names.some((name) => name?.includes('\0') === true)
      ? ['a name holds a NUL']
      : []
    if (isWhole && (said.kind !== 'qcow2' || said.backing !== backing))
      problems.push(`a header that names ${backing} is read as ${JSON.stringify(said)}`)
    // Whoever takes an image with a backing file for a raw one lets that file be deleted.
    if (said.kind === 'raw' && bytes.subarray(0, 4).equals(head.subarray(0, 4)))
      problems.push('a qcow2 is taken for raw')
    return problems
  }

  /** Through the one door: what is refused is not written. */
  async recorded(): Promise<string[]> {
    const { position } = this.#ledger.head()
    const type = this.#pick(vmEventTypes)
    const data = this.#payload(type) as Record<string, unknown>
    try {
      await this.#ledger.createVm({
        id: this.#id() as string,
        backend: this.#pick(nastyTexts),
        image: this.#pick(nastyTexts),
        config: data,
      })
      return []
    } catch (error) {
      const after = this.#ledger.head().position
      const problems =
        after === position ? [] : [`${after - position} events of a refused VM are written`]
      return error instanceof LedgerError
        ? problems
        : [...problems, `createVm threw ${String(error)}`]
    }
  }

  /** The command line, parsed and run in this process on a home that is not there. */
  async arguments(): Promise<string[]> {
    const verb = this.#pick(['list', 'show', 'history', 'replay', 'gc', 'head', 'nothing'])
    const options = [
      '--json',
      '--all',
      '--stuck',
      '--verify',
      '--at',
      '--dry-run',
      '--phase',
      '--expect-head',
    ]
    const args = Array.from({ length: this.#below(4) }, () =>
      this.#chance(0.5) ? this.#pick(options) : this.#pick(nastyTexts),
    )
    const before = readdirSync(this.#scratch).join()
    const thrown = await quietly(() =>
      createProgram()
        .exitOverride()
        .parseAsync([verb, ...args, '--home', this.#nowhere], { from: 'user' }),
    )
    process.exitCode = 0
    const problems = readdirSync(this.#scratch).join() === before ? [] : ['it wrote something']
    const isKnown =
      thrown === null || thrown instanceof LedgerError || thrown instanceof CommanderError
    if (!isKnown)
      problems.push(`it threw ${thrown instanceof Error ? thrown.stack : String(thrown)}`)
    return problems.map((problem) => `${verb} ${JSON.stringify(args)}: ${problem}`)
  }

  /** A database with bytes of somebody else in it, read only. */
  async database(): Promise<string[]> {
    const home = join(this.#scratch, 'broken')
    const file = join(home, 'state.db')
    const bytes = this.#damaged(this.#database)
    mkdirSync(home, { mode: 0o700 })
    writeFileSync(file, bytes, { mode: 0o600 })
    try {
      const ledger = openLedger({ home, host: simulatedHost(), readonly: true })
      try {
        ledger.list({ removed: true })
        for await (const event of ledger.events()) void event
        ledger.verify()
        this.#count('databases read')
      } finally {
        ledger.close()
      }
    } catch (error) {
      this.#count('databases refused')
      if (!(error instanceof LedgerError))
        return [`a broken database threw ${error instanceof Error ? error.stack : String(error)}`]
    } finally {
      copyFileSync(file, join(this.#scratch, 'after.db'))
      rmSync(home, { recursive: true, force: true })
    }
    return readFileSync(join(this.#scratch, 'after.db')).equals(bytes)
      ? []
      : ['a reader changed it']
  }

  #damaged(whole: Buffer): Buffer {
    const bytes = Buffer.from(whole)
    const hits = 1 + this.#below(20)
    for (let hit = 0; hit < hits; hit++) {
      // Half of them in the heads of pages, where the structure is.
      const page = 4096 * this.#below(Math.floor(bytes.length / 4096))
      const at = this.#chance(0.5) ? page + this.#below(40) : this.#below(bytes.length)
      bytes[at] = this.#below(256)
    }
    return this.#chance(0.2) ? bytes.subarray(0, this.#below(bytes.length)) : bytes
  }

  #payload(type: string): unknown {
    const sample = Object.hasOwn(samples, type) ? samples[type as EventType] : {}
    const data = structuredClone(sample) as Record<string, unknown>
    if (this.#chance(0.3)) return this.#varied(data)
    if (this.#chance(0.4)) return data
    return this.#broken(data)
  }

  /** Other texts of the same shape. */
  #varied(data: Record<string, unknown>): unknown {
    for (const name of ['reason', 'by', 'evidence', 'config', 'spec'])
      if (typeof data[name] === 'string') data[name] = this.#pick(nastyTexts)
    if ('config' in data)
      data['config'] = { [this.#pick(nastyTexts)]: [this.#pick(nastyTexts), null] }
    return data
  }

  #broken(data: Record<string, unknown>): unknown {
    const names = Object.keys(data)
    const name = names.length === 0 ? 'x' : this.#pick(names)
    const value = this.#pick<unknown>([
      ...nastyTexts,
      null,
      undefined,
      -1,
      1.5,
      NaN,
      Infinity,
      [],
      {},
      true,
      1n,
      () => 1,
      Symbol('s'),
      new Date(0),
    ])
    if (this.#chance(0.2)) return value
    if (this.#chance(0.2)) delete data[name]
    else data[this.#chance(0.8) ? name : this.#pick(nastyTexts)] = value
    return data
  }

  #id(): unknown {
    if (this.#chance(0.45)) return this.#word()
    if (this.#chance(0.5))
      return this.#pick<unknown>([...nastyTexts, null, 1, {}, [], ['vm-1'], undefined])
    const word = this.#word()
    const at = this.#below(word.length + 1)
    return word.slice(0, at) + this.#pick(nastyTexts) + word.slice(at)
  }

  #word(): string {
    const length = 1 + this.#below(this.#chance(0.8) ? 12 : 63)
    return Array.from({ length }, (_, index) =>
      idCharacters.charAt(this.#below(idCharacters.length - (index === 0 ? 1 : 0))),
    ).join('')
  }

  #count(what: string): void {
    this.figures[what] = (this.figures[what] ?? 0) + 1
  }

  #below(limit: number): number {
    return Math.floor(this.random() * limit)
  }

  #chance(share: number): boolean {
    return this.random() < share
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#below(from.length)]!
  }
}

/** As qemu-img writes it: the name of the backing file follows the end of the extensions. */
function qcow2Header(version: 2 | 3, backing: string | null): Buffer {
  const head = Buffer.alloc(65_536)
  const length = version === 2 ? 72 : 104
  head.writeUInt32BE(0x514649fb, 0)
  head.writeUInt32BE(version, 4)
  head.writeUInt32BE(16, 20)
  head.writeBigUInt64BE(1_048_576n, 24)
  if (version === 3) {
    head.writeUInt32BE(4, 96)
    head.writeUInt32BE(length, 100)
  }
  if (backing === null) return head
  head.writeBigUInt64BE(BigInt(length + 8), 8)
  head.writeUInt32BE(Buffer.byteLength(backing), 16)
  head.write(backing, length + 8)
  return head
}

/** The grammar once more, character by character. */
const isIdByHand = (text: unknown): boolean =>
  typeof text === 'string' &&
  text.length >= 1 &&
  text.length <= 63 &&
  text.split('').every((character) => idCharacters.includes(character)) &&
  !text.startsWith('-')

const isBelow = (path: string, home: string): boolean =>
  resolve(path) === path && path.startsWith(home + sep) && !path.includes('\0')

const isRefusal = (error: unknown, code: string): boolean =>
  error instanceof LedgerError && error.code === code

/** True where it was taken. @throws what is no refusal */
function refusedBy(work: () => unknown, code: string): boolean {
  try {
    work()
    return true
  } catch (error) {
    if (isRefusal(error, code)) return false
    throw error
  }
}

/** As text, also what JSON cannot say. */
function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? ''
  } catch {
    return String(value)
  }
}

/** What was thrown, with nothing said meanwhile. */
async function quietly(work: () => Promise<unknown>): Promise<unknown> {
  const streams = [process.stdout, process.stderr]
  const writes = streams.map((stream) => stream.write.bind(stream))
  for (const stream of streams) stream.write = () => true
  try {
    await work()
    return null
  } catch (error) {
    return error
  } finally {
    for (const [index, stream] of streams.entries()) stream.write = writes[index]!
  }
}

const rowOf = (type: string, data: string): Parameters<typeof decode>[0] => ({
  position: 1,
  eventId: '01JD0000000000000000000000',
  streamId: 'vm/a',
  version: 1,
  type,
  schemaVersion: 1,
  data,
  metadata:
    '{"actor":"a","correlationId":null,"causationId":null,"bootId":null,"pid":1,"machineVersion":1}',
  occurredAt: '2026-01-01T00:00:00.000Z',
  recordedAt: '2026-01-01T00:00:00.000Z',
  hash: '00'.repeat(32),
})

/** A ledger in which three VMs lived and one was cleaned. */
async function makeDatabase(home: string): Promise<Buffer> {
  const ledger = openLedger({ home, host: simulatedHost() })
  for (const id of ['a', 'b', 'c']) {
    const vm = await ledger.createVm({ id, backend: 'test' })
    await vm.allocateSubnet()
    await vm.acquire({ kind: 'tap', name: `t-${id}`, spec: {} })
    await vm.record({ type: 'vm.created' })
  }
  await ledger.vm('a').close()
  ledger.close()
  return readFileSync(join(home, 'state.db'))
}
