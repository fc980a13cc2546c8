/** Loads the addon, and explains what is wrong when it does not load. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { TunesmithError } from '../errors.ts'
import type { Addon } from './addon.ts'

const require = createRequire(import.meta.url)
let loaded: Addon | undefined

/** The package's root: two folders up from here, in the sources as well as in dist. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder)
    if (parent === folder)
      throw new TunesmithError('ERR_ADDON_NOT_LOADED', 'the package.json of tunesmith was not found')
    folder = parent
  }
  return folder
}

/**
 * The native addon, loaded once per process.
 *
 * @throws TunesmithError `ERR_ADDON_NOT_LOADED` with what was tried and what to do
 */
export function addon(): Addon {
  loaded ??= load()
  return loaded
}

function load(): Addon {
  const root = packageRoot()
  try {
    return require('node-gyp-build')(root) as Addon
  } catch (cause) {
    throw new TunesmithError('ERR_ADDON_NOT_LOADED', diagnosis(root, cause), { cause })
  }
}

function diagnosis(root: string, cause: unknown): string {
  const reason = cause instanceof Error ? cause.message : String(cause)
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
  const glibc = report?.header?.glibcVersionRuntime
  const lines = [
    `the native addon does not load on ${process.platform}-${process.arch}, Node ${process.version}` +
      (glibc ? `, glibc ${glibc}` : ''),
    reason,
  ]
  if (/GLIBC|GLIBCXX/.test(reason))
    lines.push('It needs glibc 2.34 and libstdc++ of GCC 12 or newer (Debian 12, Ubuntu 22.04).')
  // The published package has the sources, but neither this script nor the tools that build with it.
  if (existsSync(join(root, 'scripts', 'setup.sh'))) lines.push(`To build it here: cd ${root} && npm run setup`)
  else lines.push('To build it: take a checkout of the repository, run `npm run setup` there, and install that folder')
  return lines.join('\n')
}
