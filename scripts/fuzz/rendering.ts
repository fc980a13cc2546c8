/**
 * Random conversations through every template there is: built in, of ../shared, and random ones. What comes out must be
 * text with well-formed spans or one clear error, in bounded time, and never text with an object's name in it.
 *
 *     npx tsx scripts/fuzz/rendering.ts [conversations, default 10000] [seed]
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { BUILTIN_NAMES, builtinTemplate } from '../../lib/chat/builtin-templates.ts'
import { JinjaTemplate } from '../../lib/chat/jinja.ts'
import { renderWithSpans } from '../../lib/chat/spans.ts'
import { ChatTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Conversation, Message } from '../../lib/data/conversation.ts'
import { RowProblem } from '../../lib/data/rows.ts'
import { TunesmithError } from '../../lib/errors.ts'

/** Longest time that one conversation may take in one template, in milliseconds. */
const PATIENCE = 10_000

const ADDED = [
  ...['<s>', '</s>', '<|im_start|>', '<|im_end|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
  ...['<start_of_turn>', '<end_of_turn>', '<｜end▁of▁sentence｜>', '<|return|>'],
].map((text, id) => ({ text, id, special: true }))
/** What templates and spans need of a tokenizer. */
const tokenizer = {
  added: ADDED,
  bos: ADDED[0],
  eos: ADDED[1],
  stops: ADDED.slice(1),
  addsBos: true,
} as unknown as Tokenizer

const text = fc.oneof(
  { weight: 4, arbitrary: fc.string({ unit: 'grapheme', maxLength: 30 }) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 30 }) },
  fc.constantFrom(
    '',
    ' \n',
    '\ud83d',
    '\udc00x',
    '\ufdd0',
    '\ufdd1a',
    '{{ messages }}',
    '{% for %}',
    '</think>',
    '<think>\n\n</think>',
  ),
  fc.constantFrom(...ADDED.map((token) => token.text)),
  fc.nat(2000).map((length) => 'ab\n'.repeat(length)),
)
const number = fc.oneof(
  fc.double(),
  fc.maxSafeInteger(),
  fc.constantFrom(1e308, -1e308, 1e21, 5e-324, 2 ** 60, Number.MAX_VALUE),
)
const nested = fc.nat(3000).map((depth) => {
  let value: unknown = 'x'
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value }
  return value
})
const json = fc.oneof({ weight: 4, arbitrary: fc.jsonValue({ maxDepth: 4 }) }, { weight: 1, arbitrary: nested }, number)
const call = fc.record({
  type: fc.constant('function'),
  function: fc.record({ name: text, arguments: fc.oneof(json, fc.json(), fc.dictionary(text, json, { maxKeys: 4 })) }),
})
const message = fc
  .record(
    {
      role: fc.constantFrom('system', 'developer', 'user', 'assistant', 'assistant', 'user', 'tool'),
      content: fc.oneof({ weight: 8, arbitrary: text }, fc.constant(null), json),
      tool_calls: fc.array(call, { maxLength: 3 }),
      reasoning_content: fc.oneof(text, json),
      thinking: text,
      name: text,
      other: json,
    },
    { requiredKeys: ['role'] },
  )
  .map((record) => record as unknown as Message)
const conversation: fc.Arbitrary<Conversation> = fc
  .record(
    { messages: fc.array(message, { minLength: 1, maxLength: 8 }), tools: fc.array(json, { maxLength: 3 }) },
    { requiredKeys: ['messages'] },
  )
  .map((record) => ({ ...record, source: { file: 'fuzz', line: 1 } }))

/** Pieces of templates, thrown together. */
const pieces = fc.constantFrom(
  ...[
    '{% for m in messages %}',
    '{% endfor %}',
    '{% if m.content %}',
    '{% else %}',
    '{% endif %}',
    '{{ m.content }}',
    '{{ m | tojson }}',
  ],
  ...[
    '{{ m.role + m.content }}',
    '{% set x = m.content %}',
    '{{ x | trim }}',
    '{{ x[1:] ~ x[::-1] }}',
    '{% macro f(a) %}',
    '{% endmacro %}',
  ],
  ...[
    '{{ f(m) }}',
    '{% generation %}',
    '{% endgeneration %}',
    '{{ tools | length }}',
    '{{ m.tool_calls[0].function.arguments.items() | list }}',
  ],
  ...[
    '{{ messages | map(attribute="role") | join(",") }}',
    '{{ m.content.split("\\n") | last }}',
    '{{ x * 3 }}',
    '\n  ',
    'text',
    '{{- x -}}',
  ],
)
const template = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(''))

function knownTemplates(): ChatTemplate[] {
  const sources = BUILTIN_NAMES.map((name): [string, string] => [name, builtinTemplate(name, tokenizer)])
  const folder = fileURLToPath(new URL('../../../shared/templates', import.meta.url))
  const files = existsSync(folder) ? readdirSync(folder) : []
  for (const file of files) sources.push([file, readFileSync(`${folder}/${file}`, 'utf8')])
  return sources.map(([name, source]) => new ChatTemplate(tokenizer, { name, sources: new Map([['default', source]]) }))
}

/** Whether an error is one that a user can read, and not one of JavaScript's own. */
function isClear(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof TypeError || error instanceof RangeError) return false
  return !/Cannot (read|set|convert|mix)|is not a function|is not a constructor|stack size/.test(error.message)
}

export interface FuzzCounts {
  renderings: number
  refused: number
}

/** @throws Error at the first conversation that breaks a rule, shrunk */
export async function run(count: number, seed: number): Promise<FuzzCounts> {
  const templates = knownTemplates()
  const counts = { renderings: 0, refused: 0 }
  const details = fc.check(
    fc.property(conversation, fc.nat(templates.length - 1), template, (chat, index, source) => {
      for (const attempt of [() => spans(templates[index]!, chat), () => render(source, chat)]) {
        const started = performance.now()
        try {
          attempt()
          counts.renderings++
        } catch (error) {
          if (!isClear(error)) throw error
          counts.refused++
        }
        const took = performance.now() - started
        if (took > PATIENCE) throw new TypeError(`took ${took.toFixed(0)} ms`)
      }
    }),
    { numRuns: count, seed },
  )
  // Not fc.assert: it cannot print values that are nested as deep as these.
  if (!details.failed) return counts
  const [chat, index, source] = details.counterexample ?? []
  const shown = JSON.stringify([chat?.messages, chat?.tools]).slice(0, 1000)
  throw new Error(
    `seed ${seed}, path ${details.counterexamplePath}, template ${index}, ${JSON.stringify(source)}: ${shown}`,
    {
      cause: details.errorInstance,
    },
  )
}

function spans(own: ChatTemplate, chat: Conversation): void {
  const turns = [...chat.messages.keys()].filter((index) => chat.messages[index]!.role === 'assistant')
  try {
    for (const rendering of renderWithSpans(own, chat, turns, 'split')) {
      let last = 0
      for (const { start, end } of rendering.spans) {
        if (start < last || end <= start || end > rendering.text.length)
          throw new TypeError('spans overlap or are empty')
        last = end
      }
      checkText(rendering.text)
    }
  } catch (error) {
    if (error instanceof RowProblem || error instanceof TunesmithError) throw new Error(error.message)
    throw new TypeError(`neither a problem of the row nor of the template: ${error}`)
  }
}

function render(source: string, { messages, tools }: Conversation): void {
  checkText(new JinjaTemplate(source, new Date(0)).render({ messages, tools: tools ?? null }, true))
}

function checkText(rendered: string): void {
  if (rendered.includes('[object ')) throw new TypeError('an object was written by its JavaScript name')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [count = '10000', seed = String(Date.now() % 2 ** 31)] = process.argv.slice(2)
  const started = performance.now()
  const { renderings, refused } = await run(Number(count), Number(seed))
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  console.log(
    `seed ${seed}: ${count} conversations, ${renderings} rendered, ${refused} refused, no fault in ${seconds} s`,
  )
}
