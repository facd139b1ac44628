// Writes docs/events.md from the event catalogue and the machine, and docs/cli.md from the commands; with
// --check only tells whether they are stale.
import { readFileSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { z } from 'zod'
import { catalogue } from '../src/contract/catalogue.ts'
import { type EventType, eventTypes, type VmEventType } from '../src/contract/events.ts'
import { limits } from '../src/contract/limits.ts'
import { type Phase, phases } from '../src/contract/phases.ts'
import { identitySchema, keySchema, processIdentitySchema } from '../src/contract/resources.ts'
import { allowedTypes } from '../src/machines/fold.ts'
import { type GuardName, guardReasons } from '../src/machines/guards.ts'
import { machineVersion, vmMachine } from '../src/machines/vm.ts'
import { cliPage, wrap } from './cli-page.ts'

type Schema = {
  readonly type?: string | readonly string[]
  readonly anyOf?: readonly Schema[]
  readonly enum?: readonly string[]
  readonly const?: string
  readonly format?: string
  readonly pattern?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema | boolean
  readonly items?: Schema
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly maxLength?: number
  readonly maxItems?: number
}
type Field = { readonly name: string; readonly type: string }

const folder = resolve(import.meta.dirname, '..', 'docs')

const jsonSchema = (schema: z.ZodType): Schema => {
  const { $schema: _, ...rest } = z.toJSONSchema(schema)
  return rest as Schema
}
const textOf = (schema: Schema): string => JSON.stringify(schema)

/** Shapes that return in many payloads, and the word that stands for them. */
const named = new Map([
  [textOf(jsonSchema(keySchema)), 'key'],
  [textOf(jsonSchema(identitySchema)), 'identity'],
  [textOf(jsonSchema(processIdentitySchema)), 'process identity'],
  ['{}', 'JSON'],
])
const formats: Readonly<Record<string, string>> = {
  'date-time': 'time',
  cidrv4: 'IPv4 network',
  ipv4: 'IPv4 address',
  ulid: 'ULID',
}

for (const [name, page] of [
  ['events.md', eventsPage()],
  ['cli.md', cliPage()],
] as const) {
  const file = join(folder, name)
  if (!process.argv.includes('--check')) writeFileSync(file, page)
  else if (page !== read(file)) {
    process.stderr.write(`${relative(process.cwd(), file)} is stale: run \`npm run docs\`\n`)
    process.exitCode = 1
  }
}

function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null
  }
}

function eventsPage(): string {
  const streams = ['vm', 'host', 'image'] as const
  return `${[
    '<!-- Written by `npm run docs` from src/contract/catalogue.ts and src/machines/. Do not edit. -->',
    '# Events',
    wrap(
      `What the log may say: ${eventTypes.length} event types, each a fact in the past tense with a payload that is checked when it is appended and when it is read. A payload has at most ${limits.eventBytesMax / 1024} KiB of JSON. A field that is not listed is refused; a field that is listed is never missing, and null where there is nothing to say.`,
    ),
    wrap(
      `The phases are those of the machine in src/machines/vm.ts (version ${machineVersion}). An event that a phase does not take is refused with ILLEGAL_TRANSITION and nothing is written.`,
    ),
    '## Words for types',
    words(),
    ...streams.flatMap((stream) => [heading(stream), ...sections(stream)]),
  ].join('\n\n')}\n`
}

function words(): string {
  return [
    item('text N', 'a string of at most N characters'),
    item('time', 'RFC 3339, UTC, milliseconds: `2026-01-01T00:00:00.000Z`'),
    item('key', '`kind:name`, the name of a resource within its VM'),
    item(
      'identity',
      'flat facts that prove a thing ours: an object of strings, numbers, booleans or null',
    ),
    item('process identity', fieldsOf(jsonSchema(processIdentitySchema)).map(inline).join(', ')),
    item('JSON', 'any JSON value'),
  ].join('\n')
}

function heading(stream: 'vm' | 'host' | 'image'): string {
  const images =
    'These stand in the log of the images, `<cache>/images/metadata.db`; what follows what is in src/machines/image.ts. A file that gc found and nobody had registered has the stream `image/file:<name>`.'
  const unused = 'In the catalogue, and nothing in this version records them.'
  if (stream === 'vm') return '## Stream `vm/<id>`: one VM'
  if (stream === 'host') return `## Stream \`host\`: the machine as a whole\n\n${unused}`
  return `## Streams \`image/<digest>\`: one image\n\n${wrap(images)}`
}

function sections(stream: string): string[] {
  return eventTypes.filter((type) => catalogue[type].stream === stream).map(section)
}

function section(type: EventType): string {
  const { doc, schemaVersion, data, stream } = catalogue[type]
  const fields = fieldsOf(jsonSchema(data))
  return [
    `### ${type}`,
    wrap(`${doc} Schema version ${schemaVersion}.`),
    ...(stream === 'vm' ? [inTheMachine(type as VmEventType)] : []),
    fields.length === 0 ? 'No payload fields.' : fields.map((f) => item(f.name, f.type)).join('\n'),
  ].join('\n\n')
}

function inTheMachine(type: VmEventType): string {
  const takers = phases.filter((phase) => allowedTypes(phase).includes(type))
  const rules = ['absent', ...takers].flatMap((phase) => rulesOf(phase, type))
  const target = rules.find((rule) => rule.target !== null)?.target
  const guards = [...new Set(rules.flatMap(({ guard }) => (guard === null ? [] : [guard])))]
  const from = takers.length === 0 ? 'no phase: it opens the stream' : list(takers)
  return [
    wrap(`Leads to: ${target ? `\`${target}\`` : 'no other phase'}.`),
    wrap(`Taken in: ${from}.`),
    ...guards.map((guard) => wrap(`Refused when ${guardReasons[guard]}${inPhases(type, guard)}.`)),
  ].join('\\\n')
}

/** Named only where the guard does not stand in every phase that takes the event. */
function inPhases(type: VmEventType, guard: GuardName): string {
  const takers = phases.filter((phase) => allowedTypes(phase).includes(type))
  const guarded = takers.filter((phase) =>
    rulesOf(phase, type).some((rule) => rule.guard === guard),
  )
  return guarded.length === takers.length ? '' : ` (in ${list(guarded)})`
}

function rulesOf(phase: string, type: VmEventType) {
  const node = Object.entries(vmMachine.states).find(([key]) => key === phase)?.[1]
  return (node?.transitions.get(type) ?? []).map((rule) => ({
    guard: (rule.guard as GuardName | undefined) ?? null,
    target: (rule.target?.[0]?.key as Phase | undefined) ?? null,
  }))
}

function list(names: readonly string[]): string {
  return names.map((each) => `\`${each}\``).join(', ')
}

/** Objects are written out field by field, `error.code`. */
function fieldsOf({ properties = {} }: Schema, prefix = ''): Field[] {
  return Object.entries(properties).flatMap(([key, schema]) => {
    const isNested = schema.properties !== undefined && !named.has(textOf(schema))
    return isNested
      ? fieldsOf(schema, `${prefix}${key}.`)
      : [{ name: prefix + key, type: typeOf(schema) }]
  })
}

function typeOf(schema: Schema): string {
  const word = named.get(textOf(schema))
  if (word !== undefined) return word
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(' or ')
  if (Array.isArray(schema.type)) return schema.type.map((type) => typeOf({ type })).join(' or ')
  if (schema.const !== undefined) return `\`${schema.const}\``
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(' or ')
  if (schema.format !== undefined) return formats[schema.format] ?? schema.format
  if (schema.type === 'array') return arrayType(schema)
  if (schema.type === 'object') return `object of ${typeOf(asSchema(schema.additionalProperties))}`
  if (schema.type === 'integer') return `integer${range(schema)}`
  if (schema.type === 'string') return stringType(schema)
  return String(schema.type)
}

function stringType({ maxLength, pattern }: Schema): string {
  if (pattern !== undefined) return `text that matches \`${pattern}\``
  return maxLength === undefined ? 'text' : `text ${maxLength}`
}

function arrayType({ items, maxItems }: Schema): string {
  return `list of ${typeOf(items ?? {})}${maxItems === undefined ? '' : ` (at most ${maxItems})`}`
}

function asSchema(schema: Schema | boolean | undefined): Schema {
  return typeof schema === 'object' ? schema : {}
}

function range({ minimum, exclusiveMinimum, maximum }: Schema): string {
  const least = minimum ?? (exclusiveMinimum === undefined ? undefined : exclusiveMinimum + 1)
  const isBounded = maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER
  if (least === undefined || least === Number.MIN_SAFE_INTEGER) return ''
  return isBounded ? ` (${least} to ${maximum})` : ` (at least ${least})`
}

function inline({ name: key, type }: Field): string {
  return `\`${key}\` (${type})`
}

function item(key: string, said: string): string {
  return wrap(`- \`${key}\`: ${said}`, '  ')
}
