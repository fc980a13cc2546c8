import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { readdir, readFile, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { decodeBlock, encodeBlocks, FileNames } from '../../lib/batch/cache/blocks.ts'
import { defaultCacheFolder, PrepareCache } from '../../lib/batch/cache/cache.ts'
import type { Conversations } from '../../lib/batch/pass.ts'
import { prepare } from '../../lib/batch/prepare.ts'
import type { Prepared, PrepareOptions, PrepareProgress } from '../../lib/batch/prepared.ts'
import type { Tokenizer } from '../../lib/chat/tokenizer.ts'
import { parseOptions } from '../../lib/trainer/options.ts'
import { toyTokenizer } from '../chat/helpers.ts'
import { exchange, failure, jsonl, temporaryFolder } from '../data/helpers.ts'
import { example, exampleSets, nothingLost, prepareOptions } from './helpers.ts'

const REWRITING =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('|')[-1] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

/** Rows of every kind: kept, split by the template, malformed, too long, without loss, and a turn with its own weight. */
const ROWS = [
  exchange('one', 'eins'),
  { messages: [...exchange('q', 'x|first').messages, ...exchange('r', 'y|second').messages] },
  '{',
  exchange('a', 'b'.repeat(300)),
  {
    messages: [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b', weight: 0 },
    ],
  },
  {
    messages: [
      { role: 'user', content: 'c' },
      { role: 'assistant', content: 'd', weight: 0.3 },
    ],
  },
  ...Array.from({ length: 30 }, (_, i) => exchange(`question ${i}`, `answer ${i} 🦔`)),
]

describe('cache of prepared data', () => {
  const { path, write } = temporaryFolder()
  let tokenizer: Tokenizer
  let train: string
  let evaluation: string
  before(async () => {
    tokenizer = await rewritingTokenizer('tokenizer')
    train = await write('train.jsonl', jsonl(...ROWS))
    evaluation = await write('eval.jsonl', jsonl(exchange('held', 'out'), exchange('held', 'back')))
  })

  function rewritingTokenizer(name: string, template = REWRITING): Promise<Tokenizer> {
    const special = ['</s>', '<|im_start|>', '<|im_end|>']
    return toyTokenizer(path(name), { special, eos: '</s>', config: { chat_template: template } })
  }

  function options(cache: string, changes: Parameters<typeof prepareOptions>[1] = {}): PrepareOptions {
    const held = [{ path: evaluation, format: 'auto' as const }]
    return prepareOptions(train, { cache: path(cache), onBadRow: 'skip', eval: held, ...changes })
  }

  /** What prepare() gives, and whether it came from the cache. */
  async function run(given: PrepareOptions, using = tokenizer): Promise<Prepared & { cached: boolean }> {
    const told: PrepareProgress[] = []
    const prepared = await prepare(given, using, { onProgress: (progress) => told.push(progress) })
    assert.ok(told.length > 0)
    const cached = told.map((progress) => progress.cached ?? false)
    assert.equal(new Set(cached).size, 1, 'all of a run or nothing of it')
    return { ...prepared, cached: cached[0]! }
  }

  function comparable({ template, cached: _, ...rest }: Prepared & { cached: boolean }) {
    return {
      ...rest,
      template: template && { name: template.name, source: template.source, stops: template.stopTokens },
    }
  }

  const entries = async (cache: string) => (await readdir(path(cache))).map((name) => join(path(cache), name))

  it('gives back everything: examples, sources, counts, warnings, template', async () => {
    const plain = await run(options('whole', { cache: false }))
    const first = await run(options('whole'))
    const second = await run(options('whole'))
    assert.deepEqual([plain.cached, first.cached, second.cached], [false, false, true])
    assert.deepEqual(comparable(first), comparable(plain))
    assert.deepEqual(comparable(second), comparable(plain))
    assert.equal(second.counts.split, 1)
    assert.equal(second.counts.dropped.length, 3)
    assert.ok(second.warnings.length >= 3)
    assert.ok(second.train.examples.some(({ weights }) => weights.includes(Math.fround(0.3))))
    assert.equal(second.eval!.examples.length, 2)
  })

  it('divides alike whatever the seed, from one entry', async () => {
    const changes = { eval: [], evalFraction: 0.2 }
    const fresh = await run(options('division', { ...changes, cache: false, seed: 7 }))
    await run(options('division', changes))
    const recalled = await run(options('division', { ...changes, seed: 7 }))
    assert.equal(recalled.cached, true)
    assert.deepEqual(comparable(recalled), comparable(fresh))
  })

  it('recalls plain text without a template', async () => {
    const text = await write('text.jsonl', jsonl({ text: 'Once upon a time.' }))
    const given = prepareOptions(text, { cache: path('text'), trainOn: 'all' })
    const first = await run(given)
    const second = await run(given)
    assert.equal(second.cached, true)
    assert.equal(second.template, undefined)
    assert.deepEqual(comparable(second), comparable(first))
  })

  it('misses when anything that matters changes, and only then', async () => {
    const cached = async (changes: Parameters<typeof prepareOptions>[1], using = tokenizer) =>
      (await run(options('keys', changes), using)).cached
    assert.equal(await cached({}), false)
    assert.equal(await cached({}), true)
    const changes: Parameters<typeof prepareOptions>[1][] = [
      { maxLength: 99 },
      { trainOn: 'last' },
      { promptLossWeight: 0.5 },
      { controlTokensInText: 'keep' },
      { chatTemplate: 'chatml' },
      { eval: [] },
    ]
    for (const change of changes) assert.equal(await cached(change), false, JSON.stringify(change))
    assert.equal(await cached({}), true)
    const otherTemplate = await rewritingTokenizer('other-template', REWRITING.replace('{% for', '{# other #}{% for'))
    assert.equal(await cached({}, otherTemplate), false)
    const otherVocabulary = await toyTokenizer(path('other-vocabulary'), {
      special: ['</s>', '<|im_start|>', '<|im_end|>', '<|more|>'],
      eos: '</s>',
      config: { chat_template: REWRITING },
    })
    assert.equal(await cached({}, otherVocabulary), false)
  })

  it('goes by the content of a file, not by its date or size', async () => {
    const given = async () => run(prepareOptions(path('content.jsonl'), { cache: path('content') }))
    await write('content.jsonl', jsonl(exchange('one', 'eins')))
    const dates = await stat(path('content.jsonl'))
    assert.equal((await given()).cached, false)
    await utimes(path('content.jsonl'), new Date(0), new Date(0))
    assert.equal((await given()).cached, true)
    await write('content.jsonl', jsonl(exchange('one', 'zwei')))
    await utimes(path('content.jsonl'), dates.atime, dates.mtime)
    const changed = await given()
    assert.equal(changed.cached, false)
    assert.match(await tokenizer.decode(changed.train.examples[0]!.ids), /zwei/)
  })

  it('follows a template file, and the day where a template tells it', async () => {
    const template = (text: string) => write('template.jinja', `${text}${REWRITING}`)
    const given = { chatTemplate: path('template.jinja') }
    const cached = async () => (await run(options('template', given))).cached
    await template('')
    assert.deepEqual([await cached(), await cached()], [false, true])
    await template('Hello. ')
    assert.deepEqual([await cached(), await cached()], [false, true])
    await template("{{ strftime_now('%d %B %Y') }} ")
    assert.deepEqual([await cached(), await cached()], [false, true])
    await template("{{ strftime_now('%H:%M:%S') }} ")
    assert.deepEqual([await cached(), await cached()], [false, false])
  })

  it('detects damage of every kind, says so, and prepares anew', async () => {
    const whole = comparable(await run(options('damage', { cache: false })))
    await run(options('damage'))
    const [entry] = await entries('damage')
    const good = await readFile(entry!)
    const flip = (at: number) => {
      const bytes = Buffer.from(good)
      bytes[at]! ^= 0x10
      return writeFile(entry!, bytes)
    }
    const damages: (() => Promise<void>)[] = [
      () => truncate(entry!, good.length - 1),
      () => truncate(entry!, good.length >> 1),
      () => truncate(entry!, 7),
      () => truncate(entry!, 0),
      () => writeFile(entry!, Buffer.concat([good, Buffer.of(0)])),
      () => writeFile(entry!, good.subarray(4)),
      ...[0, 8, 100, good.length >> 1, good.length - 200, good.length - 15, good.length - 11, good.length - 1].map(
        (at) => () => flip(at),
      ),
    ]
    for (const [index, damage] of damages.entries()) {
      await damage()
      const { warnings, ...rest } = await run(options('damage'))
      assert.equal(rest.cached, false, `damage ${index}`)
      const [first, ...others] = warnings
      assert.equal(first!.code, 'WARN_CACHE')
      assert.match(first!.message, /is damaged .* prepared anew/)
      assert.ok(first!.message.includes(entry!))
      assert.deepEqual(comparable({ ...rest, warnings: others }), whole)
      assert.deepEqual(await readFile(entry!), good, 'rebuilt')
    }
    assert.equal((await run(options('damage'))).cached, true)
  })

  it('stays out of the way where it cannot be written', async () => {
    await write('in-the-way', 'a file')
    const { warnings, cached } = await run(options('in-the-way'))
    assert.equal(cached, false)
    const told = warnings.filter(({ code }) => code === 'WARN_CACHE')
    assert.equal(told.length, 1)
    assert.match(told[0]!.message, /cannot be kept in .*in-the-way/)
  })

  it('keeps nothing of a file that changes while it is read', async () => {
    const moving = await write('moving.jsonl', jsonl(...ROWS.slice(0, 2)))
    const given = prepareOptions(moving, { cache: path('moving') })
    let appended = false
    await prepare(given, tokenizer, {
      onProgress: () => {
        if (appended) return
        appended = true
        // Within the same call, so that it is certainly before the end of the pass.
        writeFileSync(moving, jsonl(...ROWS.slice(0, 2), exchange('late', 'spät')))
      },
    })
    assert.equal((await run(given)).cached, false)
    assert.equal((await run(given)).cached, true)
  })

  it('keeps nothing where a glob matches another file at the end', async () => {
    await write('glob-a.jsonl', jsonl(...ROWS.slice(0, 2)))
    const given = prepareOptions(path('glob-*.jsonl'), { cache: path('glob') })
    const onProgress = () => writeFileSync(path('glob-b.jsonl'), jsonl(exchange('more', 'mehr')))
    await prepare(given, tokenizer, { onProgress })
    assert.equal((await run(given)).cached, false)
    assert.equal((await run(given)).cached, true)
  })

  it('keeps nothing of data that is refused', async () => {
    const bad = await write('bad.jsonl', jsonl(...ROWS))
    await assert.rejects(prepare(prepareOptions(bad, { cache: path('bad') }), tokenizer), failure('ERR_BAD_ROW'))
    await assert.rejects(readdir(path('bad')))
  })

  it('can be ended while it reads', async () => {
    await run(options('abort'))
    const aborted = AbortSignal.abort(new Error('enough'))
    await assert.rejects(prepare(options('abort'), tokenizer, { signal: aborted }), /enough/)
  })

  it('holds no more than its limit, the least recently used first, and sweeps what was left half-written', async () => {
    const folder = path('limit')
    const result = (line: number) => ({
      train: { pieces: [[example(line, 3)]], keys: [] },
      counts: {
        rows: 1,
        ...nothingLost,
      },
      warnings: [],
      formats: [],
      usesTemplate: false,
    })
    const keys = ['a', 'b', 'c', 'd'].map((letter) => letter.repeat(64))
    const cache = new PrepareCache(folder)
    for (const [i, key] of keys.slice(0, 3).entries()) {
      await cache.keep(key, result(i), [])
      await utimes(join(folder, `${key}.prepared`), new Date(1000 * i), new Date(1000 * i))
    }
    const { size } = await stat(join(folder, `${keys[0]}.prepared`))
    const stale = join(folder, `${keys[0]}.${'0'.repeat(16)}.tmp`)
    const fresh = join(folder, `${keys[0]}.${'1'.repeat(16)}.tmp`)
    const foreign = join(folder, 'notes.txt')
    for (const name of [stale, fresh, foreign]) await writeFile(name, 'x')
    for (const name of [stale, foreign]) await utimes(name, new Date(0), new Date(0))
    assert.deepEqual((await cache.find(keys[0]!, []))?.train, result(0).train, 'used, so it stays')
    await new PrepareCache(folder, 2 * size).keep(keys[3]!, result(3), [])
    assert.deepEqual(
      (await readdir(folder)).sort(),
      [`${keys[0]}.prepared`, `${keys[3]}.prepared`, fresh.split('/').at(-1), 'notes.txt'].sort(),
    )
    await new PrepareCache(folder, 1).keep(keys[1]!, result(1), [])
    assert.ok(await cache.find(keys[1]!, []), 'the newest stays, however large')
  })

  it('has its folder where XDG says, and is an option', async () => {
    const before = process.env.XDG_CACHE_HOME
    try {
      process.env.XDG_CACHE_HOME = '/somewhere'
      assert.equal(defaultCacheFolder(), '/somewhere/tunesmith/prepared')
      for (const ignored of ['', 'relative']) {
        process.env.XDG_CACHE_HOME = ignored
        assert.match(defaultCacheFolder(), /\/\.cache\/tunesmith\/prepared$/)
      }
    } finally {
      process.env.XDG_CACHE_HOME = before
    }
    const of = (cache?: unknown) =>
      parseOptions({ model: 'm', output: 'o', data: { train: 't' }, cache }, '/base').cache
    assert.deepEqual(
      [of(), of(true), of(false), of('here')],
      [defaultCacheFolder(), defaultCacheFolder(), false, '/base/here'],
    )
    assert.throws(() => of(3), failure('ERR_INVALID_OPTION', 'cache must be true, false or a folder'))
  })

  it('encodes and decodes any conversations', () => {
    fc.assert(
      fc.property(exampleSets, fc.boolean(), ({ examples, starts }, keyed) => {
        const pieces = Array.from({ length: starts.length - 1 }, (_, i) => examples.slice(starts[i], starts[i + 1]))
        const keys = keyed ? pieces.map((_, i) => Buffer.alloc(32, i + 1).toString('base64')) : []
        const files = new FileNames()
        const decoded: Conversations = { pieces: [], keys: [] }
        for (const block of encodeBlocks({ pieces, keys }, files)) decodeBlock(block, files.names, decoded)
        assert.deepEqual(decoded, { pieces, keys })
      }),
    )
  })

  it('spreads many tokens over several blocks, a conversation never over two', () => {
    const sizes = [700_000, 700_000, 2_000_000, 10, 10]
    const pieces = sizes.map((size, i) => [example(i, size), example(i, 3)])
    const files = new FileNames()
    const blocks = [...encodeBlocks({ pieces, keys: [] }, files)]
    assert.equal(blocks.length, 4)
    const decoded: Conversations = { pieces: [], keys: [] }
    for (const block of blocks) decodeBlock(block, files.names, decoded)
    assert.equal(decoded.pieces.length, sizes.length)
    for (const [i, [first]] of decoded.pieces.entries()) assert.equal(first!.ids.length, sizes[i])
  })
})
