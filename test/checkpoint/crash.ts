/**
 * A process that dies while it works on files. From operation `at` on, every operation of node:fs/promises that changes
 * a folder fails, those of cleanup code too: what is on disk then is what a killed process leaves.
 */
import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'

const names = ['mkdir', 'open', 'rename', 'rm', 'unlink', 'writeFile'] as const

/** @returns how many operations ran to their end */
export async function withCrash(
  at: number,
  body: () => Promise<unknown>,
): Promise<{ operations: number; crashed: boolean }> {
  const target = promises as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>
  const originals = names.map((name) => [name, target[name]!] as const)
  let operations = 0
  let crashed = false
  for (const [name, original] of originals) {
    target[name] = (...args) => {
      if (name === 'open' && args[1] === 'r') return original(...args)
      if (operations >= at) {
        crashed = true
        return Promise.reject(new Error('the process is gone'))
      }
      operations += 1
      return original(...args)
    }
  }
  syncBuiltinESMExports()
  try {
    await body().catch((error: unknown) => {
      if (!crashed) throw error
    })
  } finally {
    for (const [name, original] of originals) target[name] = original
    syncBuiltinESMExports()
  }
  return { operations, crashed }
}
