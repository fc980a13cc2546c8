/**
 * Writes the demonstration set, always the same.
 *
 *     npx tsx scripts/base/make-demonstrations.ts [--out assets]
 *
 * demonstrations.jsonl holds conversations to train on, heldout.jsonl requests alone, with what a right answer holds.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { makeAll } from './demonstrations.ts'

const { values } = parseArgs({ options: { out: { type: 'string', default: 'assets' } } })
const jsonLines = (rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

const { demonstrations, heldOut } = makeAll()
const rows = demonstrations.map(({ prompt, answer }) => ({
  messages: [
    { role: 'user', content: prompt },
    { role: 'assistant', content: answer },
  ],
}))
const prompts = heldOut.map(({ prompt, kind, mentions, avoids }) => ({
  messages: [{ role: 'user', content: prompt }],
  kind,
  mentions,
  avoids,
}))
writeFileSync(join(values.out, 'demonstrations.jsonl'), jsonLines(rows))
writeFileSync(join(values.out, 'heldout.jsonl'), jsonLines(prompts))
console.log(`${rows.length} demonstrations and ${prompts.length} held-out prompts -> ${values.out}`)
