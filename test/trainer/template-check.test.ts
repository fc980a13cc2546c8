import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Trainer, type TunesmithError } from '../../lib/index.ts'
import { judgeFindings } from '../../lib/trainer/template-check.ts'
import { scratchFolder, tinyConfig, tinyOptions, tokenizer } from './runs.ts'

const TEMPLATE =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

describe('the template doctor in a run', () => {
  it('ends one whose checkpoint would render something else', async () => {
    const folder = scratchFolder()
    const source = join(folder, 'tokenizer')
    mkdirSync(source)
    copyFileSync(join(tokenizer, 'tokenizer.json'), join(source, 'tokenizer.json'))
    const config = JSON.parse(readFileSync(join(tokenizer, 'tokenizer_config.json'), 'utf8'))
    const templates = [
      { name: 'default', template: TEMPLATE },
      { name: 'tool_use', template: `{{ 'Tools.' }}${TEMPLATE}` },
    ]
    writeFileSync(join(source, 'tokenizer_config.json'), JSON.stringify({ ...config, chat_template: templates }))
    const messages = [
      { role: 'user', content: 'What is tea?' },
      { role: 'assistant', content: 'A drink.' },
    ]
    const data = join(folder, 'tools.jsonl')
    writeFileSync(data, `${JSON.stringify({ messages, tools: [{ type: 'function', function: { name: 'f' } }] })}\n`)
    const model = { config: tinyConfig, tokenizer: source, init: 'random' } as const
    const trainer = (templateVariables: Record<string, unknown>) =>
      new Trainer(tinyOptions(folder, { model, data: { train: data }, templateVariables, cache: false }))
    // With variables the checkpoint gets one template of its own, and the one for tools is left behind.
    await assert.rejects(trainer({ x: 1 }).fit(), (error: TunesmithError) => {
      assert.equal(error.code, 'ERR_TEMPLATE_DOCTOR')
      assert.match(error.message, /exported template: .*tools\.jsonl:1/)
      return true
    })
    assert.ok(!existsSync(join(folder, 'out', 'model.safetensors')))
    assert.equal((await trainer({}).plan()).conversations, 1)
  })

  it('leaves rendering and shares to the checks over all rows, and tells the rest', () => {
    const finding = (
      check: Parameters<typeof judgeFindings>[0][number]['check'],
      verdict: 'ok' | 'warning' | 'error',
    ) => ({
      check,
      verdict,
      detail: 'x',
    })
    assert.deepEqual(
      judgeFindings([finding('rendering', 'error'), finding('tool calls', 'error'), finding('bos', 'ok')]),
      [],
    )
    assert.deepEqual(judgeFindings([finding('bos', 'warning')]), [
      { code: 'WARN_TEMPLATE', message: 'Chat template, bos: x' },
    ])
    assert.throws(() => judgeFindings([finding('bos', 'warning'), finding('stop token', 'error')]), /stop token: x/)
  })
})
