import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { GenerateOptions, LoadModelOptions, Message, Model } from '../../lib/index.ts'
import { loadModel } from '../../lib/index.ts'

const base = fileURLToPath(new URL('../../assets/base', import.meta.url))

describe('what loadModel and generate refuse', () => {
  let model: Model
  before(async () => {
    model = await loadModel(base, { maxContext: 64 })
  })
  after(() => model.close())

  it('unknown options and values out of range, with the name that was meant', async () => {
    const wrong: [object, string, RegExp][] = [
      [{ max_new_tokens: 3 }, 'ERR_UNKNOWN_OPTION', /option max_new_tokens is unknown; did you mean maxNewTokens\?/],
      [{ temperature: -1 }, 'ERR_INVALID_OPTION', /option temperature must be a number from 0 up; found -1/],
      [{ topP: 0 }, 'ERR_INVALID_OPTION', /option topP must be a number above 0, at most 1; found 0/],
      [{ topK: 1.5 }, 'ERR_INVALID_OPTION', /option topK must be an integer from 0 up; found 1\.5/],
      [{ minP: 2 }, 'ERR_INVALID_OPTION', /option minP must be a number from 0 to 1; found 2/],
      [{ topK: 5 }, 'ERR_INVALID_OPTION', /option topK has no effect with temperature 0/],
      [{ topP: 0.9, minP: 0.1, temperature: 0 }, 'ERR_INVALID_OPTION', /topP has no effect[\s\S]*minP has no effect/],
      [{ repetitionPenalty: 0 }, 'ERR_INVALID_OPTION', /option repetitionPenalty must be a number above 0/],
      [{ stop: '' }, 'ERR_INVALID_OPTION', /option stop must be a text of at least one character, or a list of such/],
      [{ stop: ['a', ''] }, 'ERR_INVALID_OPTION', /option stop\[1\] must be a text of at least one character/],
      [{ maxNewTokens: 0.5 }, 'ERR_INVALID_OPTION', /option maxNewTokens must be an integer from 1 up; found 0\.5/],
      [{ onToken: 'print' }, 'ERR_INVALID_OPTION', /option onToken must be a function/],
    ]
    for (const [options, code, message] of wrong)
      await assert.rejects(model.generate('Once', options as GenerateOptions), {
        name: 'TunesmithError',
        code,
        message,
      })
    await assert.rejects(loadModel(base, { devicee: 'cpu' } as LoadModelOptions), {
      code: 'ERR_UNKNOWN_OPTION',
      message: /devicee is unknown; did you mean device\?/,
    })
    await assert.rejects(loadModel(base, { threads: -1 }), { code: 'ERR_INVALID_OPTION' })
  })

  it('prompts that are neither text nor messages', async () => {
    const wrong: [unknown, RegExp][] = [
      [[], /a list of at least one message/],
      [{ role: 'user', content: 'Hello' }, /a text, or a list/],
      [[{ role: 'human', content: 'Hello' }], /messages\[0\]\.role: unknown role "human"; write "user"/],
      [[{ role: 'user', content: 7 }], /messages\[0\]\.content/],
    ]
    for (const [prompt, message] of wrong) {
      const answer = model.generate(prompt as Message[])
      await assert.rejects(answer, { name: 'TunesmithError', code: 'ERR_INVALID_PROMPT', message })
    }
  })

  it('tools where the template, or the prompt, has no place for them', async () => {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: {} } }]
    const question: Message[] = [{ role: 'user', content: 'Hi' }]
    const refused = (prompt: string | Message[], list: unknown[], message: RegExp) =>
      assert.rejects(model.generate(prompt, { tools: list }), { code: 'ERR_INVALID_PROMPT', message })
    await refused('Once', tools, /give messages, not a text/)
    await refused(question, ['weather'], /the prompt's tools: expected a list of objects/)
    const folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
    const path = join(folder, 'no-tools.jinja')
    writeFileSync(path, '{% for m in messages %}{{ m.content + eos_token }}{% endfor %}')
    const bare = await loadModel(base, { chatTemplate: path })
    try {
      await assert.rejects(bare.generate(question, { tools }), { message: /the chat template leaves tools out/ })
    } finally {
      bare.close()
      rmSync(folder, { recursive: true })
    }
  })

  it('templates that do not say where an answer begins', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
    const path = join(folder, 'no-prompt.jinja')
    writeFileSync(path, "{% for m in messages %}{{ '[' + m.role + ']' + m.content + eos_token }}{% endfor %}")
    const bare = await loadModel(base, { chatTemplate: path })
    try {
      await assert.rejects(bare.generate([{ role: 'user', content: 'Hi' }]), {
        code: 'ERR_TEMPLATE',
        message: /has no generation prompt: it does not write "\[assistant\]" before an answer/,
      })
      await bare.generate('Once', { maxNewTokens: 1 })
    } finally {
      bare.close()
      rmSync(folder, { recursive: true })
    }
  })

  it('prompts without room, with advice that can be followed', async () => {
    const long = 'once upon a time '.repeat(40)
    await assert.rejects(model.generate(long), { code: 'ERR_CONTEXT_FULL', message: /raise maxContext \(up to 512\)$/ })
    const whole = await loadModel(base)
    try {
      await assert.rejects(whole.generate(long.repeat(8)), { code: 'ERR_CONTEXT_FULL', message: /512\. Shorten it$/ })
    } finally {
      whole.close()
    }
  })
})
