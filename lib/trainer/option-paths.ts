/** Relative paths among the options, made absolute against the folder they were written in. */
import { existsSync } from 'node:fs'
import { isAbsolute, resolve } from 'node:path'
import { BUILTIN_NAMES } from '../chat/builtin-templates.ts'
import { containerOf } from '../data/containers/names.ts'
import { isHubUri, parseHubRef, type RepoType } from '../hub/ref.ts'

/** Chat templates that are names and not files. */
export const templateNames: readonly string[] = ['model', ...BUILTIN_NAMES]

/** Whether a chatTemplate is meant as a file: it has a folder or an extension in it. */
export function isTemplateFile(template: string): boolean {
  return /[/\\.]/.test(template)
}

/**
 * A copy of `input` whose paths are absolute. Lenient about everything else, so that a configuration file and `--set`
 * values can be resolved against different folders before they are merged and checked.
 */
export function absolutePaths(input: unknown, folder: string): unknown {
  if (!isRecord(input)) return input
  const absolute = (value: unknown) =>
    typeof value === 'string' && value.trim() !== '' && !isAbsolute(value) ? resolve(folder, value) : value
  const dataPath = (value: unknown) => (isHubName(value, 'dataset', folder) ? value : absolute(value))
  const file = (value: unknown) => (isRecord(value) ? change(value, { path: dataPath }) : dataPath(value))
  const files = (value: unknown) => (Array.isArray(value) ? value.map(file) : file(value))
  const modelPath = (value: unknown) => (isHubName(value, 'model', folder) ? value : absolute(value))
  const model = (value: unknown) =>
    isRecord(value) ? change(value, { config: absolute, tokenizer: absolute }) : modelPath(value)
  const template = (value: unknown) => (typeof value === 'string' && isTemplateFile(value) ? absolute(value) : value)
  const data = (value: unknown) => (isRecord(value) ? change(value, { train: files, eval: files }) : value)
  return change(input, { model, output: absolute, data, chatTemplate: template, cache: absolute })
}

/** A name of the hub stays as it is, unless a file of that name exists, or it has the ending of a data file. */
function isHubName(value: unknown, type: RepoType, folder: string): boolean {
  if (typeof value !== 'string') return false
  if (isHubUri(value)) return true
  if (parseHubRef(value, type) === undefined || existsSync(resolve(folder, value))) return false
  return type === 'model' || containerOf(value) === undefined
}

function change(record: Record<string, unknown>, changes: Record<string, (value: unknown) => unknown>) {
  const copy = { ...record }
  for (const [key, apply] of Object.entries(changes)) if (copy[key] !== undefined) copy[key] = apply(copy[key])
  return copy
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
