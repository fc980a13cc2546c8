/** Renderings held byte for byte against Transformers: scripts/python/make_chat_golden.py made what they must be. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { JinjaTemplate } from '../../lib/chat/jinja.ts'
import { type ChatTemplate, chooseTemplate } from '../../lib/chat/template.ts'
import type { Message } from '../../lib/data/conversation.ts'
import { parseExactJson } from '../../lib/data/exact-json.ts'
import { describeShared, itShared, shared } from '../shared.ts'
import { golden, NOW, type Renderings, type Result, readMessages, readTools } from './golden.ts'
import { realTokenizer } from './helpers.ts'

type Render = (messages: Message[], tools: unknown[] | undefined, variables: Record<string, unknown>) => string

function attempt(render: () => string): Result {
  try {
    return render()
  } catch (error) {
    return { error: (error as Error).message }
  }
}

/** Same text; or an error on both sides, with the template's words where it has raised it itself. */
function compare(actual: Result, expected: Result, what: string): void {
  if (typeof expected === 'string' || typeof actual === 'string') assert.deepEqual(actual, expected, what)
  else if (!('python' in expected)) assert.equal(actual.error, expected.error, what)
}

function compareAll(
  { conversations, variants }: Renderings,
  results: readonly Result[][],
  render: Render,
  skip?: string,
): void {
  for (const [index, { name, messages, tools }] of conversations.entries()) {
    if (name === skip) continue
    for (const [at, variables] of variants.entries()) {
      const actual = attempt(() => render(readMessages(messages), readTools(tools), variables))
      compare(actual, results[index]![at]!, `${name}, ${JSON.stringify(variables)}`)
    }
  }
}

describe('renderings of Transformers', () => {
  const renderings = golden<Renderings>('renderings.json.gz')

  for (const { name, source, results } of renderings.templates) {
    if (name.startsWith('tokenizers/')) {
      itShared(`${name}: through its tokenizer`, async () => {
        const tokenizer = await realTokenizer(name.slice('tokenizers/'.length))
        // One template per set of variables, as a run has one.
        const templates = new Map<string, ChatTemplate>()
        for (const { add_generation_prompt: _, ...variables } of renderings.variants) {
          const { template } = await chooseTemplate('model', tokenizer, { variables, now: NOW })
          templates.set(JSON.stringify(variables), template)
        }
        compareAll(
          renderings,
          results,
          (messages, tools, { add_generation_prompt, ...variables }) =>
            templates
              .get(JSON.stringify(variables))!
              .render(messages, { tools, addGenerationPrompt: add_generation_prompt as boolean }),
          // apply_chat_template itself refuses an empty conversation; a reply that opens one needs its generation prompt.
          'empty list',
        )
      })
      continue
    }
    const test = source === undefined ? itShared : it
    test(name, () => {
      const template = new JinjaTemplate(source ?? readFileSync(shared(name), 'utf8'), NOW)
      compareAll(renderings, results, (messages, tools, variables) =>
        template.render({ ...renderings.tokens, ...variables, messages, tools: tools ?? null, documents: null }),
      )
    })
  }
})

describe('expressions of Python and Jinja', () => {
  const { values, cases } = golden<{ values: string; cases: [string, Result][] }>('expressions.json.gz')
  const variables = Object.assign(parseExactJson(values) as Record<string, unknown>, {
    messages: [],
    tools: null,
    documents: null,
  })

  const exponent = "the parser's lexer reads no exponents in number literals"
  const tuples = 'the parser reads no tuples of fewer than two'
  /** What Python renders and is refused here, with the reason. */
  const REFUSED: Record<string, string> = {
    '{{ o.items }}': 'Python writes the address of a method',
    '{{ n|items }}': 'Python fails only when it looks into the generator',
    '{{ (1,) }}': tuples,
    "{{ '100%%' % () }}": tuples,
    ...Object.fromEntries(
      ['1e16|tojson', '1e-7|tojson', '1e3', '1e22 * 10', '1.0e-5', '1e15 * 10', '1e15 + 0.5'].map((text) => [
        `{{ ${text} }}`,
        exponent,
      ]),
    ),
  }
  /** What is rendered here and not in Python, or differently. */
  const DIFFERENT: Record<string, string> = {
    '{{ 1 + 1 ~ 2 }}':
      'Jinja binds ~ tighter than +, the parser alike: a difference for numbers only, where Python raises',
    '{% if not loop is defined %}a{% endif %}{{ self is defined }}': 'templates have no blocks to reach through self',
  }

  it(`give what Python gives, in ${cases.length} cases`, () => {
    const differing: string[] = []
    for (const [source, expected] of cases) {
      const actual = attempt(() => new JinjaTemplate(source, NOW).render(variables))
      if (source in DIFFERENT) continue
      if (source in REFUSED) {
        assert.equal(typeof actual, 'object', `${source} renders now: remove it from the list`)
        continue
      }
      try {
        compare(actual, expected, source)
      } catch {
        differing.push(
          `${source}\n      expected ${JSON.stringify(expected)}\n      found    ${JSON.stringify(actual)}`,
        )
      }
    }
    assert.equal(differing.length, 0, `\n${differing.join('\n')}`)
  })
})

describeShared('renderings of the rows in ../shared/data', () => {
  const path = 'data-renderings.json.gz'
  const files = golden<Record<string, Record<string, string[]>>>(path)
  for (const [file, byTokenizer] of Object.entries(files)) {
    for (const [name, expected] of Object.entries(byTokenizer)) {
      it(`${file} with the template of ${name}`, async () => {
        assert.ok(existsSync(shared(`data/${file}`)))
        const { template } = await chooseTemplate('model', await realTokenizer(name), { now: NOW })
        const lines = readFileSync(shared(`data/${file}`), 'utf8')
          .split('\n')
          .filter(Boolean)
        const rows = lines.length < 1000 ? lines : lines.filter((_, index) => index % 50 === 0)
        assert.equal(rows.length, expected.length)
        for (const [index, line] of rows.entries()) {
          const { messages, tools } = parseExactJson(line) as { messages: Message[]; tools?: unknown[] }
          const rendered = attempt(() => template.render(messages, { tools }))
          const hash = createHash('sha256')
          const actual = typeof rendered === 'string' ? hash.update(rendered).digest('hex').slice(0, 12) : 'error'
          assert.equal(actual, expected[index], `row ${index}: ${JSON.stringify(rendered)}`)
        }
      })
    }
  }
})
