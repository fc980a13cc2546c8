import assert from 'node:assert/strict'
import { cpSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadParameters } from '../../lib/checkpoint/load.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import { publish } from '../../lib/checkpoint/publish.ts'
import { saveCheckpoint } from '../../lib/checkpoint/save.ts'
import { TunesmithError } from '../../lib/errors.ts'
import { withCrash } from './crash.ts'
import { engineOf, rejects, temporaryFolder, tinyConfig, writeModel, writeTokenizer } from './fixtures.ts'
import { MemoryEngine } from './memory-engine.ts'

describe('a crash while a checkpoint is saved', () => {
  const folder = temporaryFolder()

  /** Saves the tiny model with every weight moved by `shift`; the files differ in number and type between the two. */
  async function save(output: string, shift: 0 | 1): Promise<void> {
    writeModel(join(folder(), 'source'))
    writeTokenizer(join(folder(), 'tokenizer'))
    await saveCheckpoint({
      folder: output,
      model: await openCheckpoint(join(folder(), 'source')),
      engine: engineOf(tinyConfig, shift),
      dtype: shift === 0 ? 'float32' : 'float64',
      tokenizerFolder: join(folder(), 'tokenizer'),
      chatTemplate: `template ${shift}`,
      stopTokenIds: [2],
      ...(shift === 0 ? { maxShardBytes: 8000 } : {}),
    })
  }

  /** Which of the two the folder holds, whole; undefined where no loader would accept it. */
  async function holds(output: string): Promise<0 | 1 | undefined> {
    let checkpoint: Awaited<ReturnType<typeof openCheckpoint>>
    try {
      checkpoint = await openCheckpoint(output)
    } catch (error) {
      assert.ok(
        error instanceof TunesmithError && /^ERR_(MODEL_NOT_FOUND|CHECKPOINT_INCOMPLETE)$/.test(error.code),
        String(error),
      )
      assert.ok(!existsSync(join(output, 'config.json')))
      return undefined
    }
    const engine = new MemoryEngine(checkpoint.family.parameters(checkpoint.spec))
    await loadParameters(checkpoint, engine)
    const shift = checkpoint.sourceDtype === 'float32' ? 0 : 1
    assert.deepEqual(engine.values, engineOf(tinyConfig, shift).values)
    assert.equal(checkpoint.config.value.torch_dtype, checkpoint.sourceDtype)
    const shards = readdirSync(output).filter((name) => name.startsWith('model'))
    assert.equal(shards.length > 1, shift === 0, shards.join())
    assert.ok(existsSync(join(output, 'tokenizer.json')) && existsSync(join(output, 'chat_template.jinja')))
    return shift
  }

  it('in a new folder leaves no folder or a whole one, at every operation', async () => {
    const seen = new Set<unknown>()
    let at = 0
    for (let crashed = true; crashed; at++) {
      const output = join(folder(), `new-${at}`)
      crashed = (await withCrash(at, () => save(output, 0))).crashed
      seen.add(existsSync(output) ? await holds(output) : 'none')
      // The next save is not disturbed by what is left. Saving waits for the disk, so not every crash is followed by one.
      if (crashed && at % 4 !== 0) continue
      await save(output, 1)
      assert.equal(await holds(output), 1)
    }
    assert.deepEqual(seen, new Set(['none', 0]))
    assert.ok(at > 8, `${at} operations`)
  })

  it('in a folder with an earlier one leaves that, the new one or none, and never a mixture', async () => {
    const earlier = join(folder(), 'earlier')
    await save(earlier, 0)
    writeFileSync(join(earlier, 'metrics.jsonl'), 'kept')
    let seen = ''
    for (let at = 0, crashed = true; crashed; at++) {
      const output = join(folder(), `again-${at}`)
      cpSync(earlier, output, { recursive: true })
      crashed = (await withCrash(at, () => save(output, 1))).crashed
      const state = (await holds(output)) ?? (await interruption(output))
      const known = seen.endsWith(String(state))
      seen += state
      if (state === 'm') {
        cpSync(join(output, '.checkpoint-moving'), output, { recursive: true })
        rmSync(join(output, '.checkpoint-moving'), { recursive: true })
      } else if (known && crashed) {
        continue
      } else {
        await save(output, 1)
      }
      assert.equal(await holds(output), 1)
      assert.deepEqual(
        readdirSync(output).filter(
          (name) => !/^(model|config|generation_config|tokenizer|special|chat_template)/.test(name),
        ),
        ['metrics.jsonl'],
      )
    }
    // The earlier one stands until the new one is complete on disk; then, for a few renames, none; then the new one.
    assert.match(seen, /^0{8,}c+m+1+$/)
  })

  /** What ERR_CHECKPOINT_INCOMPLETE says to do: use the complete folder ('c', which must hold), or move files ('m'). */
  async function interruption(output: string): Promise<'c' | 'm'> {
    const message = await openCheckpoint(output).then(
      () => assert.fail('it must not open'),
      (error: Error) => error.message,
    )
    if (!/use that/.test(message)) {
      assert.match(message, /Move the files of its folder \.checkpoint-moving up/)
      return 'm'
    }
    assert.equal(await holds(join(output, '.checkpoint-complete')), 1)
    return 'c'
  }
})

describe('publishing a folder', () => {
  const folder = temporaryFolder()

  it('leaves everything as it was when the writer fails', async () => {
    const failing = (staging: string) => {
      writeFileSync(join(staging, 'config.json'), '{}')
      return Promise.reject(new Error('writer'))
    }
    const existing = join(folder(), 'existing')
    writeModel(existing)
    const before = readdirSync(existing)
    await assert.rejects(publish(existing, failing), /writer/)
    assert.deepEqual(readdirSync(existing), before)
    await assert.rejects(publish(join(folder(), 'a/new'), failing), /writer/)
    assert.deepEqual(readdirSync(join(folder(), 'a')), [])
  })

  it('tells errors of the file system with the folder and the remedy', async () => {
    writeFileSync(join(folder(), 'file'), '')
    const write = async (): Promise<void> => {}
    await rejects(
      publish(join(folder(), 'file', 'out'), write),
      'ERR_OUTPUT_NOT_WRITABLE',
      /file\/out could not be written/,
      /choose another output/,
    )
  })
})
