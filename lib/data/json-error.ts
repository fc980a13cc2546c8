/**
 * Where JSON text is broken. JSON.parse is what reads rows; V8 gives the position of an error only in some of its
 * messages, so this scanner looks for it once a row has failed.
 */

export interface JsonError {
  /** 1-based, in UTF-16 units as editors count. */
  column: number
  /** In words: what stands there and what was expected. */
  reason: string
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const WORD = /true|false|null/y
const ESCAPE = /^\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/
const SPACE = /[ \t\r\n]*/y

type Expected = 'value' | 'value or ]' | 'key' | 'key or }' | ':' | ', or ]' | ', or }' | 'end'

/** The first error of `text`, or undefined where it is valid JSON. Iterative: nesting cannot overflow the stack. */
export function findJsonError(text: string): JsonError | undefined {
  const open: ('[' | '{')[] = []
  let expected: Expected = 'value'
  let at = 0
  const match = (pattern: RegExp): boolean => {
    pattern.lastIndex = at
    const found = pattern.test(text)
    if (found) at = pattern.lastIndex
    return found
  }
  const afterValue = (): Expected => (open.length === 0 ? 'end' : open.at(-1) === '[' ? ', or ]' : ', or }')
  for (;;) {
    match(SPACE)
    if (at === text.length) {
      return expected === 'end'
        ? undefined
        : { column: at + 1, reason: `the row ends where ${name(expected)} was expected` }
    }
    const character = text[at]!
    const isValue: boolean = expected === 'value' || expected === 'value or ]'
    if (character === '"' && (isValue || expected === 'key' || expected === 'key or }')) {
      const end = scanString(text, at)
      if (typeof end !== 'number') return end
      at = end
      expected = isValue ? afterValue() : ':'
    } else if ((character === ']' || character === '}') && expected.endsWith(character)) {
      at++
      open.pop()
      expected = afterValue()
    } else if (expected === ':' && character === ':') {
      at++
      expected = 'value'
    } else if ((expected === ', or ]' || expected === ', or }') && character === ',') {
      at++
      expected = expected === ', or ]' ? 'value' : 'key'
    } else if (isValue) {
      if (character === '[' || character === '{') {
        at++
        open.push(character)
        expected = character === '[' ? 'value or ]' : 'key or }'
      } else if (match(NUMBER) || match(WORD)) {
        expected = afterValue()
      } else {
        return problem(text, at, expected)
      }
    } else {
      return problem(text, at, expected)
    }
  }
}

function problem(text: string, at: number, expected: Expected): JsonError {
  const found = /^[\w.+-]+/.exec(text.slice(at, at + 40))?.[0] ?? String.fromCodePoint(text.codePointAt(at)!)
  return { column: at + 1, reason: `found ${JSON.stringify(found)} where ${name(expected)} was expected` }
}

/** End of the string that starts at `start`, or what breaks it. A loop: a pattern would backtrack through megabytes. */
function scanString(text: string, start: number): number | JsonError {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) return at + 1
    if (code === 0x5c) {
      const sequence = ESCAPE.exec(text.slice(at, at + 6))
      if (!sequence)
        return { column: at + 1, reason: `bad escape ${JSON.stringify(text.slice(at, at + 2))} in a string` }
      at += sequence[0].length - 1
    } else if (code < 0x20) {
      const shown = code.toString(16).padStart(4, '0')
      return { column: at + 1, reason: `a string contains the raw control character U+${shown}; write it as an escape` }
    }
  }
  return { column: start + 1, reason: 'a string that starts here never ends' }
}

function name(expected: Expected): string {
  if (expected === 'end') return 'the end of the row'
  if (expected.startsWith('key')) return expected === 'key' ? 'a quoted key' : 'a quoted key or }'
  return expected.startsWith('value') ? expected.replace('value', 'a value') : expected
}
