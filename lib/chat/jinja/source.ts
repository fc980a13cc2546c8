/**
 * From source to syntax tree, with the lexer and parser of @huggingface/jinja. What that parser does not read is brought
 * into a form that it does, on the way: tests with arguments, parentheses around comparisons (Python chains those without),
 * and `{% generation %}`, which its lexer would delete.
 */
import { parse, tokenize } from '@huggingface/jinja'

/** A node of the syntax tree; the engine's own types do not resolve under nodenext. */
export interface Node {
  type: string
  // biome-ignore lint/suspicious/noExplicitAny: children differ by type
  [key: string]: any
}

const GENERATION_TAG = /{%([-+]?)\s*(end)?generation\s*([-+]?)%}/g
/** A call block by this name stands for a generation block. */
const PLACEHOLDER = '__generation_block'
/** Prefix of filters that stand for tests with arguments; the second for `is not`. */
export const TEST = '__is_'
export const NEGATED_TEST = '__is_not_'
/** A filter that changes nothing: it stands behind comparisons in parentheses. */
export const GROUP = '__group'

/** Whether a template says itself what the assistant generates. */
export function hasGenerationTags(source: string): boolean {
  return source.search(GENERATION_TAG) >= 0
}

/** @throws SyntaxError or Error with the parser's words */
export function parseTemplate(source: string): Node {
  // A call block has the scope and the white space of Transformers' generation block. Any line end is a newline.
  const text = source
    .replace(/\r\n?/g, '\n')
    .replace(GENERATION_TAG, (_, before: string, end: string | undefined, after: string) =>
      end ? `{%${before} endcall ${after}%}` : `{%${before} call ${PLACEHOLDER}() ${after}%}`,
    )
  try {
    const tokens = tokenize(text, { trim_blocks: true, lstrip_blocks: true }) as unknown as Token[]
    return parse(testsWithArguments(groups(tokens)) as unknown as Parameters<typeof parse>[0]) as unknown as Node
  } catch (error) {
    // The parser reads on beyond the last token.
    if (!(error instanceof TypeError)) throw error
    throw new SyntaxError('it ends inside a block or an expression', { cause: error })
  }
}

/** Whether the call of a call block stands for `{% generation %}`. */
export function isGenerationBlock(call: Node): boolean {
  return call.callee.type === 'Identifier' && call.callee.value === PLACEHOLDER
}

interface Token {
  value: string
  type: string
}

const OPENING: Record<string, string> = {
  OpenParen: 'CloseParen',
  OpenSquareBracket: 'CloseSquareBracket',
  OpenCurlyBracket: 'CloseCurlyBracket',
}
const KEYWORDS = ['and', 'or', 'not', 'if', 'elif', 'else', 'is', 'in', 'recursive']
const OPERANDS = ['Identifier', 'StringLiteral', 'NumericLiteral', ...Object.keys(OPENING)]

const make = (like: Token, type: string, value: string): Token =>
  Object.assign(Object.create(Object.getPrototypeOf(like)), { type, value })

/** `(a == b)` becomes `(a == b) | __group` where it could be taken for a link of a chain. */
function groups(tokens: readonly Token[]): Token[] {
  const out: Token[] = []
  const open: { isGroup: boolean; compares: boolean }[] = []
  for (const [at, token] of tokens.entries()) {
    out.push(token)
    const { type, value } = token
    if (OPENING[type]) {
      const before = tokens[at - 1]
      const isCall =
        before !== undefined &&
        (['CloseParen', 'CloseSquareBracket'].includes(before.type) ||
          (before.type === 'Identifier' && !KEYWORDS.includes(before.value)))
      open.push({ isGroup: type === 'OpenParen' && !isCall, compares: false })
    } else if (Object.values(OPENING).includes(type)) {
      const group = open.pop()
      const next = tokens[at + 1]?.type ?? ''
      if (group?.isGroup && group.compares && !['Dot', 'OpenSquareBracket', 'OpenParen'].includes(next)) {
        out.push(make(token, 'Pipe', '|'), make(token, 'Identifier', GROUP))
      }
    } else if (type === 'ComparisonBinaryOperator' || (type === 'Identifier' && value === 'in')) {
      const group = open.at(-1)
      if (group) group.compares = true
    }
  }
  return out
}

/** `x is [not] test(a)` and `x is test a` become the filter `x | __is_test(a)`, which binds alike. */
function testsWithArguments(tokens: readonly Token[]): Token[] {
  const out: Token[] = []
  /** Where parentheses that were left out must be closed. */
  const closes: number[] = []
  for (let at = 0; at < tokens.length; at++) {
    while (closes.length > 0 && closes.at(-1) === at) {
      closes.pop()
      out.push(make(tokens[at]!, 'CloseParen', ')'))
    }
    const token = tokens[at]!
    const inExpression = token.type === 'Identifier' && token.value === 'is' && out.at(-1)?.type !== 'Dot'
    const negated = tokens[at + 1]?.type === 'Identifier' && tokens[at + 1]!.value === 'not'
    const test = inExpression ? tokens[at + (negated ? 2 : 1)] : undefined
    const next = test?.type === 'Identifier' ? tokens[at + (negated ? 3 : 2)] : undefined
    const takes = next && OPERANDS.includes(next.type) && !(next.type === 'Identifier' && KEYWORDS.includes(next.value))
    if (!takes) {
      out.push(token)
      continue
    }
    out.push(make(token, 'Pipe', '|'), make(token, 'Identifier', (negated ? NEGATED_TEST : TEST) + test!.value))
    at += negated ? 2 : 1
    if (next.type === 'OpenParen') continue
    out.push(make(token, 'OpenParen', '('))
    closes.push(operandEnd(tokens, at + 1))
  }
  return out
}

/** End of `a`, `a.b`, `a[0]`, `[1, 2]`, `f(x)`: one operand with what hangs on it. */
function operandEnd(tokens: readonly Token[], start: number): number {
  let at = OPENING[tokens[start]!.type] ? groupEnd(tokens, start) : start + 1
  for (;;) {
    const type = tokens[at]?.type
    if (type === 'Dot') at += 2
    else if (type === 'OpenSquareBracket' || type === 'OpenParen') at = groupEnd(tokens, at)
    else return at
  }
}

function groupEnd(tokens: readonly Token[], start: number): number {
  let depth = 0
  for (let at = start; at < tokens.length; at++) {
    const { type } = tokens[at]!
    if (OPENING[type]) depth++
    else if (Object.values(OPENING).includes(type) && --depth === 0) return at + 1
  }
  return tokens.length
}
