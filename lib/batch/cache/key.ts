/**
 * The name of a cached preparation: a hash of everything its result depends on. Contents, not dates: data files, chat
 * template, tokenizer, options, and the code that prepares with the packages it uses.
 */
import { createHash } from 'node:crypto'
import { createReadStream, readFileSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isBuiltin } from '../../chat/builtin-templates.ts'
import type { Tokenizer } from '../../chat/tokenizer.ts'
import { resolveFiles } from '../../data/paths.ts'
import { packageRoot } from '../../native/load.ts'
import type { PrepareOptions } from '../prepared.ts'

/** Every option that changes the result of a pass. One that is new must be listed, or this does not compile. */
const KEYED: Record<Exclude<keyof PrepareOptions, 'data' | 'seed' | 'cache'>, true> = {
  chatTemplate: true,
  templateVariables: true,
  historyRewrite: true,
  controlTokensInText: true,
  trainOn: true,
  promptLossWeight: true,
  maxLength: true,
  onTooLong: true,
}

/** Files beside tokenizer.json that a Tokenizer reads. */
const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'generation_config.json',
  'config.json',
]

/**
 * The key, 64 hexadecimal digits, and the data files as they were found. The key is undefined where the result is not
 * worth keeping: the template tells the time of day.
 *
 * @throws TunesmithError as resolveFiles; the system's errors for files that cannot be read
 */
export async function cacheKey(
  options: PrepareOptions,
  tokenizer: Tokenizer,
  signal?: AbortSignal,
): Promise<{ key: string | undefined; files: FileStamp[] }> {
  const { data, chatTemplate } = options
  const template = await templateText(chatTemplate, tokenizer)
  const clock = clockOf(template, new Date())
  if (clock === undefined) return { key: undefined, files: [] }
  const files: FileStamp[] = []
  const sides: unknown[] = []
  for (const entries of [data.train, data.eval]) {
    const side: unknown[] = []
    for (const file of await resolveFiles(entries)) {
      files.push(await stamp(file.path))
      side.push({ ...file, content: await hashFile(file.path, signal) })
    }
    sides.push(side)
  }
  const parts = {
    code: await codeVersion(),
    options: Object.keys(KEYED).map((name) => [name, options[name as keyof typeof KEYED]]),
    onBadRow: data.onBadRow,
    splits: data.evalFraction > 0,
    template,
    clock,
    tokenizer: await Promise.all(TOKENIZER_FILES.map((name) => hashIfThere(join(tokenizer.folder, name), signal))),
    sides,
  }
  return { key: createHash('sha256').update(JSON.stringify(parts)).digest('hex'), files }
}

/** A file as it was at one moment: if it differs later, what was read in between may be either. */
export interface FileStamp {
  path: string
  size: bigint
  modified: bigint
  inode: bigint
}

async function stamp(path: string): Promise<FileStamp> {
  const { size, mtimeNs, ino } = await stat(path, { bigint: true })
  return { path, size, modified: mtimeNs, inode: ino }
}

/** Whether the data still is in the same files, and all of them are as they were. */
export async function unchanged({ data }: PrepareOptions, files: readonly FileStamp[]): Promise<boolean> {
  const named = [...(await resolveFiles(data.train)), ...(await resolveFiles(data.eval))]
  if (named.length !== files.length) return false
  for (const [index, before] of files.entries()) {
    if (named[index]!.path !== before.path) return false
    const now = await stamp(before.path).catch(() => undefined)
    if (!now || now.size !== before.size || now.modified !== before.modified || now.inode !== before.inode) return false
  }
  return true
}

/** Sources of the template that `chatTemplate` names, as far as they are not part of this package. */
async function templateText(chatTemplate: string, { chatTemplates }: Tokenizer): Promise<string> {
  if (chatTemplate === 'model' || isBuiltin(chatTemplate)) return JSON.stringify([...chatTemplates])
  // A template that is not there is an error, which choosing it tells.
  return readFile(chatTemplate, 'utf8').catch(() => '')
}

/** What a template that asks for the time may be told: '' without one, the day, undefined where it asks for more. */
function clockOf(template: string, now: Date): string | undefined {
  if (!template.includes('strftime_now')) return ''
  if (/%-?[HIMSpT]/.test(template)) return undefined
  return `${now.getFullYear()}-${now.getMonth() + 1}-${now.getDate()}`
}

async function hashFile(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  const stream = createReadStream(path, { highWaterMark: 1 << 20, ...(signal && { signal }) })
  try {
    for await (const chunk of stream) hash.update(chunk as Buffer)
  } catch (error) {
    signal?.throwIfAborted()
    throw error
  }
  return hash.digest('hex')
}

async function hashIfThere(path: string, signal?: AbortSignal): Promise<string | undefined> {
  try {
    return await hashFile(path, signal)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

let code: Promise<string> | undefined

/** Of this package's own sources and of the packages they use: a result outlives no change of the code behind it. */
function codeVersion(): Promise<string> {
  code ??= hashCode()
  return code
}

async function hashCode(): Promise<string> {
  const hash = createHash('sha256')
  const library = fileURLToPath(new URL('../..', import.meta.url))
  for (const folder of ['batch', 'chat', 'data']) {
    const names = await readdir(join(library, folder), { recursive: true })
    for (const name of names.filter((file) => /\.[jt]s$/.test(file)).sort())
      hash.update(name.split(sep).join('/')).update(await readFile(join(library, folder, name)))
  }
  const own = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8'))
  hash.update(own.version)
  for (const name of Object.keys(own.dependencies).sort()) hash.update(`${name}@${installedVersion(name)}`)
  return hash.digest('hex')
}

const require = createRequire(import.meta.url)

/** From the package.json above a package's entry: many do not export theirs. */
function installedVersion(name: string): string {
  let folder = dirname(require.resolve(name))
  for (;;) {
    try {
      const found = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
      if (found.name === name) return found.version
    } catch {
      // Not this folder.
    }
    const parent = dirname(folder)
    if (parent === folder) return 'unknown'
    folder = parent
  }
}
