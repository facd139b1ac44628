/** Keeps secrets out of events: an immutable log cannot be cleaned later, so nothing secret may enter. */
import { z } from 'zod'

export const redacted = '[redacted]'

const secretSubtree = /^(?:env|environ|environment|headers)$/i
const word = 'secret|token|passw|key|auth|cookie|credential'
const secretName = new RegExp(word, 'i')
// Every repetition is bounded: a payload is 64 KiB of somebody's text, and a regex must stay linear in it.
const urlUserInfo = /([a-z][a-z0-9+.-]{0,20}:\/\/)[^/?#\s@]{1,1024}@/gi
const assignment = new RegExp(
  `((?:${word})[\\w.-]{0,64}["']?\\s{0,8}(?:[=:]\\s{0,8}|\\sis\\s{1,8})["']?(?:(?:bearer|basic)\\s{1,8})?)([^\\s"'&;,]+)`,
  'gi',
)
const bearer = /\b(bearer|basic)\s{1,8}[^\s"',;]+/gi
const flag = new RegExp(`^--?[\\w-]{0,64}(?:${word})[\\w-]{0,64}$`, 'i')
const assignedFlag = new RegExp(`^-{0,2}[\\w-]{0,64}(?:${word})[\\w-]{0,64}=`, 'i')

const fields = new WeakSet<z.ZodType>()

/** Marks a field of a config schema as secret: its value never reaches an event. */
export function secret<S extends z.ZodType>(schema: S): S {
  const marked = schema.meta({ secret: true }) as S
  fields.add(marked)
  return marked
}

/**
 * Takes secrets out of free text: user info in URLs, `token=...`, `Bearer ...`, and every value in `known`.
 * Over-redaction is harmless here: the text is for people.
 */
export function redactText(text: string, known: ReadonlySet<string> = new Set()): string {
  let clean = text
  for (const value of known) clean = clean.replaceAll(value, redacted)
  return clean
    .replace(urlUserInfo, `$1${redacted}@`)
    .replace(assignment, `$1${redacted}`)
    .replace(bearer, `$1 ${redacted}`)
}

/**
 * A copy of `value` (JSON) without its secrets: values under keys that sound secret, all of `env` and
 * `headers`, arguments after or within flags that sound secret, user info in URLs. What was taken out is
 * added to `found`, so that the same value can be taken out of later texts.
 */
export function redactValue(value: unknown, found: Set<string> = new Set()): unknown {
  if (typeof value === 'string') return redactText(value)
  if (Array.isArray(value)) return redactArray(value, found)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      secretName.test(key) || secretSubtree.test(key)
        ? redactAll(inner, found)
        : redactValue(inner, found),
    ]),
  )
}

/** `config` without its secrets: by its schema's `secret()` fields if there is one, else by names. */
export function redactConfig(config: unknown, schema: z.ZodType | null, found: Set<string>): unknown {
  return schema === null ? redactValue(config, found) : redactBySchema(config, schema, found)
}

function redactArray(values: readonly unknown[], found: Set<string>): unknown[] {
  return values.map((value, index) => {
    const before = values[index - 1]
    if (typeof before === 'string' && flag.test(before)) return redactAll(value, found)
    if (typeof value === 'string' && assignedFlag.test(value)) {
      const cut = value.indexOf('=') + 1
      remember(value.slice(cut), found)
      return value.slice(0, cut) + redacted
    }
    return redactValue(value, found)
  })
}

/** Keeps the shape (which names were set), drops every value. */
function redactAll(value: unknown, found: Set<string>): unknown {
  if (value === null) return null
  if (Array.isArray(value)) return value.map((inner) => redactAll(inner, found))
  if (typeof value === 'object')
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [key, redactAll(inner, found)]),
    )
  remember(String(value), found)
  return redacted
}

/** Short values would take harmless words out of every later message. */
function remember(value: string, found: Set<string>): void {
  if (value.length >= 6) found.add(value)
}

function redactBySchema(value: unknown, schema: z.ZodType, found: Set<string>): unknown {
  if (isSecret(schema)) return redactAll(value, found)
  const inner = unwrap(schema)
  if (inner !== schema) return redactBySchema(value, inner, found)
  if (schema instanceof z.ZodObject && value !== null && typeof value === 'object')
    return Object.fromEntries(
      Object.entries(value).map(([key, field]) => {
        const fieldSchema = schema.shape[key] as z.ZodType | undefined
        // A field that the schema does not know has nobody to vouch for it: the rule by names applies.
        if (fieldSchema === undefined) return [key, (redactValue({ [key]: field }, found) as Record<string, unknown>)[key]]
        return [key, redactBySchema(field, fieldSchema, found)]
      }),
    )
  if (schema instanceof z.ZodArray && Array.isArray(value))
    return value.map((item) => redactBySchema(item, schema.element as z.ZodType, found))
  if (schema instanceof z.ZodRecord && value !== null && typeof value === 'object')
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [
        key,
        redactBySchema(item, schema.valueType as z.ZodType, found),
      ]),
    )
  if (typeof value === 'string') return value.replace(urlUserInfo, `$1${redacted}@`)
  // Unions and the like say nothing about their parts: the rule by names applies.
  return value !== null && typeof value === 'object' ? redactValue(value, found) : value
}

const isSecret = (schema: z.ZodType): boolean =>
  fields.has(schema) || schema.meta()?.['secret'] === true

function unwrap(schema: z.ZodType): z.ZodType {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault
  )
    return schema.unwrap() as z.ZodType
  return schema
}
