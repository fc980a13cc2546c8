/**
 * Patterns over the names of a checkpoint's tensors, such as `model.layers.0.self_attn.q_proj.weight`.
 *
 * A pattern matches a name where it matches one whole component of it or several that follow one another: `q_proj`,
 * `layers.0`, `layers.0.mlp.up_proj.weight`. `*` stands for any characters, dots included, `?` for one that is no dot,
 * `{a,b}` for either. Between slashes it is a regular expression searched anywhere in the name: `/layers\.(1[0-9])\./`.
 */
import { distance } from 'fastest-levenshtein'
import type { ParameterSource } from '../checkpoint/families/family.ts'

/** Those of `sources` whose tensor the pattern matches. */
export function matching(pattern: string, sources: readonly ParameterSource[]): Set<ParameterSource> {
  const expression = tensorExpression(pattern)
  return new Set(sources.filter(({ tensor }) => expression.test(tensor)))
}

/** @throws SyntaxError for a regular expression that is none */
export function tensorExpression(pattern: string): RegExp {
  if (pattern.length > 2 && pattern.startsWith('/') && pattern.endsWith('/')) return new RegExp(pattern.slice(1, -1))
  return new RegExp(`(?:^|\\.)(?:${globBody(pattern)})(?:\\.|$)`)
}

function globBody(pattern: string): string {
  return pattern.replace(/\{([^{}]*)\}|[*?]|[.+^${}()|[\]\\]/g, (token: string, list: string | undefined) => {
    if (list !== undefined) return `(?:${list.split(',').map(globBody).join('|')})`
    return token === '*' ? '.*' : token === '?' ? '[^.]' : `\\${token}`
  })
}

/** Up to three components of names, or whole names, that the writer of a pattern may have meant. */
export function nameNear(pattern: string, sources: readonly ParameterSource[]): string[] {
  const tensors = sources.map(({ tensor }) => tensor)
  const names = new Set(pattern.includes('.') ? tensors : tensors.flatMap((tensor) => tensor.split('.')))
  const plain = pattern.toLowerCase()
  return [...names]
    .map((name) => ({ name, edits: distance(plain, name.toLowerCase()) }))
    .filter(({ name, edits }) => edits <= Math.ceil(name.length / 3))
    .sort((a, b) => a.edits - b.edits)
    .slice(0, 3)
    .map(({ name }) => name)
}
