import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { lookAtRows } from '../../lib/batch/look.ts'
import type { PrepareOptions } from '../../lib/batch/prepared.ts'
import { actedOn, type Check, type Finding, templateDoctor, verdictOf } from '../../lib/chat/doctor.ts'
import type { EmbeddingReader } from '../../lib/chat/doctor-embedding.ts'
import { isSeenConversation } from '../../lib/chat/seen.ts'
import { ChatTemplate, chooseTemplate } from '../../lib/chat/template.ts'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { prepareOptions } from '../batch/helpers.ts'
import { jsonl, temporaryFolder } from '../data/helpers.ts'
import { describeShared } from '../shared.ts'
import { conversation, realTokenizer, template, toyTokenizer } from './helpers.ts'

const CHAT = conversation(['user', 'q'], ['assistant', 'one'], ['user', 'r'], ['assistant', 'two'])
const CALL = { type: 'function', function: { name: 'get_weather', arguments: { city: 'x' } } }
const CALLS = conversation(
  ['user', 'q'],
  ['assistant', 'Let me see.', { tool_calls: [CALL] }],
  ['tool', '1'],
  ['assistant', 'one'],
)

const TURN = "{{ '<|im_start|>' + m.role + '\\n' }}"
const PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
const tagged = (assistant: string) =>
  `{% for m in messages %}${TURN}{% if m.role == 'assistant' %}${assistant}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}${PROMPT}`

interface Case {
  template: ChatTemplate
  tokenizer: Tokenizer
  rows: readonly Conversation[]
  options?: Partial<PrepareOptions>
  embedding?: EmbeddingReader
}

/** The doctor on what preparation makes of `rows`, those that it refuses skipped. */
async function diagnose(
  write: (name: string, content: string) => Promise<string>,
  { template: own, tokenizer, rows, options = {}, embedding }: Case,
): Promise<Finding[]> {
  const train = await write('train.jsonl', jsonl(...rows.map(({ source: _, ...row }) => row)))
  const templates = [...own.sources].map(([name, template]) => ({ name, template }))
  const chatTemplate = await write('template.json', JSON.stringify({ chat_template: templates }))
  const all = prepareOptions(train, { chatTemplate, maxLength: 8192, onBadRow: 'skip', ...options })
  const { seen, counts, template } = await lookAtRows(all, tokenizer, 100)
  const seenRows = seen.filter(isSeenConversation)
  return templateDoctor({ template: template!, tokenizer, rows: seenRows, counts, options: all, embedding })
}

describe('template doctor', () => {
  const { path, write } = temporaryFolder()
  let tokenizer: Tokenizer
  let chatml: ChatTemplate
  before(async () => {
    const special = ['<s>', '</s>', '<|im_start|>', '<|im_end|>', '<|spare|>']
    tokenizer = await toyTokenizer(path('toy'), { special, bos: '<s>', eos: '</s>', addsBos: true })
    chatml = (await chooseTemplate('chatml', tokenizer)).template
  })

  async function find(
    check: Check,
    own: ChatTemplate,
    rows: Conversation[] = [CHAT],
    options: Partial<PrepareOptions> = {},
  ) {
    const findings = await diagnose(write, { template: own, tokenizer, rows, options })
    return findings.find((finding) => finding.check === check)!
  }

  it('finds nothing where nothing is wrong', async () => {
    const findings = await diagnose(write, { template: chatml, tokenizer, rows: [CHAT, CALLS] })
    assert.deepEqual(
      findings.map(({ check, verdict }) => [check, verdict]),
      ['rendering', 'stop token', 'bos', 'generation prompt', 'tool calls', 'trained share', 'exported template'].map(
        (check) => [check, 'ok'],
      ),
    )
    assert.match(findings[1]!.detail, /each of 4 trained turns .*<\|im_end\|>/)
    assert.equal(verdictOf(findings), 'ok')
  })

  it('tells rows that do not render', async () => {
    const refusing = template(
      tokenizer,
      `{{ raise_exception('No system') if messages[0].role == 'system' }}${chatml.source}`,
    )
    const system = conversation(['system', 's'], ['user', 'q'], ['assistant', 'a'])
    const finding = await find('rendering', refusing, [CHAT, system])
    assert.equal(finding.verdict, 'warning')
    assert.match(finding.detail, /^1 of 2 rows .*train\.jsonl:2: .*No system/)
    const none = await diagnose(write, { template: refusing, tokenizer, rows: [system, system] })
    assert.deepEqual(
      none.map(({ check, verdict }) => [check, verdict]),
      [
        ['rendering', 'error'],
        ['trained share', 'error'],
      ],
    )
    assert.match(none[1]!.detail, /no row that was looked at can train: 2 malformed/)
  })

  it('tells stop tokens without loss', async () => {
    // After a letter this tokenizer cuts up what the template writes: only the ids can tell.
    const folder = path('words')
    await toyTokenizer(folder, { special: ['<|im_start|>', '<|im_end|>'], eos: '<|im_end|>' })
    const json = JSON.parse(readFileSync(join(folder, 'tokenizer.json'), 'utf8'))
    for (const token of json.added_tokens) token.single_word = token.content === '<|im_end|>'
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(json))
    const words = await Tokenizer.load(folder)
    const own = template(words, chatml.source.replaceAll('bos_token', "''"))
    const findings = await diagnose(write, { template: own, tokenizer: words, rows: [CHAT] })
    assert.equal(findings[1]!.verdict, 'error')
    assert.match(findings[1]!.detail, /train\.jsonl:1 \(and 1 more\): messages\[1\] trains no stop token/)
    assert.equal(actedOn(findings)[0], findings[1])
    const all = await find('stop token', chatml, [CHAT], { trainOn: 'all' })
    assert.deepEqual([all.verdict, all.detail], ['ok', 'each of 2 trained turns includes its stop token (<|im_end|>)'])
  })

  it('judges what is left of a row that is cut, and counts its trained turns once', async () => {
    const long = conversation(['user', 'q'], ['assistant', 'a'.repeat(100)])
    const rows = [CHAT, long]
    const cut = await find('stop token', chatml, rows, { maxLength: 49, onTooLong: 'truncate-right' })
    assert.equal(cut.verdict, 'warning')
    assert.match(cut.detail, /train\.jsonl:1 \(and 1 more\): messages\[3\] has lost its stop token to onTooLong/)
    assert.deepEqual(
      (await find('trained share', chatml, [long], { maxLength: 49, onTooLong: 'truncate-right' })).detail,
      '57.1 % of 49 tokens carry loss',
    )
    const turns = await find('stop token', chatml, rows, { maxLength: 49, onTooLong: 'truncate-turns' })
    assert.match(turns.detail, /^each of 1 trained turn includes its stop token \(<\|im_end\|>\)$/)
    const weights = conversation(['user', 'q'], ['assistant', 'a', { weight: 0 }], ['user', 'q'], ['assistant', 'b'])
    for (const check of ['stop token', 'generation prompt'] as const) {
      const finding = await find(check, chatml, [weights, CHAT], { promptLossWeight: 0.1 })
      assert.match(finding.detail, /each of 3 trained turns/)
    }
  })

  it('names the stop tokens that are there', async () => {
    const several = await toyTokenizer(path('several'), {
      special: ['<|im_start|>', '<|im_end|>', '</s>'],
      eos: '</s>',
      files: { 'generation_config.json': {} },
    })
    const own = template(several, chatml.source.replaceAll('bos_token', "''"))
    const findings = await diagnose(write, { template: own, tokenizer: several, rows: [CHAT] })
    assert.deepEqual(own.stopTokens.length, 2)
    assert.equal(findings[1]!.detail, 'each of 2 trained turns includes its stop token (<|im_end|>)')
  })

  it('tells a bos that the tokenizer adds and the template does not write', async () => {
    const without = template(tokenizer, chatml.source.replace('{{- bos_token }}', ''))
    const finding = await find('bos', without)
    assert.equal(finding.verdict, 'warning')
    assert.match(finding.detail, /does not begin with <s>/)
  })

  it('tells the bos that a template writes for a tokenizer that adds none', async () => {
    const silent = await toyTokenizer(path('silent'), { special: ['<s>', '<|im_start|>', '<|im_end|>'], bos: '<s>' })
    const detail = async (source: string) => {
      const findings = await diagnose(write, { template: template(silent, source), tokenizer: silent, rows: [CHAT] })
      return findings.find(({ check }) => check === 'bos')!.detail
    }
    assert.equal(await detail(chatml.source), 'every text begins with <s>, once')
    assert.equal(
      await detail(chatml.source.replace('{{- bos_token }}', '')),
      'no text begins with <s>; the tokenizer adds none either',
    )
  })

  it('tells a generation prompt that adds nothing', async () => {
    const source = `{{- bos_token }}{% for m in messages %}${TURN}{{ m.content + '<|im_end|>\\n' }}{% endfor %}`
    const finding = await find('generation prompt', template(tokenizer, source))
    assert.equal(finding.verdict, 'warning')
    assert.match(finding.detail, /adds nothing.*"<\|im_start\|>assistant\\n" before each answer is trained/)
  })

  it('tells trained text that does not follow the generation prompt', async () => {
    const source = tagged("{{ '<think>' }}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}")
    const finding = await find('generation prompt', template(tokenizer, `{{- bos_token }}${source}`))
    assert.equal(finding.verdict, 'warning')
    assert.match(finding.detail, /messages\[1\].*"<think>" stands between/)
    const sound = tagged("{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}")
    assert.equal((await find('generation prompt', template(tokenizer, sound))).verdict, 'ok')
  })

  it('counts blocks of one turn as one, and white space after the stop token as nothing', async () => {
    const source = tagged(
      "{% generation %}{{ m.content }}{% endgeneration %}--{% generation %}{{ '<|im_end|>\\n' }}{% endgeneration %}",
    )
    const finding = await find('stop token', template(tokenizer, source))
    assert.deepEqual([finding.verdict, /each of 2 /.test(finding.detail)], ['ok', true])
  })

  it('tells rows with tool calls that the template does not write', async () => {
    const source = `{{- bos_token }}{% for m in messages %}${TURN}{{ m.content + '<|im_end|>\\n' }}{% endfor %}${PROMPT}`
    const own = template(tokenizer, source)
    const finding = await find('rendering', own, [CHAT, CALLS])
    assert.equal(finding.verdict, 'warning')
    assert.match((await find('tool calls', own, [CHAT, CALLS])).detail, /none in the rows that train/)
    assert.equal((await find('tool calls', chatml, [CHAT, CALLS])).detail, 'each of 1 is written')
    assert.match(finding.detail, /messages\[1\]\.tool_calls: the chat template leaves out 1 of the 1/)
  })

  it('tells odd shares of trained tokens', async () => {
    const long = conversation(['user', 'q'.repeat(5000)], ['assistant', 'a'])
    assert.match((await find('trained share', chatml, [long])).detail, /hardly any/)
    const answers = conversation(['user', 'q'], ['assistant', 'a'.repeat(5000)])
    assert.match((await find('trained share', chatml, [answers])).detail, /nearly all/)
    assert.equal((await find('trained share', chatml, [answers], { trainOn: 'all' })).verdict, 'ok')
    const unweighted = conversation(['user', 'q'], ['assistant', 'a', { weight: 0 }])
    assert.equal((await find('trained share', chatml, [unweighted])).verdict, 'error')
  })

  it('tells an exported template that renders something else', async () => {
    const both = new ChatTemplate(tokenizer, {
      name: 'model',
      sources: new Map([
        ['default', chatml.source],
        ['tool_use', `{{ bos_token }}With tools.${chatml.source.replace('{{- bos_token }}', '')}`],
      ]),
    })
    assert.equal((await find('exported template', both)).verdict, 'ok')
    const withTools = { ...CALLS, tools: [{ type: 'function', function: { name: 'get_weather' } }] }
    assert.equal((await find('exported template', both, [CHAT, withTools])).verdict, 'error')
  })

  it('tells control tokens whose embeddings are untrained or the same', async () => {
    const width = 8
    const rows = Array.from({ length: tokenizer.vocabSize }, (_, id) =>
      Float32Array.from({ length: width }, (_, index) => Math.sin(1 + id * 7.3 + index * 1.7)),
    )
    const embedding = async (ids: readonly number[]) => ids.map((id) => rows[id]!)
    const examine = async () => {
      const findings = await diagnose(write, { template: chatml, tokenizer, rows: [CHAT], embedding })
      return findings.find(({ check }) => check === 'control tokens')!
    }
    assert.equal((await examine()).verdict, 'ok')
    const id = (text: string) => tokenizer.id(text)!
    const sound = rows[id('<|im_end|>')]!
    rows[id('<|im_end|>')] = sound.map((value) => value / 100)
    const untrained = await examine()
    assert.equal(untrained.verdict, 'warning')
    assert.match(untrained.detail, /<\|im_end\|> have embeddings that look untrained/)
    rows[id('<|im_end|>')] = rows[id('<|spare|>')]!
    assert.match((await examine()).detail, /<\|im_end\|> and <\|spare\|> have the same embedding/)
    rows[id('<|im_end|>')] = new Float32Array(width).fill(0.5)
    assert.match((await examine()).detail, /look untrained/)
  })
})

describeShared('template doctor on templates of real models', () => {
  const { write } = temporaryFolder()
  for (const [name, expected] of Object.entries({ llama3: 'warning', qwen3: 'ok', minimind: 'ok' })) {
    it(`${name}: ${expected === 'ok' ? 'nothing is wrong' : 'tool calls are not written'}`, async () => {
      const tokenizer = await realTokenizer(name)
      const { template: own } = await chooseTemplate('model', tokenizer)
      const findings = await diagnose(write, { template: own, tokenizer, rows: [CHAT, CALLS] })
      assert.equal(findings[0]!.verdict, expected, findings[0]!.detail)
      assert.deepEqual(
        actedOn(findings).filter(({ verdict }) => verdict === 'error'),
        [],
      )
      const bos = findings.find(({ check }) => check === 'bos')!
      if (name === 'llama3') assert.match(bos.detail, /every text begins with <\|begin_of_text\|>/)
    })
  }
})
