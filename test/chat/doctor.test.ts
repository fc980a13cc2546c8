import assert from 'node:assert/strict'
import { type Check, templateDoctor, verdictOf } from '../../lib/chat/doctor.ts'
import { ChatTemplate, chooseTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { WeightOptions } from '../../lib/chat/weights.ts'
import type { Conversation } from '../../lib/data/conversation.ts'
import { temporaryFolder } from '../data/helpers.ts'
import { describeShared } from '../shared.ts'
import { conversation, realTokenizer, template, toyTokenizer } from './helpers.ts'

const DEFAULTS: WeightOptions = { trainOn: 'assistant', promptLossWeight: 0, historyRewrite: 'split' }
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

describe('template doctor', () => {
  const { path } = temporaryFolder()
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
    options: Partial<WeightOptions> = {},
  ) {
    const findings = await templateDoctor({ template: own, tokenizer, rows, options: { ...DEFAULTS, ...options } })
    return findings.find((finding) => finding.check === check)!
  }

  it('finds nothing where nothing is wrong', async () => {
    const findings = await templateDoctor({ template: chatml, tokenizer, rows: [CHAT, CALLS], options: DEFAULTS })
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
    assert.equal(finding.verdict, 'error')
    assert.match(finding.detail, /train\.jsonl:3.*No system/)
  })

  it('tells stop tokens without loss', async () => {
    // Written as text of the stop token, but cut up by the tokenizer: only the ids can tell.
    const plainly = await toyTokenizer(path('plainly'), { special: ['<|im_start|>'], eos: '<|im_start|>' })
    const own = template(plainly, chatml.source.replaceAll('bos_token', "''"))
    const findings = await templateDoctor({ template: own, tokenizer: plainly, rows: [CHAT], options: DEFAULTS })
    assert.equal(verdictOf(findings), 'error')
    const weighted = { ...CHAT, messages: CHAT.messages.map((message) => ({ ...message, weight: 0 })) }
    assert.match((await find('stop token', chatml, [weighted])).detail, /no turn is trained/)
  })

  it('tells a bos that the tokenizer adds and the template does not write', async () => {
    const without = template(tokenizer, chatml.source.replace('{{- bos_token }}', ''))
    const finding = await find('bos', without)
    assert.equal(finding.verdict, 'warning')
    assert.match(finding.detail, /does not begin with <s>/)
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

  it('tells tool calls that the template does not write', async () => {
    const source = `{{- bos_token }}{% for m in messages %}${TURN}{{ m.content + '<|im_end|>\\n' }}{% endfor %}${PROMPT}`
    const finding = await find('tool calls', template(tokenizer, source), [CHAT, CALLS])
    assert.equal(finding.verdict, 'error')
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
      const findings = await templateDoctor({ template: chatml, tokenizer, rows: [CHAT], options: DEFAULTS, embedding })
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
  for (const [name, expected] of Object.entries({ llama3: 'error', qwen3: 'ok', minimind: 'ok' })) {
    it(`${name}: ${expected === 'ok' ? 'nothing is wrong' : 'tool calls are not written'}`, async () => {
      const tokenizer = await realTokenizer(name)
      const { template: own } = await chooseTemplate('model', tokenizer)
      const findings = await templateDoctor({ template: own, tokenizer, rows: [CHAT, CALLS], options: DEFAULTS })
      const calls = findings.find(({ check }) => check === 'tool calls')!
      assert.equal(calls.verdict, expected, calls.detail)
      assert.deepEqual(
        findings.filter(({ check, verdict }) => verdict === 'error' && check !== 'tool calls'),
        [],
      )
    })
  }
})
