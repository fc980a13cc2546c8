// Real material for tests lies beside the project, in ../shared, and is never copied into it. A checkout without it
// still runs every other test: those that need it are skipped and say why. In CI its absence is a failure.
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = resolve(fileURLToPath(new URL('.', import.meta.url)), '..', '..', 'shared')

/** Absolute path of `path` under ../shared. */
export function shared(path: string): string {
  return resolve(folder, path)
}

/** Whether ../shared is there; throws in CI, where a silent skip would look like a pass. */
export function hasShared(): boolean {
  if (existsSync(folder)) return true
  if (process.env.CI) throw new Error(`${folder} is missing: in CI the tests on real material must run`)
  return false
}

/** `it` for a test that reads ../shared. */
export function itShared(title: string, body: Mocha.Func | Mocha.AsyncFunc): Mocha.Test {
  return hasShared() ? it(title, body as Mocha.AsyncFunc) : it(title, skip)
}

/** `describe` for a suite that reads ../shared, also in its hooks. */
export function describeShared(title: string, body: () => void): void {
  describe(title, () => {
    if (hasShared()) body()
    else it('needs ../shared', skip)
  })
}

function skip(this: Mocha.Context): void {
  console.log(`      skipped: ${folder} is missing`)
  this.skip()
}
