import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { exportGguf } from '../../lib/checkpoint/gguf/export.ts'
import { loadParameters } from '../../lib/checkpoint/load.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import { addon } from '../../lib/native/load.ts'
import { safetensors, temporaryFolder, tensorsOf } from '../checkpoint/fixtures.ts'
import { itShared, shared } from '../shared.ts'
import { describeLlamaCpp, LlamaCpp } from './llama-cpp.ts'

const prompts = [
  'Once upon a time, there was a little girl named Lily.',
  'Tom and Sue went to the park. They saw a big dog',
  'One day, a boy named Tim found a red ball in the garden. He',
  '"Can I play with you?" asked the cat. The bird said, "',
  'The sun was warm and the sky was blue. Mia wanted to',
  'Ben had 3 cars: one red, one blue & one green.',
  'She was very sad because her toy was broken. Her mom',
  'They played all day. At night, they went home and',
  'Naïve café — “quotes”, ünïcödé and 日本語 🦙!',
  'Once there was a tree. The tree was tall. The tree',
]

const texts = [
  ...prompts,
  "I've been told he's there, 'RE you sure? We'Ve a'lL, it'S",
  '3 33 333 3333 33333 3.3 3..3 1,234,567 x2y3z',
  ' leading and trailing  ',
  'a\n\n\nb\r\n\tc \n d\t\t',
  'def f(x):\n    return x**2  # squared\n\n\nprint(f(3))',
  '!!!??? ------======= ```code``` <b>bold</b> {"a": [1, 2]}',
  'нещо на Български, ελληνικά, עברית, हिन्दी, 我想在apple工作',
  '👩‍👩‍👧‍👦 family, flags 🇩🇪, ✅ done',
]

describeLlamaCpp('GGUF in llama.cpp', () => {
  const folder = temporaryFolder()
  let running: LlamaCpp | undefined
  afterEach(() => running?.close())

  const open = async (model: string, type: 'f32' | 'f16' | 'bf16' | 'q8_0'): Promise<LlamaCpp> => {
    const { file } = await exportGguf({ model, file: join(folder(), `${type}.gguf`), type })
    running?.close()
    running = new LlamaCpp(file)
    return running
  }

  itShared('answers as the model it was exported from', async () => {
    const model = shared('models/stories260K')
    const tokenizer = await Tokenizer.load(model)
    for (const [type, margin] of [
      ['f32', 0.01],
      ['bf16', 0.1],
      ['f16', 0.1],
    ] as const) {
      const other = await open(model, type)
      const engine = await referenceEngine(model)
      let compared = 0
      for (const prompt of prompts) {
        const tokens = [tokenizer.bos!.id, ...(await tokenizer.encode(prompt)).ids]
        const ours = await logitsOf(engine, tokens)
        const theirs = await other.next(tokens)
        theirs.forEach(({ best }, position) => {
          const [first, second] = topTwo(ours[position]!)
          if (ours[position]![first]! - ours[position]![second]! <= margin) return
          assert.equal(best, first, `${type}: ${prompt} at ${position}`)
          compared++
        })
      }
      engine.close()
      assert.ok(compared > 150, `${compared} positions compared`)
    }
  })

  itShared('loses less than 1 % of perplexity as q8_0', async () => {
    const model = shared('models/stories260K')
    const tokenizer = await Tokenizer.load(model)
    const other = await open(model, 'q8_0')
    const engine = await referenceEngine(model)
    let [ours, theirs, count] = [0, 0, 0]
    for (const prompt of prompts.slice(0, 8)) {
      const tokens = [tokenizer.bos!.id, ...(await tokenizer.encode(prompt)).ids]
      const logits = await logitsOf(engine, tokens)
      const next = await other.next(tokens)
      for (let i = 0; i + 1 < tokens.length; i++) {
        const target = tokens[i + 1]!
        ours -= logProbability(logits[i]!, target)
        theirs -= Math.log(next[i]!.probabilities[target]!)
        count++
      }
    }
    engine.close()
    const ratio = Math.exp((theirs - ours) / count)
    assert.ok(Math.abs(ratio - 1) < 0.01, `perplexity ratio ${ratio}`)
  })

  for (const name of ['gpt2', 'llama2', 'llama3', 'qwen3', 'deepseek_v3', 'minimind']) {
    itShared(`reads text as the tokenizer of ${name} does`, async () => {
      const source = shared(`tokenizers/${name}`)
      const tokenizer = await Tokenizer.load(source)
      const model = writeVocabularyModel(join(folder(), name), source, tokenizer.vocabSize)
      const other = await open(model, 'f16')
      for (const text of texts) {
        const expected = [...(await tokenizer.encode(text)).ids]
        assert.deepEqual(await other.tokenize(text), expected, JSON.stringify(text))
      }
      for (const { text, id } of tokenizer.stops) assert.deepEqual(await other.tokenize(text, true), [id])
      const introduction = await other.introduction
      assert.equal(introduction.eos, tokenizer.eos?.id)
      assert.equal(introduction.template, tokenizer.chatTemplates.get('default') ?? null)
    })
  }
})

/** A model of no use but for its vocabulary. */
function writeVocabularyModel(folder: string, tokenizer: string, vocabSize: number): string {
  mkdirSync(folder)
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 32,
    intermediate_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 1,
    vocab_size: vocabSize,
    max_position_embeddings: 256,
    rms_norm_eps: 1e-5,
    hidden_act: 'silu',
    tie_word_embeddings: true,
    torch_dtype: 'bfloat16',
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  writeFileSync(join(folder, 'model.safetensors'), safetensors(tensorsOf(config, 'bfloat16')))
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'chat_template.jinja']) {
    if (existsSync(join(tokenizer, name))) copyFileSync(join(tokenizer, name), join(folder, name))
  }
  return folder
}

type Engine = InstanceType<ReturnType<typeof addon>['Engine']>

async function referenceEngine(model: string): Promise<Engine> {
  const checkpoint = await openCheckpoint(model)
  const engine = new (addon().Engine)({
    backend: 'reference',
    compute: 'float32',
    threads: 1,
    spec: checkpoint.spec,
    training: false,
    optimizer: 'sgd',
    recompute: false,
    maxTokens: 128,
    maxSupervised: 128,
    maxSequences: 1,
    cacheTokens: 0,
  })
  await loadParameters(checkpoint, engine)
  return engine
}

/** Of every position. */
async function logitsOf(engine: Engine, tokens: readonly number[]): Promise<Float32Array[]> {
  const all = await engine.logits({
    tokens: Int32Array.from(tokens),
    positions: Int32Array.from(tokens.keys()),
    cuSeqlens: Int32Array.of(0, tokens.length),
    targets: new Int32Array(tokens.length),
    weights: new Float32Array(tokens.length).fill(1),
  })
  const width = all.length / tokens.length
  return tokens.map((_, position) => all.subarray(position * width, (position + 1) * width))
}

function topTwo(values: Float32Array): [number, number] {
  let [first, second] = values[1]! > values[0]! ? [1, 0] : [0, 1]
  for (let i = 2; i < values.length; i++) {
    if (values[i]! > values[first]!) [first, second] = [i, first]
    else if (values[i]! > values[second]!) second = i
  }
  return [first, second]
}

function logProbability(logits: Float32Array, token: number): number {
  const largest = Math.max(...logits)
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0)
  return logits[token]! - largest - Math.log(sum)
}
