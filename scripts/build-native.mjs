#!/usr/bin/env node
// Builds the addon with cmake-js into build/Release. Called by `npm run build:native`, by binding.gyp (node-gyp) and by
// prebuildify (as its --node-gyp); arguments meant for node-gyp are ignored.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)
const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js')
const jobs = process.env.TUNESMITH_BUILD_JOBS ?? String(availableParallelism())
const args = [cmakeJs, 'build', '--directory', root, '--out', join(root, 'build', 'cmake'), '--config', 'Release']
args.push('--parallel', jobs)
for (const [key, value] of Object.entries(process.env))
  if (key.startsWith('TUNESMITH_CMAKE_')) args.push(`--CD${key.slice('TUNESMITH_CMAKE_'.length)}=${value}`)
const env = { ...process.env } // node-gyp's make passes a jobserver that confuses ours
for (const name of ['MAKEFLAGS', 'MFLAGS', 'MAKELEVEL']) delete env[name]
const { status, error } = spawnSync(process.execPath, args, { stdio: 'inherit', cwd: root, env })
if (error) throw error
process.exit(status ?? 1)
