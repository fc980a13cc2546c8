import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../native/load.ts'

/** Of the package. */
export function version(): string {
  return JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).version
}
