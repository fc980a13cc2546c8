import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import type { Message } from '../../lib/data/conversation.ts'
import { parseExactJson } from '../../lib/data/exact-json.ts'

/** What the clock of the golden files says. */
export const NOW = new Date(2026, 0, 5, 14, 3, 9)

/** A rendering, or what became of the attempt: the template's own words, or Python's type of error. */
export type Result = string | { error: string }

export interface Renderings {
  variants: ({ add_generation_prompt: boolean } & Record<string, unknown>)[]
  tokens: Record<string, string>
  /** Messages and tools as JSON text. */
  conversations: { name: string; messages: string; tools: string | null }[]
  /** `results[conversation][variant]`; `source` where the template is not in ../shared. */
  templates: { name: string; source?: string; results: Result[][] }[]
}

export function golden<T>(name: string): T {
  const path = fileURLToPath(new URL(`../golden/chat/${name}`, import.meta.url))
  return JSON.parse(gunzipSync(readFileSync(path)).toString('utf8'))
}

export function readMessages(text: string): Message[] {
  return parseExactJson(text) as Message[]
}

export function readTools(text: string | null): unknown[] | undefined {
  return text === null ? undefined : (parseExactJson(text) as unknown[])
}
