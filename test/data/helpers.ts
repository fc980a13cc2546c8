import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type BadRowPolicy, BadRows } from '../../lib/data/bad-rows.ts'
import type { Row } from '../../lib/data/conversation.ts'
import type { RowFormat } from '../../lib/data/layouts/layout.ts'
import { type ReadReport, readRows } from '../../lib/data/read.ts'
import { TunesmithError } from '../../lib/errors.ts'

/** A temporary folder for the tests of a suite, removed after them. */
export function temporaryFolder(): {
  path: (name: string) => string
  write: (name: string, content: string | Uint8Array) => Promise<string>
} {
  let folder = ''
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tunesmith-test-'))
  })
  after(async () => rm(folder, { recursive: true, force: true }))
  const path = (name: string) => join(folder, name)
  return {
    path,
    write: async (name, content) => {
      await writeFile(path(name), content)
      return path(name)
    },
  }
}

/** A check for assert.rejects: the code, and every part the message must contain. */
export function failure(code: string, ...parts: (string | RegExp)[]): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof TunesmithError, `${error}`)
    assert.equal(error.code, code, error.message)
    for (const part of parts) {
      if (typeof part === 'string')
        assert.ok(error.message.includes(part), `${error.message}\ndoes not mention ${part}`)
      else assert.match(error.message, part)
    }
    return true
  }
}

/** The lines of a JSONL file. */
export function jsonl(...rows: unknown[]): string {
  return rows.map((row) => `${typeof row === 'string' ? row : JSON.stringify(row)}\n`).join('')
}

/** A row of one exchange. */
export function exchange(question: string, answer: string): { messages: { role: string; content: string }[] } {
  return {
    messages: [
      { role: 'user', content: question },
      { role: 'assistant', content: answer },
    ],
  }
}

/** Every valid row of the files, and what was found on the way. */
export async function rows(paths: string | string[], onBadRow: BadRowPolicy = 'error', format: RowFormat = 'auto') {
  const report: ReadReport = { rows: 0, bad: new BadRows(onBadRow), formats: [], warnings: [] }
  const all: Row[] = []
  const files = [paths].flat().map((path) => ({ path, format }))
  for await (const batch of readRows(files, report)) all.push(...batch)
  return { all, report }
}
