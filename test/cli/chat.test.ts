import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ChatSession, type Display, type Speaker } from '../../lib/cli/chat-session.ts'
import { BadRows } from '../../lib/data/bad-rows.ts'
import type { Conversation, Message } from '../../lib/data/conversation.ts'
import { readRows } from '../../lib/data/read.ts'
import { loadModel } from '../../lib/index.ts'
import { tunesmith, tunesmithHere } from './spawn.ts'

const base = fileURLToPath(new URL('../../assets/base', import.meta.url))

async function readBack(path: string): Promise<Message[][]> {
  const report = { rows: 0, bad: new BadRows('error'), formats: [], warnings: [] }
  const found: Message[][] = []
  for await (const rows of readRows([{ path, format: 'auto' }], report))
    for (const row of rows) found.push((row as Conversation).messages)
  return found
}

describe('tunesmith chat', () => {
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
  })
  after(() => rmSync(folder, { recursive: true }))

  const talk = (lines: string[], more: string[] = []) =>
    tunesmith(
      [
        'chat',
        base,
        '--chat-template=plain',
        '--stop=e',
        '--max-new-tokens=60',
        '--threads=2',
        '--precision=float32',
        ...more,
      ],
      { cwd: folder, input: `${lines.join('\n')}\n` },
    )

  it('answers each line of a pipe with the whole conversation in view, and saves it as a row that trains', async () => {
    const { code, stdout, stderr } = await talk([
      '/system You tell stories.',
      'Tell me about a dog.',
      '//slash',
      '/save talk.jsonl',
      '/reset',
      'Tell me about a dog.',
      '/save talk.jsonl',
    ])
    assert.equal(code, 0, stderr)
    const model = await loadModel(base, { chatTemplate: 'plain', threads: 2, precision: 'float32' })
    const messages: Message[] = [{ role: 'system', content: 'You tell stories.' }]
    try {
      for (const content of ['Tell me about a dog.', '/slash']) {
        messages.push({ role: 'user', content })
        messages.push((await model.generate(messages, { stop: 'e', maxNewTokens: 60 })).message!)
      }
    } finally {
      model.close()
    }
    const first = messages.slice(0, 3)
    assert.equal(stdout, `${messages[2]!.content}\n${messages[4]!.content}\n${messages[2]!.content}\n`)
    assert.deepEqual(await readBack(join(folder, 'talk.jsonl')), [messages, first])
    assert.match(stderr, /saved as one row of talk\.jsonl/)
  })

  it('shows the answers of two models one under the other', async () => {
    const { code, stdout } = await talk(['Tell me about a dog.'], ['--compare', join(base, '..', 'base')])
    assert.equal(code, 0)
    const [first, second] = stdout.split(/^.*base:\n/m).slice(1)
    assert.ok(first!.trim().length > 0)
    assert.equal(first, second)
  })

  it('stops an answer at the first Ctrl-C, and leaves at the second', async () => {
    let signals = 0
    const args = ['chat', base, '--chat-template=plain', '--threads=1', '--max-new-tokens=4000']
    const { code, stdout, stderr } = await tunesmith(args, {
      input: 'Tell me about a dog.\n',
      open: true,
      onOutput: (text, kill) => {
        if (signals === 0 && text.length > 20) {
          signals = 1
          kill('SIGINT')
        } else if (signals === 1 && text.endsWith('\n\n') === false && text.endsWith('\n')) {
          signals = 2
          kill('SIGINT')
        }
      },
    })
    assert.equal(code, 130, stderr)
    assert.match(stderr, /stopped/)
    assert.ok(stdout.length > 20 && stdout.length < 4000)
  })

  it('refuses a folder without a tokenizer, and wrong arguments', async () => {
    assert.equal((await tunesmithHere(['chat'])).code, 2)
    const missing = await tunesmithHere(['chat', folder])
    assert.equal(missing.code, 1)
    assert.match(missing.stderr, /^error: .* has no config\.json/)
  })
})

describe('a chat session', () => {
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
  })
  after(() => rmSync(folder, { recursive: true }))

  /** Says back what it hears; 'long' is cut, 'nothing' answered with nothing, 'fail' fails, 'wait' goes on until stopped. */
  function session(names = ['echo'], system?: string) {
    const shown: string[] = []
    const heard: Message[][] = []
    const speaker = (name: string): Speaker => ({
      name,
      async *stream(messages, signal) {
        heard.push([...messages])
        const content = `${name} ${messages.at(-1)!.content}`
        if (content.endsWith('fail')) throw new Error('no room')
        if (content.endsWith('nothing'))
          return { text: '', tokens: new Int32Array(1), finishReason: 'stop', promptTokens: 1 }
        yield content
        while (content.endsWith('wait')) {
          signal.throwIfAborted()
          await new Promise((resolve) => setTimeout(resolve, 1))
        }
        const finishReason = content.endsWith('long') ? 'length' : 'stop'
        return { text: content, tokens: new Int32Array(7), finishReason, promptTokens: 1 }
      },
    })
    const display: Display = {
      heading: (name) => shown.push(`# ${name}`),
      piece: (text) => shown.push(text),
      end: () => shown.push('.'),
      note: (text) => shown.push(`(${text})`),
    }
    return { chat: new ChatSession(names.map(speaker), display, system), shown, heard }
  }

  it('remembers what was said, until it begins anew', async () => {
    const { chat, heard } = session(['echo'], 'S')
    for (const line of ['a', '', '  ', 'b', '/reset', 'c', '/system T', 'd', '/system', 'e']) await chat.take(line)
    const contents = heard.map((messages) => messages.map(({ content }) => content))
    assert.deepEqual(contents, [['S', 'a'], ['S', 'a', 'echo a', 'b'], ['S', 'c'], ['T', 'd'], ['e']])
  })

  it('forgets turns without an answer, and says why there was none', async () => {
    const { chat, shown, heard } = session()
    for (const line of ['a', 'fail', 'nothing', 'b']) await chat.take(line)
    assert.deepEqual(
      heard.at(-1)!.map(({ content }) => content),
      ['a', 'echo a', 'b'],
    )
    assert.ok(shown.includes('(no room (/reset begins anew))'))
    assert.ok(shown.includes('(no answer: the model ended its turn at once)'))
  })

  it('keeps an answer that was cut as context without loss', async () => {
    const { chat } = session()
    const path = join(folder, 'cut.jsonl')
    // A file that another program left without a newline at its end.
    writeFileSync(path, '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}')
    await chat.take('long')
    await chat.take(`/save ${path}`)
    assert.equal((await readBack(path)).length, 1)
    const waiting = chat.take('wait')
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(chat.interrupt(), 'go on')
    await waiting
    await chat.take('whole')
    await chat.take(`/save ${path}`)
    assert.deepEqual((await readBack(path))[1], [
      { role: 'user', content: 'long' },
      { role: 'assistant', content: 'echo long', weight: 0 },
      { role: 'user', content: 'wait' },
      { role: 'assistant', content: 'echo wait', weight: 0 },
      { role: 'user', content: 'whole' },
      { role: 'assistant', content: 'echo whole' },
    ])
  })

  it('saves nowhere else than into JSON lines that can be written', async () => {
    const { chat, shown } = session()
    await chat.take(`/save ${join(folder, 'a.jsonl')}`)
    await chat.take('a')
    for (const path of ['', 'a.json', 'a.jsonl.gz', join(folder, 'none', 'a.jsonl')])
      await chat.take(`/save ${path}`.trim())
    const notes = shown.filter((text) => text.startsWith('(')).join('\n')
    for (const part of [
      /no whole answer/,
      /needs the name/,
      /not a\.json\)/,
      /not a\.jsonl\.gz\)/,
      /not saved: ENOENT/,
    ])
      assert.match(notes, part)
    assert.ok(!existsSync(join(folder, 'a.jsonl')))
  })

  it('gives each of two models a conversation of its own', async () => {
    const { chat, shown, heard } = session(['one', 'two'])
    await chat.take('a')
    await chat.take('b')
    assert.deepEqual(shown, [
      '# one',
      'one a',
      '.',
      '# two',
      'two a',
      '.',
      '# one',
      'one b',
      '.',
      '# two',
      'two b',
      '.',
    ])
    assert.deepEqual(
      heard.at(-1)!.map(({ content }) => content),
      ['a', 'two a', 'b'],
    )
    const path = join(folder, 'second.jsonl')
    await chat.take(`/save ${path}`)
    assert.match(readFileSync(path, 'utf8'), /two a/)
  })

  it('leaves at the second Ctrl-C in a row, and knows what is no command', async () => {
    const { chat, shown } = session()
    assert.equal(chat.interrupt(), 'ask again')
    await chat.take('a')
    assert.equal(chat.interrupt(), 'ask again')
    assert.equal(chat.interrupt(), 'leave')
    assert.equal(await chat.take('/exti'), false)
    assert.equal(await chat.take('/exit now'), false)
    assert.equal(await chat.take('/exit'), true)
    assert.match(shown.join('\n'), /no command \/exti; did you mean \/exit\?[\s\S]*\/exit takes nothing/)
  })
})
