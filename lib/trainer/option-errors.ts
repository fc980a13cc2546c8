/** From what the schema found to one readable error that lists every problem with its path. */
import type { z } from 'zod'
import { TunesmithError } from '../errors.ts'
import { laterOptions, suggestion } from './option-names.ts'
import { adapter, samples, schema } from './option-schema.ts'

export interface Problem {
  kind: 'unknown' | 'invalid'
  /** Dotted, e.g. `data.train[1].format`; '' for the options themselves. */
  path: string
  message: string
}

type Issue = z.core.$ZodIssue
type Path = readonly PropertyKey[]

/** The problems that `issues` stand for; `input` is what was parsed, `known` the names that one may have meant. */
export function schemaProblems(
  issues: readonly Issue[],
  input: unknown,
  known: readonly string[] = knownPaths,
  at: Path = [],
): Problem[] {
  return issues.flatMap((issue) => problemsOf(issue, input, known, [...at, ...issue.path]))
}

/** One error for all `problems`, of which there is at least one. */
export function optionError(problems: readonly Problem[]): TunesmithError {
  const code = problems.some((problem) => problem.kind === 'unknown') ? 'ERR_UNKNOWN_OPTION' : 'ERR_INVALID_OPTION'
  const lines = problems.map(({ path, message }) => (path === '' ? `options ${message}` : `option ${path} ${message}`))
  if (lines.length === 1) return new TunesmithError(code, lines[0]!)
  return new TunesmithError(
    code,
    `${lines.length} problems with the options:${lines.map((line) => `\n  - ${line}`).join('')}`,
  )
}

function problemsOf(issue: Issue, input: unknown, known: readonly string[], path: Path): Problem[] {
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownKey(path, key, known))
  if (issue.code === 'invalid_union') {
    // The branch that fits the kind of value says most; where none does, the union's own words do.
    const misses = (e: Issue) => e.path.length === 0 && (e.code === 'invalid_type' || e.code === 'invalid_union')
    const branch = issue.errors.find((errors) => !errors.some(misses))
    const found = valueAt(input, path)
    if (branch && typeof found === 'object' && found !== null) return schemaProblems(branch, input, known, path)
  }
  const found = describe(valueAt(input, path))
  return [{ kind: 'invalid', path: dotted(path), message: `must be ${issue.message}; found ${found}` }]
}

function unknownKey(parent: Path, key: string, known: readonly string[]): Problem {
  const path = dotted([...parent, key])
  const later = laterOptions[path.replace(/\[\d+\]/g, '')]
  if (later) return { kind: 'unknown', path, message: `is not available in this version: ${later}` }
  const hint = suggestion(dotted(parent.filter((part) => typeof part === 'string')), key, known)
  const nothing = hint && /^nothing: (.*)$/.exec(hint)?.[1]
  if (nothing) return { kind: 'unknown', path, message: `is unknown; remove it: ${nothing}` }
  return { kind: 'unknown', path, message: `is unknown${hint ? `; did you mean ${hint}?` : ''}` }
}

/** Dotted names of every option; where two end alike, the more common one first. */
const knownPaths: readonly string[] = [
  ...Object.keys(schema.shape),
  ...Object.keys(schema.shape.data.shape).map((name) => `data.${name}`),
  ...['pattern', 'learningRateScale', 'weightDecay'].map((name) => `parameterGroups.${name}`),
  ...Object.keys(samples.shape).map((name) => `samples.${name}`),
  ...Object.keys(adapter.shape).map((name) => `adapter.${name}`),
  ...['config', 'tokenizer', 'init'].map((name) => `model.${name}`),
  ...['train', 'eval'].flatMap((name) => [`data.${name}.path`, `data.${name}.format`, `data.${name}.proportion`]),
]

function valueAt(input: unknown, path: Path): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input)
}

function dotted(path: Path): string {
  return path.reduce<string>(
    (text, key) => (typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`),
    '',
  )
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (typeof value === 'string')
    return `the text ${JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value)}`
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : `a list of ${value.length}`
  return typeof value === 'object'
    ? `an object with ${Object.keys(value).slice(0, 6).join(', ') || 'no keys'}`
    : `a ${typeof value}`
}
