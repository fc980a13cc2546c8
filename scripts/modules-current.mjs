#!/usr/bin/env node
// Exit code 0 when node_modules holds what package-lock.json says, 1 when `npm ci` has work to do. npm leaves a record of
// what it installed in node_modules/.package-lock.json, written last, so that an interrupted installation has none.
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const record = join(root, 'node_modules', '.package-lock.json')
process.exit(existsSync(record) && isCurrent() ? 0 : 1)

function isCurrent() {
  const wanted = packagesOf(join(root, 'package-lock.json'))
  const installed = packagesOf(record)
  return Object.entries(wanted).every(([path, { version, integrity, optional }]) => {
    if (path === '') return true
    const found = installed[path]
    if (!found) return optional === true // made for another platform
    return found.version === version && found.integrity === integrity && existsSync(join(root, path))
  })
}

function packagesOf(path) {
  return JSON.parse(readFileSync(path, 'utf8')).packages
}
