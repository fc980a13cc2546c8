import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { checkOutput, lockOutput } from '../../lib/checkpoint/output.ts'
import { rejects, temporaryFolder, writeModel } from './fixtures.ts'

describe('checking the output', () => {
  const folder = temporaryFolder()

  it('makes the folder and leaves nothing in it', async () => {
    const output = join(folder(), 'a/b')
    await checkOutput(output)
    await checkOutput(output, { bytes: 1 })
    assert.deepEqual(readdirSync(output), [])
  })

  it('refuses a path under a file, a file, and a read-only folder', async () => {
    writeFileSync(join(folder(), 'file'), '')
    const check = (path: string) => checkOutput(join(folder(), path))
    await rejects(check('file/out'), 'ERR_OUTPUT_NOT_WRITABLE', /file\/out cannot be written/, /choose another output/)
    await rejects(check('file'), 'ERR_OUTPUT_NOT_WRITABLE', /file is a file, not a folder/, /choose another output/)
    // Permissions do not bind root; /proc does.
    const locked = process.getuid?.() === 0 ? '/proc/sys' : join(folder(), 'locked')
    if (!existsSync(locked)) mkdirSync(locked)
    if (locked.startsWith(folder())) chmodSync(locked, 0o555)
    await rejects(checkOutput(locked), 'ERR_OUTPUT_NOT_WRITABLE', /cannot be written/)
  })

  it('refuses a folder where the system makes none, and does not look for one for ever', async () => {
    if (existsSync('/proc/self'))
      await rejects(checkOutput('/proc/no/such'), 'ERR_OUTPUT_NOT_WRITABLE', /\/proc\/no\/such cannot be written/)
  })

  it('refuses the folder of the model, also through a link', async () => {
    writeModel(join(folder(), 'model'))
    symlinkSync(join(folder(), 'model'), join(folder(), 'link'))
    const source = join(folder(), 'model')
    for (const path of ['model', 'model/../model', 'link']) {
      await rejects(
        checkOutput(join(folder(), path), { source }),
        'ERR_OUTPUT_IS_SOURCE',
        /overwrite/,
        /Choose another/,
      )
    }
    await checkOutput(join(folder(), 'model/out'), { source })
    assert.deepEqual(readdirSync(source).sort(), ['config.json', 'model.safetensors', 'out'])
  })

  it('refuses a disk without room', async () => {
    await rejects(
      checkOutput(folder(), { bytes: 1e18 }),
      'ERR_OUTPUT_FULL',
      /needs 1000000000000 MB, but its disk has \d+ MB left/,
    )
  })

  it('refuses to replace files that no run has written, and says so of a checkpoint of a run', async () => {
    const output = join(folder(), 'project')
    mkdirSync(output)
    writeFileSync(join(output, 'notes.txt'), '')
    assert.deepEqual(await checkOutput(output), [])
    writeFileSync(join(output, 'config.json'), '{}')
    writeFileSync(join(output, 'model-00001-of-00002.safetensors'), '')
    await rejects(
      checkOutput(output),
      'ERR_OUTPUT_FOREIGN',
      /project holds files .*: config\.json, model-00001-of-00002\.safetensors\. Remove them, or choose another/,
    )
    writeFileSync(join(output, 'metrics.jsonl'), '')
    const [warning] = await checkOutput(output)
    assert.equal(warning?.code, 'WARN_OUTPUT_REPLACED')
    assert.deepEqual(readdirSync(output).length, 4)
  })
})

describe('the lock of the output', () => {
  const folder = temporaryFolder()
  const path = () => join(folder(), '.run-lock')

  it('lets one run in at a time', async () => {
    const unlock = await lockOutput(folder())
    await rejects(lockOutput(folder()), 'ERR_OUTPUT_BUSY', /another run is writing/, /in this process/)
    await unlock()
    await (await lockOutput(folder()))()
    assert.equal(existsSync(path()), false)
  })

  it('is taken over from a process that is gone, not from one that lives or from another machine', async () => {
    const { pid } = spawnSync(process.execPath, ['-e', ''])
    for (const stale of [JSON.stringify({ pid, host: hostname() }), 'half a lo']) {
      writeFileSync(path(), stale)
      await (await lockOutput(folder()))()
    }
    for (const [lock, holder] of [
      [{ pid: process.ppid, host: hostname() }, `process ${process.ppid}`],
      [{ pid, host: 'elsewhere' }, `process ${pid} on elsewhere`],
    ] as const) {
      writeFileSync(path(), JSON.stringify(lock))
      await rejects(lockOutput(folder()), 'ERR_OUTPUT_BUSY', new RegExp(`\\(${holder}\\)`), /remove .*run-lock/)
    }
  })
})
