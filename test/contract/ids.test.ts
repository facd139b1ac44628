// Ids at the border: what becomes a path, an interface alias and an nft comment later.
import { describe, expect, test } from 'vitest'
import { hostStream, streamId, vmId, vmOfStream, vmStream } from '../../src/contract/ids.ts'
import { keySchema, resourceKey } from '../../src/contract/resources.ts'

const refused = expect.objectContaining({ code: 'INVALID_ID', retryable: false }) as unknown

describe('a VM id', () => {
  test.each([
    ['the default form', 'vm-abc12345'],
    ['one letter', 'a'],
    ['one digit', '0'],
    ['63 characters', 'a'.repeat(63)],
    ['a dash at the end', 'a-'],
    ['dashes inside', 'a--b'],
    ['the name of a property of every object', 'constructor'],
  ])('may be %s: %j', (_, text) => {
    expect(vmId(text)).toBe(text)
  })

  test.each([
    ['empty', ''],
    ['64 characters', 'a'.repeat(64)],
    ['a dash at the start, which commands take for a flag', '-rf'],
    ['the parent directory', '..'],
    ['this directory', '.'],
    ['a way out of the directory', '../etc'],
    ['a slash', 'a/b'],
    ['an absolute path', '/etc/passwd'],
    ['a backslash', 'a\\b'],
    ['a NUL at the end', 'vm-abc12345\0'],
    ['a NUL inside', 'a\0b'],
    ['a newline at the end', 'vm-a\n'],
    ['a newline inside', 'vm-a\nvm-b'],
    ['upper case', 'VM-a'],
    ['an underscore', 'vm_a'],
    ['a dot', 'vm.a'],
    ['a space', 'vm a'],
    ['a colon', 'vm:a'],
    ['a percent escape', 'vm%2e'],
    ['a glob', 'vm*'],
    ['a shell expansion', '$(id)'],
    ['a quote', '"'],
    ['a letter of another script that looks the same', 'vm-\u0430'],
    ['full-width letters', '\uff56\uff4d'],
    ['an accent', 'é'],
    ['a letter and a combining accent', 'e\u0301'],
    ['a right-to-left mark', 'a\u202eb'],
    ['a zero-width space', 'a\u200bb'],
    ['an emoji', '🦊'],
    ['a prototype', '__proto__'],
  ])('is never %s: %j', (_, text) => {
    expect(() => vmId(text)).toThrow(refused)
  })

  test.each([[null], [undefined], [7], [{}], [['vm-a']], [new String('vm-a')]])(
    'is never what is no string: %j',
    (value) => {
      expect(() => vmId(value as unknown as string)).toThrow(refused)
    },
  )

  test('that is refused is shown cut and quoted, so that it cannot write to a terminal', () => {
    expect(() => vmId(`\u001b[2J${'x'.repeat(1_000)}`)).toThrow(
      /^"\\u001b\[2Jx{76}" is not a VM id/,
    )
  })
})

describe('a stream id', () => {
  test.each(['host', 'vm/vm-abc12345', 'vm/a', 'image/sha256:0a1b', 'image/alpine-3.20_x+y'])(
    'may be %j',
    (text) => {
      expect(streamId(text)).toBe(text)
    },
  )

  test.each([
    '',
    'vm',
    'vm/',
    'vm/A',
    'vm/a/b',
    'vm/../host',
    'host/a',
    'image/',
    'image/../a',
    'image/-a',
    'other/a',
    'host\n',
    'vm/a\0',
    ' vm/a',
    `image/${'a'.repeat(129)}`,
  ])('is never %j', (text) => {
    expect(() => streamId(text)).toThrow(refused)
  })

  test('tells its VM, if it is of one', () => {
    expect(vmOfStream(vmStream(vmId('vm-a')))).toBe('vm-a')
    expect(vmOfStream(hostStream)).toBeNull()
    expect(vmOfStream('image/sha256:0a')).toBeNull()
  })
})

describe('a resource key', () => {
  test.each([
    'tap:fc-abc12345',
    'file:rootfs.ext4',
    'directory:.',
    'nft_table:ip/t',
    'subnet:192.168.100.0/24',
    `a:${'b'.repeat(200)}`,
  ])('may be %j', (key) => {
    expect(keySchema.safeParse(key).success).toBe(true)
  })

  test.each([
    'tap',
    'tap:',
    ':a',
    'Tap:a',
    '1tap:a',
    'tap:a b',
    'tap:a\n',
    'tap:a\0',
    'tap:é',
    `a:${'b'.repeat(201)}`,
    `${'a'.repeat(33)}:b`,
    '__proto__:a',
    '__proto__',
  ])('is never %j', (key) => {
    expect(keySchema.safeParse(key).success).toBe(false)
  })

  test('is kind and name', () => {
    expect(resourceKey('tap', 'fc-a')).toBe('tap:fc-a')
  })
})
