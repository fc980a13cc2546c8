/** Conversations of dolly-15k that stories260K can hold, chosen without a tokenizer: a token is at least one byte. */
import { readFileSync } from 'node:fs'

interface Row {
  messages: { role: string; content: string }[]
}

/** The first `count` rows whose rendering with template.jinja takes at most `maxBytes` + 20 bytes, as JSONL. */
export function dollyRows(file: string, count: number, maxBytes: number): string {
  const rows: string[] = []
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (rows.length === count) break
    if (line === '') continue
    const texts = (JSON.parse(line) as Row).messages.map(({ content }) => content)
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
    const usable = texts.every((text) => text.trim() !== '' && !/<s>|<\/s>|<unk>/.test(text))
    if (usable && bytes <= maxBytes) rows.push(line)
  }
  if (rows.length < count) throw new Error(`${file} has only ${rows.length} of ${count} such rows`)
  return `${rows.join('\n')}\n`
}
