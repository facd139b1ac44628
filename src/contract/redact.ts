/** Keeps secrets out of events: an immutable log cannot be cleaned later, so nothing secret may enter. */
import { z } from 'zod'
import { LedgerError } from './errors.ts'

export const redacted = '[redacted]'

const secretSubtree = /^env|env(?:ironment)?$|headers$/i
// Of `pass` the word only: bypass, compass and passthrough are none.
const word =
  'secret|token|passw|pass_?phrase|(?<!by|com)pass(?![a-z])|pwd|key|auth|cookie|credential'
const secretName = new RegExp(word, 'i')
const quoted = `"(?:[^"\\\\]|\\\\.)*"?|'(?:[^'\\\\]|\\\\.)*'?`
// Every repetition that may begin anywhere is bounded: a regex must stay linear in 64 KiB of somebody's text.
const urlUserInfo = /([a-z][a-z0-9+.-]{0,20}:\/\/)[^/?#\s]{1,4096}@/gi
const urlSignature = /((?<![a-z])sig(?:nature)?=)[^&#\s]+/gi
const privateKey = /(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^]+?(?=-----END|$)/g
const header = /((?:authorization|cookie)["']?\s{0,8}[:=])[^\r\n]+/gi
const assignment = new RegExp(
  `((?:${word})[\\w.-]{0,64}["']?(?:\\s{0,8}[=:]{1,2}>?\\s{0,8}|\\s{1,8}(?:is|was)\\s{1,8}))(?:${quoted}|\\S+)`,
  'gi',
)
const flagAndValue = new RegExp(
  `(--?[\\w-]{0,64}(?:${word})[\\w-]{0,64}["']?[\\s,]{1,8})(?:${quoted}|\\S+)`,
  'gi',
)
const idPair = `["']?\\d{1,10}:\\d{1,10}(?![^\\s"'])`
const login = new RegExp(
  `((?<![\\w-])(?:-u|--(?:proxy-)?user)["']?[\\s=,]{1,8})(?!${idPair})` +
    `(?:"[^"\\s:]{1,256}:[^"]*"?|'[^'\\s:]{1,256}:[^']*'?|[^\\s:"']{1,256}:\\S+)`,
  'g',
)
const bearer = /\b(bearer|basic)\s{1,8}\S+/gi
const flag = new RegExp(`^--?[\\w-]{0,64}(?:${word})[\\w-]{0,64}$`, 'i')
const loginFlag = /^(?:-u|--(?:proxy-)?user)$/
const loginValue = new RegExp(`^(?!${idPair}$)[^\\s:]{1,256}:`)
const pairName = /^(?:name|key)$/i
const pairValue = /^values?$/i
const assignedFlag = new RegExp(`^[^\\s=]{0,64}(?:${word})[^\\s=]{0,64}=`, 'i')

/** Nothing in it can name, assign or separate a secret. */
const oneWord = /^\w*$/
const none: ReadonlySet<string> = new Set()

// In the definition, which every derived schema copies: zod up to 4.2 forgets `meta` at a check such
// as `.min(8)`, and the user's own copy may be that old.
const mark = Symbol.for('vmledger.secret')

/** Marks a field of a config schema as secret: its value never reaches an event. */
export function secret<S extends z.ZodType>(schema: S): S {
  assertKnown(schema)
  // By descriptors, since the shape of a recursive object may not be read before it is declared.
  const parts = Object.getOwnPropertyDescriptors(schema.def)
  const def = Object.defineProperties({}, { ...parts, [mark]: { value: true, enumerable: true } })
  return schema.clone(def as typeof schema.def, { parent: true }).meta({ secret: true })
}

/**
 * Takes secrets out of free text: user info and signatures in URLs, `token=...`, `Bearer ...`,
 * `-u user:password`, private keys, and every value in `known`. Over-redaction is harmless here: the
 * text is for people.
 */
export function redactText(text: string, known: ReadonlySet<string> = none): string {
  const rest = known.size === 0 ? text : takeOut(text, [...known])
  if (oneWord.test(rest)) return rest
  return redactUrls(rest)
    .replace(privateKey, `$1${redacted}`)
    .replace(header, `$1 ${redacted}`)
    .replace(assignment, `$1${redacted}`)
    .replace(flagAndValue, `$1${redacted}`)
    .replace(login, `$1${redacted}`)
    .replace(bearer, `$1 ${redacted}`)
}

/**
 * For texts that prove something: only what is in URLs, and what is known and too long to be there by chance.
 */
export const redactProof = (text: string, known: ReadonlySet<string>): string =>
  redactUrls(
    takeOut(
      text,
      [...known].filter((value) => value.length >= 8),
    ),
  )

/** The longest first: of a secret that begins with another one the rest would stay. */
const takeOut = (text: string, known: readonly string[]): string =>
  known
    .toSorted((a, b) => b.length - a.length)
    .reduce((clean, value) => clean.replaceAll(value, redacted), text)

const redactUrls = (text: string): string =>
  text.replace(urlUserInfo, `$1${redacted}@`).replace(urlSignature, `$1${redacted}`)

/**
 * A copy of `value` (JSON) without its secrets: values under keys that sound secret, all of `env` and
 * `headers`, the `value` beside a `name` that sounds secret, arguments after or within flags that sound
 * secret, user info in URLs. What was taken out is added to `found`, so that the same value can be taken
 * out of later texts.
 */
export function redactValue(value: unknown, found: Set<string> = new Set()): unknown {
  if (typeof value === 'string') return redactText(value)
  if (Array.isArray(value)) return redactArray(value, found)
  if (value === null || typeof value !== 'object') return value
  const isSecret = isSecretPair(value)
  return mapEntries(value, (key, inner) =>
    isSecret && pairValue.test(key) ? redactAll(inner, found) : redactField(key, inner, found),
  )
}

/** `config` without its secrets: by its schema's `secret()` fields if there is one, else by names. */
export function redactConfig(
  config: unknown,
  schema: z.ZodType | null,
  found: Set<string>,
): unknown {
  return schema === null ? redactValue(config, found) : redactBySchema(config, schema, found)
}

const redactField = (key: string, value: unknown, found: Set<string>): unknown =>
  secretName.test(key) || secretSubtree.test(key)
    ? redactAll(value, found)
    : redactValue(value, found)

/** `{ name: 'API_TOKEN', value: ... }` */
const isSecretPair = (value: object): boolean =>
  Object.entries(value).some(
    ([key, name]) => pairName.test(key) && typeof name === 'string' && secretName.test(name),
  )

function redactArray(values: readonly unknown[], found: Set<string>): unknown[] {
  return values.map((value, index) => {
    const before = values[index - 1]
    if (typeof before === 'string' && flag.test(before)) return redactAll(value, found)
    if (typeof value === 'string' && isLogin(before, value)) {
      remember(value.slice(value.indexOf(':') + 1), found)
      return redactAll(value, found)
    }
    if (typeof value === 'string' && assignedFlag.test(value)) {
      const cut = value.indexOf('=') + 1
      remember(value.slice(cut), found)
      return value.slice(0, cut) + redacted
    }
    return redactValue(value, found)
  })
}

const isLogin = (before: unknown, value: string): boolean =>
  typeof before === 'string' && loginFlag.test(before) && loginValue.test(value)

/** Keeps the shape (which names were set), drops every value. */
function redactAll(value: unknown, found: Set<string>): unknown {
  if (value === null || value === undefined) return value
  if (Array.isArray(value)) return value.map((inner) => redactAll(inner, found))
  if (typeof value === 'object') return mapEntries(value, (_, inner) => redactAll(inner, found))
  remember(String(value), found)
  return redacted
}

/** Short values would take harmless words out of every later message. */
function remember(value: string, found: Set<string>): void {
  if (value.length >= 6 && value !== redacted) found.add(value)
}

function redactBySchema(value: unknown, schema: z.ZodType, found: Set<string>): unknown {
  if (isMarked(schema)) return redactAll(value, found)
  const views = viewsOf(schema)
  // Of a union every branch has its say: which one is meant may hang on the very field that is wrong.
  if (views.length > 0)
    return views.reduce((left, view) => redactBySchema(left, view, found), value)
  if (typeof value === 'string') return redactUrls(value)
  if (value === null || typeof value !== 'object') return value
  const isList = schema instanceof z.ZodArray || schema instanceof z.ZodTuple
  if (Array.isArray(value))
    return isList
      ? value.map((item, index) => redactPart(String(index), item, schema, found))
      : redactArray(value, found)
  return mapEntries(value, (key, inner) => redactPart(key, inner, schema, found))
}

/** A part that the schema does not know has nobody to vouch for it: the rule by names applies. */
function redactPart(key: string, value: unknown, schema: z.ZodType, found: Set<string>): unknown {
  const part = partOf(schema, key)
  return part === undefined || part === null
    ? redactField(key, value, found)
    : redactBySchema(value, part as z.ZodType, found)
}

function partOf(schema: z.ZodType, key: string): z.core.$ZodType | null | undefined {
  if (schema instanceof z.ZodObject)
    return Object.hasOwn(schema.shape, key) ? schema.shape[key] : undefined
  if (schema instanceof z.ZodRecord) return schema.valueType
  if (schema instanceof z.ZodArray) return schema.element
  if (schema instanceof z.ZodTuple) return schema.def.items[Number(key)] ?? schema.def.rest
  return undefined
}

type Combining = {
  readonly [name in 'innerType' | 'left' | 'right' | 'in' | 'out']?: z.ZodType
} & { readonly options?: readonly z.ZodType[]; readonly getter?: () => z.ZodType }

/** What a schema wraps (optional, readonly ...) or combines (unions ...): each speaks of the same value. */
function viewsOf(schema: z.ZodType): z.ZodType[] {
  const def = schema.def as unknown as Combining
  const all = [def.innerType, def.left, def.right, def.in, def.out, def.getter?.()]
  return [...all, ...(def.options ?? [])].filter((view) => view !== undefined)
}

function isMarked(schema: z.ZodType): boolean {
  assertKnown(schema)
  return Object.hasOwn(schema.def, mark) || schema.meta()?.['secret'] === true
}

/** Others have no `meta`, and what they hold cannot be found: better no event than one with a secret. */
function assertKnown(schema: unknown): void {
  if (schema instanceof z.ZodType) return
  throw new LedgerError(
    'INVALID_OPTION',
    `secret() and configSchema need schemas of 'zod' 4; those of zod/mini and zod 3 cannot be marked`,
  )
}

const mapEntries = (value: object, change: (key: string, inner: unknown) => unknown): object =>
  Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, change(key, inner)]))
