import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Trainer, type TunesmithError } from '../../lib/index.ts'
import { judgeFindings } from '../../lib/trainer/template-check.ts'
import { scratchFolder, tinyOptions } from './runs.ts'

const TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"

describe('the template doctor in a run', () => {
  it('ends one whose template does not write the tool calls of the data', async () => {
    const folder = scratchFolder()
    const template = join(folder, 'no-tools.jinja')
    writeFileSync(template, `${TURNS}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`)
    const call = { type: 'function', function: { name: 'look_up', arguments: { word: 'tea' } } }
    const messages = [
      { role: 'user', content: 'What is tea?' },
      { role: 'assistant', content: 'Let me see.', tool_calls: [call] },
      { role: 'tool', content: 'A drink.' },
      { role: 'assistant', content: 'A drink.' },
    ]
    const data = join(folder, 'tools.jsonl')
    writeFileSync(data, `${JSON.stringify({ messages })}\n`)
    const trainer = new Trainer(tinyOptions(folder, { data: { train: data }, chatTemplate: template, cache: false }))
    await assert.rejects(trainer.fit(), (error: TunesmithError) => {
      assert.equal(error.code, 'ERR_TEMPLATE_DOCTOR')
      assert.match(error.message, /tool calls: .*tools\.jsonl:1.*look_up in messages\[1\]/)
      return true
    })
    assert.ok(!existsSync(join(folder, 'out', 'model.safetensors')))
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
      judgeFindings([finding('rendering', 'error'), finding('trained share', 'error'), finding('bos', 'ok')]),
      [],
    )
    assert.deepEqual(judgeFindings([finding('bos', 'warning')]), [
      { code: 'WARN_TEMPLATE', message: 'Chat template, bos: x' },
    ])
    assert.throws(() => judgeFindings([finding('bos', 'warning'), finding('stop token', 'error')]), /stop token: x/)
  })
})
