/** Says whether text stays inside the braces of an nft table. */

/**
 * Why `body` could reach outside its table; null where it cannot. The caller is trusted, but a stray `}` would
 * close the table, and what follows would stand on the host without our tag. Reads as nft's own scanner does:
 * a string ends at the next quote (there is no escape), a comment at the end of its line.
 */
export function escapesTable(body: string): string | null {
  let depth = 0
  for (const [token] of body.matchAll(/"[^"]*"|#[^\n]*|[{}"]|\binclude\b/g)) {
    if (token === '{') depth += 1
    else if (token === '}') depth -= 1
    else if (token === '"') return 'a quote is not closed'
    // The file that it names could close the table.
    else if (token === 'include') return '`include` is not allowed'
    if (depth < 0) return 'a } closes the table'
  }
  if (body.includes('\0')) return 'it holds a NUL'
  return depth === 0 ? null : 'a { is not closed'
}
