// What must never reach an event, by the ways in which it tries to.
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import * as mini from 'zod/mini'
import { z as zodOfUser } from 'zod-old'
import { limits } from '../../src/contract/limits.ts'
import {
  redactConfig,
  redacted,
  redactText,
  redactValue,
  secret,
} from '../../src/contract/redact.ts'

const r = redacted

const hidden = () => secret(z.string())

/** A user's own copy of zod, from before it kept `meta` at a check. */
const older = zodOfUser as unknown as typeof z

describe('free text', () => {
  test.each([
    [
      'user info of a URL',
      'pull https://bob:hunter2@ghcr.io/x failed',
      `pull https://${r}@ghcr.io/x failed`,
    ],
    ['a user without a password', 'https://ghp_abc@github.com', `https://${r}@github.com`],
    ['a password with an @', 'https://bob:p@ss@host/a', `https://${r}@host/a`],
    ['two URLs', 'a://b:c@d, e://f:g@h', `a://${r}@d, e://${r}@h`],
    ['a query', 'GET /a?access_token=abc&x=1', `GET /a?access_token=${r}`],
    ['an assignment', 'DB_PASSWORD=hunter2 exited', `DB_PASSWORD=${r} exited`],
    ['a value with a comma', 'password=a,b;c&d', `password=${r}`],
    ['a quoted value with spaces', 'password="two words" ok', `password=${r} ok`],
    ['an arrow', 'apiKey => abc', `apiKey => ${r}`],
    ['a colon', 'token: abc', `token: ${r}`],
    ['a sentence', 'the password is hunter2', `the password is ${r}`],
    ['JSON', '{"password":"a\\"b","user":"bob"}', `{"password":${r},"user":"bob"}`],
    ['a bearer header', 'Authorization: Bearer abc.def', `Authorization: ${r}`],
    ['a header of another scheme', 'authorization: Token abc', `authorization: ${r}`],
    ['a digest', 'Authorization: Digest username="u", response="abc"', `Authorization: ${r}`],
    ['cookies', 'Cookie: a=1; sid=abc\nnext', `Cookie: ${r}\nnext`],
    ['a cookie that is set', 'Set-Cookie: sid=abc; Path=/', `Set-Cookie: ${r}`],
    ['a key header', 'X-Api-Key: abc', `X-Api-Key: ${r}`],
    ['a scheme alone', 'sent Bearer abc, got 401', `sent Bearer ${r} got 401`],
    ['a flag', 'fc --token abc --id 7', `fc --token ${r} --id 7`],
    ['a flag with =', 'fc --api-key=abc --id 7', `fc --api-key=${r} --id 7`],
    ['argv as JSON', '["fc","--token","abc","--id","7"]', `["fc","--token",${r},"--id","7"]`],
    [
      'a private key',
      'got -----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END',
      `got -----BEGIN RSA PRIVATE KEY-----${r}-----END`,
    ],
    [
      'a private key that was cut',
      '-----BEGIN PRIVATE KEY-----\nMIIE',
      `-----BEGIN PRIVATE KEY-----${r}`,
    ],
    ['any case', 'PassWord=HUNTER2', `PassWord=${r}`],
    ['a pass', 'DB_PASS=abc exited', `DB_PASS=${r} exited`],
    ['a passphrase', 'pass_phrase: abc', `pass_phrase: ${r}`],
    ['a pwd', 'MYSQL_PWD=abc fc', `MYSQL_PWD=${r} fc`],
    ['a signed URL', 'GET https://h/a?sig=a%2Fb&x=1', `GET https://h/a?sig=${r}&x=1`],
    ['another one', 'https://h/a?x=1&Signature=abc', `https://h/a?x=1&Signature=${r}`],
    ['one of S3', 'https://h/a?X-Amz-Signature=abc&x=1', `https://h/a?X-Amz-Signature=${r}&x=1`],
    ['a login of curl', 'curl -u bob:abc https://h', `curl -u ${r} https://h`],
    ['a quoted one', `curl --user 'bob:two words' https://h`, `curl --user ${r} https://h`],
    ['one for a proxy', 'curl --proxy-user=bob:abc', `curl --proxy-user=${r}`],
    ['one as JSON', '["curl","-u","bob:abc","h"]', `["curl","-u",${r},"h"]`],
  ])('loses %s: %j', (_, text, clean) => {
    expect(redactText(text)).toBe(clean)
  })

  test.each([
    'ioctl(TUNSETIFF): Device or resource busy',
    'exited with code 1 after 2.5 s',
    'https://ghcr.io/v2/library/alpine:3.20',
    'mail bob@example.org',
    'bypass: on, compass: off, passed=3, passthrough=gpu',
    'design=a',
    'docker run -u 1000:1000 x',
    'sudo -u bob fc',
    'mysql -pabc',
    '',
  ])('keeps what holds no secret: %j', (text) => {
    expect(redactText(text)).toBe(text)
  })

  test('loses every value that is known, the longer one whole', () => {
    expect(
      redactText('got hunter2, then hunter2-admin', new Set(['hunter2', 'hunter2-admin'])),
    ).toBe(`got ${r}, then ${r}`)
  })

  test('is the same when cleaned again', () => {
    const once = redactText('token=abc https://a:b@c Bearer x --key y password is z Cookie: q')
    expect(redactText(once)).toBe(once)
  })

  test.each([
    'a',
    '-',
    '-key',
    'key',
    'key=',
    'a://',
    'a://b',
    '"',
    '--token ',
    'is ',
    'x@',
    'Bearer ',
    '-----BEGIN PRIVATE KEY-----',
    'cookie:',
    'pass',
    'pwd=',
    'sig=',
    '-u ',
    '-u a',
    '-u a:',
    '-u "',
    '-u "a:',
    '--user=',
    '\\',
    ' ',
  ])('takes time that is linear in 64 KiB of %j', (piece) => {
    const text = piece.repeat(limits.eventBytesMax / piece.length)
    const startedAtMs = performance.now()
    redactText(text)
    expect(performance.now() - startedAtMs).toBeLessThan(2_000)
  })
})

describe('a value', () => {
  test.each<[string, unknown, unknown]>([
    ['a key that sounds secret', { apiToken: 'abc', vcpus: 2 }, { apiToken: r, vcpus: 2 }],
    [
      'secret words in any case',
      { PASSWD: 'a', sshKey: 'b', Auth: 'c', cookieJar: 'd', credentials: 'e', mySecret: 'f' },
      { PASSWD: r, sshKey: r, Auth: r, cookieJar: r, credentials: r, mySecret: r },
    ],
    ['a list below it', { tokens: ['abc', ['def']] }, { tokens: [r, [r]] }],
    [
      'an object below it, whose names stay',
      { auths: { 'ghcr.io': { user: 'bob', n: 1 } } },
      { auths: { 'ghcr.io': { user: r, n: r } } },
    ],
    ['nothing where nothing was', { token: null, key: undefined }, { token: null, key: undefined }],
    ['all of env', { env: { PATH: '/bin', X: 'abc' } }, { env: { PATH: r, X: r } }],
    ['env as a list', { environment: ['A=abc'] }, { environment: [r] }],
    [
      'all of headers, also as a list',
      { headers: [{ name: 'X', value: 'abc' }] },
      { headers: [{ name: r, value: r }] },
    ],
    [
      'names that begin with env or end in headers',
      { envVars: { A: 'abc' }, ENVIRON: ['a'], guestEnv: { A: 'abc' }, httpHeaders: { X: 'abc' } },
      { envVars: { A: r }, ENVIRON: [r], guestEnv: { A: r }, httpHeaders: { X: r } },
    ],
    [
      'variables by name and value',
      { environmentVariables: [{ name: 'A', value: 'abc' }] },
      { environmentVariables: [{ name: r, value: r }] },
    ],
    [
      'the value beside a name that sounds secret',
      {
        vars: [
          { name: 'API_TOKEN', value: 'abc' },
          { Key: 'dbPass', Value: ['abc'] },
        ],
      },
      {
        vars: [
          { name: 'API_TOKEN', value: r },
          { Key: r, Value: [r] },
        ],
      },
    ],
    [
      'other words for a password',
      { pass: 'a', smtpPass: 'b', passphrase: 'c', pwd: 'd', passThrough: 'e', bypass: 'f' },
      { pass: r, smtpPass: r, passphrase: r, pwd: r, passThrough: 'e', bypass: 'f' },
    ],
    [
      'a login among arguments, and keeps a user and a group',
      ['curl', '-u', 'bob:two words', '-u', '1000:1000', '--user', 'bob', '--proxy-user', 'b:c'],
      ['curl', '-u', r, '-u', '1000:1000', '--user', 'bob', '--proxy-user', r],
    ],
    [
      'the argument after a flag',
      ['fc', '--token', 'abc', '--id', '7'],
      ['fc', '--token', r, '--id', '7'],
    ],
    ['a flag with its argument', ['fc', '--token=abc=def', '-k=v'], ['fc', `--token=${r}`, '-k=v']],
    [
      'an assignment among arguments',
      ['env', 'API_KEY=two words', 'A=b'],
      ['env', `API_KEY=${r}`, 'A=b'],
    ],
    [
      'a path of settings among arguments',
      ['--set', 'db.password=two words'],
      ['--set', `db.password=${r}`],
    ],
    [
      'a header among arguments',
      ['curl', '-H', 'Authorization: Bearer abc'],
      ['curl', '-H', `Authorization: ${r}`],
    ],
    [
      'user info of a URL anywhere',
      { proxy: { url: 'http://bob:abc@proxy:3128' } },
      { proxy: { url: `http://${r}@proxy:3128` } },
    ],
    ['a text', 'password is abc', `password is ${r}`],
    ['scalars of no interest', [1, true, null], [1, true, null]],
  ])('loses %s', (_, value, clean) => {
    expect(redactValue(value)).toEqual(clean)
  })

  test('is copied, never changed', () => {
    const value = Object.freeze({ token: 'abc', list: Object.freeze(['--key', 'x']) })
    expect(redactValue(value)).toEqual({ token: r, list: ['--key', r] })
  })

  test('tells what it lost, where that is long enough to be looked for', () => {
    const found = new Set<string>()
    redactValue(
      {
        token: 'abcdef',
        key: 1234567,
        secret: 'short',
        auth: [null, undefined, 'ghijkl'],
        a: ['--key', 'mnopqr', '--token=stuvwx', '-u', 'bob:yzabcd'],
      },
      found,
    )
    expect(found).toEqual(
      new Set(['abcdef', '1234567', 'ghijkl', 'mnopqr', 'stuvwx', 'bob:yzabcd', 'yzabcd']),
    )
  })

  test('keeps keys that mean something to JavaScript as data', () => {
    const value = JSON.parse('{"__proto__":{"token":"abc","a":1},"constructor":{"b":2}}') as object
    expect(JSON.stringify(redactValue(value))).toBe(
      `{"__proto__":{"token":"${r}","a":1},"constructor":{"b":2}}`,
    )
    expect(({} as Record<string, unknown>)['a']).toBeUndefined()
  })
})

describe('a config with a schema', () => {
  const lost = { vault: r }
  type Row = [what: string, schema: z.ZodType, config: unknown, clean: unknown]

  test.each<Row>([
    [
      'a secret',
      z.object({ vault: hidden(), vcpus: z.number() }),
      { vault: 'abc', vcpus: 2 },
      { vault: r, vcpus: 2 },
    ],
    ['an optional one', z.object({ vault: hidden().optional() }), { vault: 'abc' }, lost],
    [
      'a secret that is optional inside',
      z.object({ vault: secret(z.string().optional()) }),
      { vault: 'abc' },
      lost,
    ],
    ['a nullable one', z.object({ vault: hidden().nullable() }), { vault: 'abc' }, lost],
    ['one with a default', z.object({ vault: hidden().default('d') }), { vault: 'abc' }, lost],
    ['one with a prefault', z.object({ vault: hidden().prefault('d') }), { vault: 'abc' }, lost],
    ['one that catches', z.object({ vault: hidden().catch('d') }), { vault: 'abc' }, lost],
    ['a readonly one', z.object({ vault: hidden().readonly() }), { vault: 'abc' }, lost],
    ['a piped one', z.object({ vault: hidden().pipe(z.string()) }), { vault: 'abc' }, lost],
    [
      'a transformed one',
      z.object({ vault: hidden().transform((text) => text.length) }),
      { vault: 'abc' },
      lost,
    ],
    [
      'one behind a preprocessing',
      z.object({ vault: z.preprocess(String, hidden()) }),
      { vault: 'abc' },
      lost,
    ],
    ['a lazy one', z.object({ vault: z.lazy(hidden) }), { vault: 'abc' }, lost],
    [
      'one that was refined after it was marked',
      z.object({ vault: hidden().min(3) }),
      { vault: 'abc' },
      lost,
    ],
    [
      'one that was described after it was marked',
      z.object({ vault: hidden().describe('d') }),
      { vault: 'abc' },
      lost,
    ],
    [
      'one in several wrappings',
      z.object({ vault: hidden().nullable().optional().default(null).readonly() }),
      { vault: 'abc' },
      lost,
    ],
    [
      'one in a readonly object',
      z.object({ a: z.object({ vault: hidden() }).readonly() }),
      { a: { vault: 'abc' } },
      { a: lost },
    ],
    [
      'a nested one',
      z.object({ a: z.object({ b: z.object({ vault: hidden() }) }) }),
      { a: { b: { vault: 'abc' } } },
      { a: { b: lost } },
    ],
    [
      'a secret object, whose names stay',
      z.object({ vault: secret(z.object({ a: z.string() })) }),
      { vault: { a: 'abc', n: null } },
      { vault: { a: r, n: null } },
    ],
    [
      'an array of them',
      z.object({ vault: z.array(hidden()) }),
      { vault: ['abc', 'def'] },
      { vault: [r, r] },
    ],
    ['an array of objects', z.array(z.object({ vault: hidden() })), [{ vault: 'abc' }], [lost]],
    [
      'a tuple',
      z.object({ pair: z.tuple([z.string(), hidden()]) }),
      { pair: ['a', 'abc'] },
      { pair: ['a', r] },
    ],
    [
      'the rest of a tuple',
      z.object({ pair: z.tuple([z.string()], hidden()) }),
      { pair: ['a', 'b', 'c'] },
      { pair: ['a', r, r] },
    ],
    [
      'a record of them',
      z.object({ vault: z.record(z.string(), hidden()) }),
      { vault: { a: 'abc' } },
      { vault: { a: r } },
    ],
    [
      'a record of objects',
      z.record(z.string(), z.object({ vault: hidden() })),
      { a: { vault: 'abc' } },
      { a: lost },
    ],
    ['a union', z.object({ vault: z.union([z.number(), hidden()]) }), { vault: 'abc' }, lost],
    [
      'a branch of a union',
      z.union([
        z.object({ kind: z.literal('a') }),
        z.object({ kind: z.literal('b'), vault: hidden() }),
      ]),
      { kind: 'b', vault: 'abc' },
      { kind: 'b', vault: r },
    ],
    [
      'a branch that does not fit',
      z.union([z.object({ url: z.string() }), z.object({ n: z.number(), vault: hidden() })]),
      { url: 'u', n: 'x', vault: 'abc' },
      { url: 'u', n: 'x', vault: r },
    ],
    [
      'a branch by its kind',
      z.discriminatedUnion('kind', [
        z.object({ kind: z.literal('a') }),
        z.object({ kind: z.literal('b'), vault: hidden() }),
      ]),
      { kind: 'b', vault: 'abc' },
      { kind: 'b', vault: r },
    ],
    [
      'an intersection',
      z.intersection(z.object({ a: z.string() }), z.object({ vault: hidden() })),
      { a: 'x', vault: 'abc' },
      { a: 'x', vault: r },
    ],
    [
      'an extended object',
      z.object({ a: z.string() }).extend({ vault: hidden() }),
      { a: 'x', vault: 'abc' },
      { a: 'x', vault: r },
    ],
    ['a whole config', hidden(), 'abc', r],
    [
      'user info of a URL that nobody marked',
      z.object({ url: z.string() }),
      { url: 'http://a:abc@b' },
      { url: `http://${r}@b` },
    ],
    [
      'the signature of a URL that nobody marked',
      z.object({ url: z.string() }),
      { url: 'http://b/c?sig=abc' },
      { url: `http://b/c?sig=${r}` },
    ],
    [
      'a field that the schema does not know, by its name',
      z.object({ a: z.string() }),
      { a: 'x', token: 'abc' },
      { a: 'x', token: r },
    ],
    [
      'what the schema does not expect, by names',
      z.object({ a: z.string() }),
      { a: { token: 'abc' } },
      { a: { token: r } },
    ],
    [
      'arguments that the schema does not expect',
      z.object({ a: z.string() }),
      { a: ['--token', 'abc'] },
      { a: ['--token', r] },
    ],
    [
      'what is behind any, by names',
      z.object({ a: z.any(), b: z.unknown() }),
      { a: { token: 'abc' }, b: ['--key', 'abc'] },
      { a: { token: r }, b: ['--key', r] },
    ],
    [
      'env that the schema does not know',
      z.looseObject({}),
      { env: { A: 'abc' } },
      { env: { A: r } },
    ],
  ])('loses %s', (_, schema, config, clean) => {
    expect(redactConfig(config, schema, new Set())).toEqual(clean)
  })

  test.each<Row>([
    [
      'a field that is not marked, whatever its name',
      z.object({ keyboard: z.string() }),
      { keyboard: 'de' },
      { keyboard: 'de' },
    ],
    ['what is null', z.object({ vault: hidden().nullable() }), { vault: null }, { vault: null }],
    ['what is missing', z.object({ vault: hidden().optional() }), {}, {}],
    ['scalars', z.object({ n: z.number(), b: z.boolean() }), { n: 1, b: true }, { n: 1, b: true }],
    ['what does not fit, where it holds no secret', z.object({ n: z.number() }), 'text', 'text'],
  ])('keeps %s', (_, schema, config, clean) => {
    expect(redactConfig(config, schema, new Set())).toEqual(clean)
  })

  test('is no harm when its keys mean something to JavaScript', () => {
    const config = JSON.parse(
      '{"__proto__":{"vault":"abc"},"constructor":"x","toString":{"token":"abc"}}',
    ) as object
    const clean = redactConfig(config, z.object({ vault: hidden() }), new Set())
    expect(JSON.stringify(clean)).toBe(
      `{"__proto__":{"vault":"abc"},"constructor":"x","toString":{"token":"${r}"}}`,
    )
  })

  test('tells what it lost', () => {
    const found = new Set<string>()
    redactConfig({ vault: 'abcdef' }, z.object({ vault: z.union([hidden(), hidden()]) }), found)
    expect(found).toEqual(new Set(['abcdef']))
  })

  test('goes by names where there is none', () => {
    expect(redactConfig({ token: 'abc', vault: 'def' }, null, new Set())).toEqual({
      token: r,
      vault: 'def',
    })
  })
})

describe('a config with a schema of an older copy of zod', () => {
  const text = () => secret(older.string())
  type Row = [what: string, field: z.ZodType, value?: unknown, clean?: unknown]

  test('would lose a mark that were in `meta` alone', () => {
    const field = older.string().meta({ secret: true }).min(8)
    expect(field.meta()).toBeUndefined()
    expect(redactConfig('correct-horse', field, new Set())).toBe('correct-horse')
  })

  test.each<Row>([
    ['a secret', text()],
    ['one with min', text().min(8)],
    ['one with max', text().max(64)],
    ['one with a regex', text().regex(/-/)],
    ['one that is refined', text().refine((value) => value !== '')],
    ['one that is trimmed', text().trim()],
    ['one with several checks', text().min(8).max(64).regex(/-/)],
    ['one that is described', text().min(8).describe('d')],
    ['one with a meta of its own', text().min(8).meta({ secret: false, title: 't' })],
    ['an optional one', text().min(8).optional()],
    ['a nullable one', text().min(8).nullable()],
    ['one with a default', text().min(8).default('d')],
    ['a transformed one', text().min(8).transform(Number)],
    ['a piped one', text().min(8).pipe(older.string())],
    ['one in a union', older.union([older.number(), text().min(8)])],
    ['one in an object', older.object({ vault: text().min(8) }), { vault: 'abc' }, { vault: r }],
    ['one in a list', older.array(text().min(8)), ['abc'], [r]],
    ['a list with a check', secret(older.array(older.string())).min(1), ['abc'], [r]],
    [
      'an object that was extended',
      secret(older.object({ a: older.string() })).extend({ b: older.string() }),
      { a: 'abc', b: 'def' },
      { a: r, b: r },
    ],
  ])('loses %s', (_, field, value = 'correct-horse', clean = r) => {
    const schema = older.object({ field, rest: older.string().min(1) })
    const config = { field: value, rest: 'kept' }
    expect(redactConfig(config, schema, new Set())).toEqual({ field: clean, rest: 'kept' })
  })
})

describe.each([
  ['its own copy of zod', z],
  ['an older one', older],
])('a mark on a schema of %s', (_, zod) => {
  test('keeps what the schema says and checks', () => {
    const field = secret(zod.string().min(8).describe('the seed'))
    expect(field.meta()).toEqual({ description: 'the seed', secret: true })
    expect(field.safeParse('short').success).toBe(false)
    expect(field.parse('correct-horse')).toBe('correct-horse')
  })

  test('leaves the schema that it was made from as it is', () => {
    const field = zod.string()
    secret(field)
    expect(redactConfig('correct-horse', field, new Set())).toBe('correct-horse')
  })

  test('may be on an object that holds itself', () => {
    const node = secret(
      zod.object({
        vault: zod.string(),
        get next(): z.ZodType {
          return node.optional()
        },
      }),
    )
    const config = { vault: 'abc', next: { vault: 'def' } }
    expect(node.safeParse(config).success).toBe(true)
    expect(redactConfig(config, node, new Set())).toEqual({ vault: r, next: { vault: r } })
  })
})

describe('a schema of zod/mini', () => {
  const field = mini.string() as unknown as z.ZodType
  const refused = expect.objectContaining({
    code: 'INVALID_OPTION',
    message: expect.stringContaining('zod/mini'),
  })

  test('is refused a mark', () => {
    expect(() => secret(field)).toThrow(refused)
  })

  test.each<[string, z.ZodType]>([
    ['a whole config', mini.object({ vault: hidden() }) as unknown as z.ZodType],
    ['a field', z.object({ vault: field })],
  ])('is refused as the schema of %s', (_, schema) => {
    expect(() => redactConfig({ vault: 'abc' }, schema, new Set())).toThrow(refused)
  })
})
