/**
 * JSON objects whose values keep the text they were written with. `JSON.parse` turns 10000.0 into 10000 and
 * 1000000000000000019884624838656 into 1e+30; Transformers checks that its float fields are written as floats and its
 * integers as integers, so a config that merely passes through must not be re-serialised. It also keeps the last of two
 * equal names without a word, which a reader of untrusted files must see.
 */
import { TunesmithError } from '../errors.ts'

export type JsonObject = Record<string, unknown>

/** Top-level fields of one JSON object in their order, each with its value's own text. */
export class RawObject {
  private readonly fields: Map<string, string>

  private constructor(fields: Map<string, string>) {
    this.fields = fields
  }

  /**
   * @param text a JSON object
   * @param where names the file in errors
   * @param code of the error that is thrown for text that is not one JSON object with distinct names
   */
  static parse(text: string, where: string, code: string): { raw: RawObject; value: JsonObject } {
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (error) {
      throw new TunesmithError(code, `${where} is not valid JSON: ${(error as Error).message}`, { cause: error })
    }
    if (!isObject(value)) {
      throw new TunesmithError(code, `${where} must hold a JSON object, not ${describe(value)}`)
    }
    const fields = new Map<string, string>()
    for (const [name, source] of topLevelFields(text)) {
      if (fields.has(name)) throw new TunesmithError(code, `${where} has the name ${JSON.stringify(name)} twice`)
      fields.set(name, source)
    }
    return { raw: new RawObject(fields), value }
  }

  static empty(): RawObject {
    return new RawObject(new Map())
  }

  clone(): RawObject {
    return new RawObject(new Map(this.fields))
  }

  has(name: string): boolean {
    return this.fields.has(name)
  }

  /** Replaces the value in its place, or appends it. Left alone where it already has this value. */
  set(name: string, value: unknown): void {
    const current = this.fields.get(name)
    const next = JSON.stringify(value, null, 2).replaceAll('\n', '\n  ')
    if (current !== undefined && JSON.stringify(JSON.parse(current)) === JSON.stringify(value)) return
    this.fields.set(name, next)
  }

  delete(name: string): void {
    this.fields.delete(name)
  }

  /** The object as a file of its own: one field per line, indented by two spaces. */
  toString(): string {
    const lines = [...this.fields].map(([name, source]) => `  ${JSON.stringify(name)}: ${source}`)
    return lines.length === 0 ? '{}\n' : `{\n${lines.join(',\n')}\n}\n`
  }
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A value as error messages show it: short enough for a line. */
export function describe(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** Walks text that JSON.parse has accepted as an object; only strings and nesting need to be told apart. */
function* topLevelFields(text: string): Generator<[name: string, source: string]> {
  let at = skipSpace(text, 0) + 1
  for (;;) {
    at = skipSpace(text, at)
    if (text[at] === '}') return
    const nameEnd = endOfString(text, at)
    const name = JSON.parse(text.slice(at, nameEnd)) as string
    const start = skipSpace(text, skipSpace(text, nameEnd) + 1)
    const end = endOfValue(text, start)
    yield [name, text.slice(start, end)]
    at = skipSpace(text, end)
    if (text[at] === ',') at += 1
  }
}

function skipSpace(text: string, from: number): number {
  let at = from
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at += 1
  return at
}

function endOfString(text: string, from: number): number {
  let at = from + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}

function endOfValue(text: string, from: number): number {
  let at = from
  let depth = 0
  for (;;) {
    const character = text[at]
    if (character === '"') at = endOfString(text, at)
    else {
      if (character === '{' || character === '[') depth += 1
      if (character === '}' || character === ']') depth -= 1
      at += 1
    }
    if (depth === 0 && at >= text.length) return at
    if (depth === 0) {
      // A container or a string ends where it closed; a number or a word ends before what follows it.
      const next = text[at]!
      if (character === '"' || character === '}' || character === ']') return at
      if (next === ',' || next === '}' || next === ' ' || next === '\n' || next === '\r' || next === '\t') return at
    }
  }
}
