import assert from 'node:assert/strict'
import { exec } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describeShared, shared } from '../shared.ts'
import { tunesmith, tunesmithHere } from './spawn.ts'

describeShared('the command line on a real model', () => {
  let folder: string
  let config: string

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
    // Short rows, for a model with a context of 512 tokens.
    const rows = readFileSync(shared('data/dolly-15k/dolly-15k-messages.jsonl'), 'utf8').split('\n')
    const short = rows.filter((row) => row !== '' && row.length < 500).slice(0, 40)
    writeFileSync(join(folder, 'train.jsonl'), `${short.join('\n')}\n`)
    config = join(folder, 'config.yaml')
    writeFileSync(
      config,
      `model: ${JSON.stringify(shared('models/stories260K'))}
output: out
data: { train: train.jsonl, evalFraction: 0.1 }
maxSteps: 3
batchSize: 2
learningRate: 1e-3
device: reference
`,
    )
  })
  after(() => rmSync(folder, { recursive: true }))

  it('plans', async () => {
    const { code, stdout, stderr } = await tunesmithHere(['plan', config, '--set', 'maxSteps=5', '--json'])
    assert.equal(code, 0, stderr)
    const plan = JSON.parse(stdout)
    assert.equal(plan.steps, 5)
    assert.equal(plan.parameters, 260032)
    assert.equal(plan.conversations + plan.evalConversations, 40)
    assert.match(stderr, /^warning: .*no chat template/)
    const table = await tunesmithHere(['plan', config])
    assert.match(table.stdout, /^ {2}parameters +260,032$/m)
    assert.match(table.stdout, /^ {2}steps +3 \(/m)
  })

  it('trains to the end although its reader has gone', async () => {
    const command = `${process.execPath} --import tsx lib/cli/main.ts train "${config}" --set output="${join(folder, 'piped')}" | head -1`
    const { stdout } = await promisify(exec)(command, { cwd: fileURLToPath(new URL('../..', import.meta.url)) })
    assert.equal(stdout.trim().split('\n').length, 1)
    assert.ok(existsSync(join(folder, 'piped', 'config.json')))
  })

  it('trains, a line per step, and generates with what it wrote', async () => {
    const { code, stdout, stderr } = await tunesmith(['train', 'config.yaml'], { cwd: folder })
    assert.equal(code, 0, stderr)
    for (const step of [1, 2, 3])
      assert.match(stdout, new RegExp(`^step ${step}/3 .* loss \\d+\\.\\d{4} .* tok/s `, 'm'))
    assert.match(stdout, /^3 steps in [\d.]+s, evaluation loss .* checkpoint in .*out$/m)
    assert.ok(!stdout.includes('\x1b'))
    const lines = readFileSync(join(folder, 'out/metrics.jsonl'), 'utf8').trimEnd().split('\n')
    assert.deepEqual(
      lines
        .map((line) => JSON.parse(line))
        .filter(({ event }) => event === 'step')
        .map(({ step }) => step),
      [1, 2, 3],
    )

    const answer = ['generate', join(folder, 'out'), '--prompt', 'Once upon a time', '--raw', '--max-new-tokens', '8']
    const text = await tunesmithHere([...answer, '--device', 'reference'])
    assert.equal(text.code, 0, text.stderr)
    const json = await tunesmithHere([...answer, '--device', 'reference', '--json'])
    const completion = JSON.parse(json.stdout)
    assert.equal(text.stdout, `${completion.text}\n`)
    assert.ok(completion.text.length > 0)
    assert.ok(completion.tokens.length <= 8)
  })

  it('reads a prompt from stdin', async () => {
    const args = ['generate', shared('models/stories260K'), '--raw', '--max-new-tokens', '12', '--device', 'reference']
    const piped = await tunesmith([...args, '--prompt', '-'], { input: 'Once upon a time' })
    assert.equal(piped.code, 0, piped.stderr)
    assert.match(piped.stdout, /^, there was a little girl/)
    assert.equal(piped.stdout, (await tunesmithHere([...args, '--prompt', 'Once upon a time'])).stdout)
  })

  it('samples the same with the same seed, and otherwise with another', async () => {
    const args = ['generate', shared('models/stories260K'), '--raw', '--prompt', 'Once', '--max-new-tokens', '24']
    const sample = async (seed: string) => {
      const sampling = ['--temperature', '1', '--top-p', '0.95', '--seed', seed, '--device', 'reference']
      const { code, stdout, stderr } = await tunesmithHere([...args, ...sampling])
      assert.equal(code, 0, stderr)
      return stdout
    }
    assert.equal(await sample('1'), await sample('1'))
    assert.notEqual(await sample('1'), await sample('2'))
  })

  it('ends with 130 on Ctrl-C, without a checkpoint', async () => {
    const args = ['train', config, '--set', `output=${join(folder, 'cut')}`, '--set', 'maxSteps=100000', '--json']
    let sent = false
    const { code, stdout, stderr } = await tunesmith(args, {
      onOutput: (text, kill) => {
        if (sent || !text.includes('"event":"step"')) return
        sent = true
        kill('SIGINT')
      },
    })
    assert.equal(code, 130, stderr)
    assert.match(stderr, /interrupted: no checkpoint was written\n$/)
    assert.deepEqual(JSON.parse(stdout.trimEnd().split('\n').at(-1)!), { event: 'aborted' })
    assert.ok(!existsSync(join(folder, 'cut/model.safetensors')))
  })

  it('tells in one message what is wrong with model or data', async () => {
    const cases: [string, RegExp][] = [
      [`model=${join(folder, 'none')}`, /^error: .*none.* \[ERR_\w+\]\n$/],
      [`data.train=${join(folder, 'none.jsonl')}`, /^error: .*none\.jsonl.* \[ERR_DATA_NOT_FOUND\]\n$/],
      ['maxLength=100000', /^error: .*maxLength.* \[ERR_INVALID_OPTION\]\n$/],
    ]
    for (const [set, message] of cases) {
      const { code, stdout, stderr } = await tunesmithHere(['train', config, '--set', set])
      assert.equal(code, 1)
      assert.equal(stdout, '')
      assert.match(stderr, message)
    }
  })
})
