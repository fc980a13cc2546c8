import assert from 'node:assert/strict'
import fc from 'fast-check'
import { BUILTIN_NAMES, builtinTemplate, isBuiltin, missingTokens } from '../../lib/chat/builtin-templates.ts'
import { renderWithSpans } from '../../lib/chat/spans.ts'
import { chooseTemplate } from '../../lib/chat/template.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import type { Message } from '../../lib/data/conversation.ts'
import { failure, temporaryFolder } from '../data/helpers.ts'
import { golden, type Renderings } from './golden.ts'
import { conversation, dialogues, template, toyTokenizer } from './helpers.ts'

const SPECIAL = [
  ...['<s>', '</s>', '<|im_start|>', '<|im_end|>', '<start_of_turn>', '<end_of_turn>'],
  ...['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
]
const CHAT: Message[] = conversation(
  ['system', 'S'],
  ['user', 'a'],
  ['assistant', 'b'],
  ['user', 'c'],
  ['assistant', 'd'],
).messages

/** Python's str.strip for the characters that the generators make. */
function trim(text: string): string {
  return text.replace(/^\p{White_Space}+|\p{White_Space}+$/gu, '')
}

describe('built-in templates', () => {
  const { path } = temporaryFolder()
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: SPECIAL, bos: '<s>', eos: '</s>', addsBos: true })
  })

  it('are those that were held against Transformers (renderings.json.gz is up to date)', () => {
    const { templates } = golden<Renderings>('renderings.json.gz')
    for (const name of BUILTIN_NAMES) {
      const { source } = templates.find((each) => each.name === `builtin/${name}`)!
      assert.equal(
        source,
        builtinTemplate(name, tokenizer),
        `${name}: run scripts/python/make_chat_golden.py renderings`,
      )
    }
  })

  /** The published format of a conversation of system, user, assistant, user, assistant. */
  const formats = {
    chatml:
      '<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n' +
      '<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n',
    llama3:
      '<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>' +
      '<|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|>' +
      '<|start_header_id|>assistant<|end_header_id|>\n\nd<|eot_id|>',
    zephyr: '<s><|system|>\nS</s>\n<|user|>\na</s>\n<|assistant|>\nb</s>\n<|user|>\nc</s>\n<|assistant|>\nd</s>\n',
    mistral: '<s>[INST] S\n\na [/INST] b</s>[INST] c [/INST] d</s>',
    gemma:
      '<s><start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n' +
      '<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\nd<end_of_turn>\n',
    alpaca: '<s>S\n\n### Instruction:\na\n\n### Response:\nb</s>\n\n### Instruction:\nc\n\n### Response:\nd</s>\n\n',
    plain: '<s>S\n\nUser:\na\n\nAssistant:\nb</s>\n\nUser:\nc\n\nAssistant:\nd</s>\n\n',
  } satisfies Record<(typeof BUILTIN_NAMES)[number], string>

  const trims = ['llama3', 'gemma', 'alpaca', 'plain']
  const stop = { chatml: '<|im_end|>', llama3: '<|eot_id|>', gemma: '<end_of_turn>' } as Record<string, string>

  for (const name of BUILTIN_NAMES) {
    it(`${name} writes its published format and trains replies with their stop tokens`, async () => {
      const { template: own } = await chooseTemplate(name, tokenizer)
      assert.equal(own.render(CHAT), formats[name])
      fc.assert(
        fc.property(dialogues, (chat) => {
          const [rendering, ...more] = renderWithSpans(
            own,
            chat,
            [...chat.messages.keys()].filter((index) => chat.messages[index]!.role === 'assistant'),
            'error',
          )
          assert.equal(more.length, 0)
          const answers = chat.messages.filter(({ role }) => role === 'assistant').map(({ content }) => content!)
          const written = (text: string) => (trims.includes(name) ? trim(text) : name === 'mistral' ? ` ${text}` : text)
          assert.deepEqual(
            rendering!.spans.map(({ start, end }) => rendering!.text.slice(start, end)),
            answers.map((text) => written(text) + (stop[name] ?? '</s>')),
          )
        }),
        { numRuns: 40 },
      )
    })
  }

  it('write bos only where the tokenizer does', async () => {
    const bare = await toyTokenizer(path('bare'), { special: SPECIAL, bos: '<s>', eos: '</s>' })
    for (const name of BUILTIN_NAMES)
      assert.equal((await chooseTemplate(name, bare)).template.render(CHAT), formats[name].slice(3))
  })

  it('need their tokens in the vocabulary, or an eos', async () => {
    const none = await toyTokenizer(path('none'))
    assert.deepEqual(missingTokens('llama3', none), ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'])
    for (const name of ['llama3', 'gemma', 'chatml']) {
      await assert.rejects(chooseTemplate(name, none), failure('ERR_TEMPLATE', `"${name}"`, 'single tokens', '"plain"'))
    }
    for (const name of ['zephyr', 'mistral', 'alpaca', 'plain']) {
      await assert.rejects(chooseTemplate(name, none), failure('ERR_NO_EOS', `"${name}"`))
    }
    assert.equal(isBuiltin('toString'), false)
  })

  it('refuse what their format does not have', async () => {
    const call = { type: 'function', function: { name: 'f', arguments: {} } }
    const calling: Message[] = [
      { role: 'user', content: 'q' },
      { role: 'assistant', content: 'x', tool_calls: [call] },
    ]
    for (const name of ['zephyr', 'mistral', 'gemma', 'alpaca']) {
      const { template: own } = await chooseTemplate(name, tokenizer)
      assert.throws(() => own.render(CHAT, { tools: [{}] }), new RegExp(`"${name}" template has no tools`))
      assert.throws(() => own.render(calling), new RegExp(`"${name}" template has no tool calls`))
      assert.throws(() => own.render([{ role: 'tool', content: 'x' }]), /no role tool/)
    }
    const { template: mistral } = await chooseTemplate('mistral', tokenizer)
    assert.throws(() => mistral.render([CHAT[1]!, CHAT[1]!]), /alternation/)
  })

  it('call tools in llama3 with parameters, and get results from ipython', async () => {
    const { template: own } = await chooseTemplate('llama3', tokenizer)
    const call = { type: 'function', function: { name: 'f', arguments: { a: 1 } } }
    const text = own.render(
      [
        { role: 'user', content: 'q' },
        { role: 'assistant', content: null, tool_calls: [call] },
        { role: 'tool', content: '2' },
      ],
      { tools: [{ name: 'f' }] },
    )
    assert.ok(text.startsWith('<s><|start_header_id|>system<|end_header_id|>\n\nYou may call these functions.'))
    assert.ok(text.includes('assistant<|end_header_id|>\n\n{"name": "f", "parameters": {"a": 1}}<|eot_id|>'))
    assert.ok(text.endsWith('<|start_header_id|>ipython<|end_header_id|>\n\n2<|eot_id|>'))
  })
})

describe('template variables', () => {
  const { path, write } = temporaryFolder()
  const SOURCE = '{{ x | tojson }}{% if enable_thinking is false %}no{% endif %}\n {{ messages | length }}'
  let tokenizer: Tokenizer
  before(async () => {
    tokenizer = await toyTokenizer(path('toy'), { special: ['</s>'], eos: '</s>' })
  })

  it('become defaults of the source, which renders as before', () => {
    const variables = { enable_thinking: false, x: { a: [1, -2.5, null, 'ä"\\\n{% endif %}'], 'b c': {} } }
    const own = template(tokenizer, SOURCE, variables)
    const text = '{"a": [1, -2.5, null, "ä\\"\\\\\\n{% endif %}"], "b c": {}}no 0'
    assert.equal(own.render([]), text)
    assert.equal(template(tokenizer, own.source).render([]), text)
    assert.ok(own.source.endsWith(SOURCE))
  })

  it('are refused where a template cannot hold them', () => {
    for (const [variables, words] of [
      [{ messages: [] }, 'set by rendering itself'],
      [{ 'a b': 1 }, 'no name'],
      [{ true: 1 }, 'no name'],
      [{ x: Number.NaN }, 'NaN'],
      [{ x: 1e-9 }, '1e-9'],
      [{ x: [undefined] }, 'templateVariables.x[0]'],
    ] as const) {
      assert.throws(() => template(tokenizer, SOURCE, variables), failure('ERR_INVALID_OPTION', words))
    }
  })

  it('reach the templates of a tokenizer_config.json given as chatTemplate', async () => {
    const file = await write(
      'tokenizer_config.json',
      JSON.stringify({ chat_template: [{ name: 'default', template: '{{ x }}' }] }),
    )
    const { template: own } = await chooseTemplate(file, tokenizer, { variables: { x: 'y' } })
    assert.equal(own.render([]), 'y')
    await assert.rejects(
      chooseTemplate(await write('none.json', '{}'), tokenizer),
      failure('ERR_TEMPLATE', 'no chat_template'),
    )
    await assert.rejects(chooseTemplate(await write('bad.json', '{'), tokenizer), failure('ERR_TEMPLATE', 'bad.json'))
  })

  it('leave templates for other purposes as they are named', async () => {
    const folder = path('named')
    await toyTokenizer(folder, { config: { chat_template: 'a' } })
    const { mkdir, writeFile } = await import('node:fs/promises')
    await mkdir(`${folder}/additional_chat_templates`)
    await writeFile(`${folder}/additional_chat_templates/tool_use.jinja`, 'b')
    const { Tokenizer: Loader } = await import('../../lib/chat/tokenizer.ts')
    const { template: own } = await chooseTemplate('model', await Loader.load(folder))
    assert.deepEqual([own.render([]), own.render([], { tools: [{}] })], ['a', 'b'])
  })
})
