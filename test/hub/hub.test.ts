import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Warning } from '../../lib/errors.ts'
import { fetchDataset } from '../../lib/hub/dataset.ts'
import { type HubEnvironment, hubEnvironment } from '../../lib/hub/environment.ts'
import { localData, localModel } from '../../lib/hub/local.ts'
import { fetchModel } from '../../lib/hub/model.ts'
import { parseHubRef } from '../../lib/hub/ref.ts'
import { failure, temporaryFolder } from '../data/helpers.ts'
import { type FakeHub, fakeHub } from './server.ts'

const COMMIT = '0123456789abcdef0123456789abcdef01234567'
const LATER = '89abcdef0123456789abcdef0123456789abcdef'
const large = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251))

describe('HF_ENDPOINT', () => {
  it('must be an address', () => {
    const saved = process.env.HF_ENDPOINT
    try {
      for (const wrong of ['notaurl', 'ftp://x', '/tmp']) {
        process.env.HF_ENDPOINT = wrong
        assert.throws(hubEnvironment, failure('ERR_HUB_UNREACHABLE', `HF_ENDPOINT is "${wrong}", which is no address`))
      }
      process.env.HF_ENDPOINT = 'http://localhost:1/'
      assert.equal(hubEnvironment().endpoint, 'http://localhost:1')
    } finally {
      if (saved === undefined) delete process.env.HF_ENDPOINT
      else process.env.HF_ENDPOINT = saved
    }
  })
})

describe('hub names', () => {
  it('are told from paths, with revision and path', () => {
    const parse = (text: string, type: 'model' | 'dataset' = 'dataset') => {
      const ref = parseHubRef(text, type)
      return ref && [ref.type, ref.id, ref.revision, ref.path]
    }
    assert.deepEqual(parse('org/name', 'model'), ['model', 'org/name', 'main', undefined])
    assert.deepEqual(parse('org/na-me_1.5@v2'), ['dataset', 'org/na-me_1.5', 'v2', undefined])
    assert.deepEqual(parse('hf://datasets/org/name'), ['dataset', 'org/name', 'main', undefined])
    assert.deepEqual(parse('hf://datasets/org/name@v1/data/*.parquet'), ['dataset', 'org/name', 'v1', 'data/*.parquet'])
    assert.deepEqual(parse('hf://datasets/org/name@refs/convert/parquet/a/b.parquet'), [
      'dataset',
      'org/name',
      'refs/convert/parquet',
      'a/b.parquet',
    ])
    assert.deepEqual(parse('hf://datasets/org/name@refs%2Fpr%2F1'), ['dataset', 'org/name', 'refs/pr/1', undefined])
    assert.deepEqual(parse('hf://org/name@v1', 'model'), ['model', 'org/name', 'v1', undefined])
    assert.deepEqual(parse('hf://models/org/name', 'model'), ['model', 'org/name', 'main', undefined])
    for (const none of ['name', './org/name', 'a/b/c', '/a/b', 'org/na me', 'hf://datasets/org', 'hf://org/name'])
      assert.equal(parse(none), undefined, none)
    assert.equal(parse('hf://datasets/org/name', 'model'), undefined)
  })
})

describe('hub', () => {
  const { path } = temporaryFolder()
  let server: FakeHub
  let hub: HubEnvironment
  let caches = 0
  beforeEach(async () => {
    server = await fakeHub({
      'models/org/tiny': {
        commit: COMMIT,
        files: {
          'README.md': 'A model',
          'config.json': '{}',
          'tokenizer.json': '{"version": "1.0"}',
          'additional_chat_templates/rag.jinja': '{{ x }}',
          'model.safetensors': { content: large, lfs: true },
          'pytorch_model.bin': { content: large.subarray(1), lfs: true },
        },
      },
      'datasets/org/chat': {
        commit: COMMIT,
        files: {
          'data/train-00000.jsonl': '{"text": "a"}\n',
          'data/train-00001.jsonl': '{"text": "b"}\n',
          'data/test-00000.jsonl': '{"text": "c"}\n',
          'other/notes.txt': 'x',
        },
      },
    })
    const cacheFolder = path(`cache-${caches++}`)
    hub = { endpoint: server.endpoint, token: undefined, offline: false, cacheFolder, retryDelay: 1 }
  })
  afterEach(() => server.close())

  const contents = (files: string[]) => Promise.all(files.map((file) => readFile(file, 'utf8')))
  /** Everything under the cache's blobs. */
  const blobs = async (repo: string) => (await readdir(join(hub.cacheFolder, repo, 'blobs')).catch(() => [])).sort()

  it('gives a model as a folder of what is loaded, in the layout of huggingface_hub', async () => {
    const told: [number, number][] = []
    const folder = await fetchModel('org/tiny', { onProgress: (...bytes) => told.push(bytes) }, hub)
    assert.equal(folder, join(hub.cacheFolder, 'models--org--tiny', 'snapshots', COMMIT))
    assert.deepEqual((await readdir(folder)).sort(), [
      'additional_chat_templates',
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ])
    assert.deepEqual(await readFile(join(folder, 'model.safetensors')), large)
    assert.match(await readlink(join(folder, 'additional_chat_templates', 'rag.jinja')), /^\.\.\/\.\.\/\.\.\/blobs\//)
    assert.equal(await readFile(join(hub.cacheFolder, 'models--org--tiny', 'refs', 'main'), 'utf8'), COMMIT)
    assert.deepEqual(told.at(-1), [large.length, large.length])
    assert.equal((await blobs('models--org--tiny')).length, 4)
  })

  it("gives an adapter in PEFT's format, which has no config.json", async () => {
    server.repos['models/org/tiny']!.files = {
      'README.md': 'An adapter',
      'adapter_config.json': '{}',
      'adapter_model.safetensors': { content: large, lfs: true },
      'training_args.bin': 'x',
    }
    const folder = await fetchModel('org/tiny', {}, hub)
    assert.deepEqual((await readdir(folder)).sort(), ['adapter_config.json', 'adapter_model.safetensors'])
    server.repos['models/org/tiny']!.files = { 'adapter_config.json': '{}', 'adapter_model.bin': 'x' }
    await assert.rejects(
      fetchModel('org/tiny', {}, { ...hub, cacheFolder: path('fresh-adapter') }),
      failure('ERR_WEIGHTS_NOT_FOUND', 'an adapter without adapter_model.safetensors'),
    )
  })

  it('gives of a model in shards those that its index names', async () => {
    const index = { weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' } }
    server.repos['models/org/tiny']!.files = {
      'config.json': '{}',
      'model.safetensors.index.json': JSON.stringify(index),
      'model-00001-of-00002.safetensors': { content: large, lfs: true },
      'model-00002-of-00002.safetensors': { content: large.subarray(5), lfs: true },
      'consolidated.safetensors': { content: large.subarray(9), lfs: true },
    }
    const names = await readdir(await fetchModel('hf://org/tiny', {}, hub))
    assert.ok(!names.includes('consolidated.safetensors'))
    assert.equal(names.filter((name) => name.endsWith('.safetensors')).length, 2)
    delete server.repos['models/org/tiny']!.files['model-00002-of-00002.safetensors']
    server.repos['models/org/tiny']!.commit = LATER
    await assert.rejects(fetchModel('org/tiny', {}, hub), failure('ERR_SHARD_MISSING', 'model-00002-of-00002'))
    server.repos['models/org/tiny']!.files = { 'config.json': '{}', 'pytorch_model.bin': 'x' }
    await assert.rejects(
      fetchModel(`org/tiny@${LATER}`, {}, { ...hub, cacheFolder: path('fresh') }),
      failure('ERR_WEIGHTS_NOT_FOUND', 'pytorch_model.bin', 'safetensors'),
    )
  })

  it('gives the files of a dataset by path, by glob, and by split', async () => {
    const fetch = async (name: string, side: 'train' | 'eval' = 'train') =>
      contents(await fetchDataset(name, side, {}, hub))
    const both = ['{"text": "a"}\n', '{"text": "b"}\n']
    assert.deepEqual(await fetch('org/chat'), both)
    assert.deepEqual(await fetch(`org/chat@${COMMIT}`), both)
    assert.deepEqual(await fetch('hf://datasets/org/chat/data/train-*.jsonl'), both)
    assert.deepEqual(await fetch('hf://datasets/org/chat/data/test-00000.jsonl', 'eval'), ['{"text": "c"}\n'])
    await assert.rejects(
      fetch('org/chat', 'eval'),
      failure(
        'ERR_DATA_NOT_FOUND',
        'not clear which files',
        'hf://datasets/org/chat/<path or glob>',
        'data/test-00000.jsonl',
      ),
    )
    await assert.rejects(
      fetch('hf://datasets/org/chat/data/x.jsonl'),
      failure('ERR_DATA_NOT_FOUND', 'no file data/x.jsonl'),
    )
    server.repos['datasets/org/chat']!.files['old/train.csv'] = 'text\na\n'
    server.repos['datasets/org/chat']!.commit = LATER
    await assert.rejects(fetch('org/chat'), failure('ERR_DATA_NOT_FOUND', 'several folders or kinds'))
  })

  it('follows the card of a dataset', async () => {
    const card = (configs: string) => `---\nlicense: mit\nconfigs:\n${configs}---\n# A dataset\n`
    const files = server.repos['datasets/org/chat']!.files
    const read = async (configs: string, commit: string, side: 'train' | 'eval' = 'train') => {
      server.repos['datasets/org/chat'] = { commit, files: { ...files, 'README.md': card(configs) } }
      return contents(await fetchDataset('org/chat', side, {}, hub))
    }
    const splits =
      '- config_name: main\n  data_files:\n  - split: train\n    path: data/train-00001*\n  - split: validation\n    path:\n    - data/test-*\n'
    assert.deepEqual(await read(splits, '1'.repeat(40)), ['{"text": "b"}\n'])
    assert.deepEqual(await read(splits, '1'.repeat(40), 'eval'), ['{"text": "c"}\n'])
    const two = `${splits}- config_name: other\n  data_files: data/train-00000*\n`
    await assert.rejects(read(two, '2'.repeat(40)), failure('ERR_DATA_NOT_FOUND', 'configurations main, other'))
    assert.deepEqual(await read(`${two}  default: true\n`, '3'.repeat(40)), ['{"text": "a"}\n'])
  })

  it('is not asked again for what a commit holds, and works offline from the cache', async () => {
    await fetchDataset('org/chat', 'train', {}, hub)
    server.requests.length = 0
    await fetchDataset('org/chat', 'train', {}, hub)
    assert.deepEqual(server.requests, ['GET /api/datasets/org/chat/revision/main'])
    await fetchDataset(`org/chat@${COMMIT}`, 'train', {}, hub)
    const offline = { ...hub, offline: true }
    assert.equal((await fetchDataset('org/chat', 'train', {}, offline)).length, 2)
    assert.equal(server.requests.length, 1)
    // What was not fetched is not passed over in silence.
    await assert.rejects(
      fetchDataset('hf://datasets/org/chat/data/*.jsonl', 'train', {}, offline),
      failure('ERR_HUB_UNREACHABLE', 'data/test-00000.jsonl of dataset org/chat', hub.cacheFolder),
    )
    await assert.rejects(
      fetchModel('org/tiny', {}, offline),
      failure('ERR_HUB_UNREACHABLE', 'model org/tiny', 'HF_HUB_OFFLINE is set', 'hf download org/tiny'),
    )
  })

  it('uses what huggingface_hub has put into the cache', async () => {
    const snapshot = join(hub.cacheFolder, 'datasets--org--theirs', 'snapshots', COMMIT, 'data')
    await mkdir(snapshot, { recursive: true })
    await mkdir(join(hub.cacheFolder, 'datasets--org--theirs', 'refs'))
    await writeFile(join(hub.cacheFolder, 'datasets--org--theirs', 'refs', 'main'), COMMIT)
    await writeFile(join(snapshot, 'train.jsonl'), '{"text": "t"}\n')
    assert.deepEqual(await contents(await fetchDataset('org/theirs', 'train', {}, { ...hub, offline: true })), [
      '{"text": "t"}\n',
    ])
  })

  it('that does not answer is replaced by the cache with a warning, else named', async () => {
    await fetchDataset('org/chat', 'train', {}, hub)
    await server.close()
    const warnings: Warning[] = []
    const files = await fetchDataset('org/chat', 'train', { onWarning: (warning) => warnings.push(warning) }, hub)
    assert.equal(files.length, 2)
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['WARN_HUB_UNREACHABLE'],
    )
    assert.match(warnings[0]!.message, /dataset org\/chat as it lies in the cache \(commit 01234567\)/)
    await assert.rejects(
      fetchDataset('org/unseen', 'train', {}, hub),
      failure(
        'ERR_HUB_UNREACHABLE',
        'dataset org/unseen',
        hub.endpoint,
        'ECONNREFUSED',
        '--repo-type dataset',
        'HF_ENDPOINT',
      ),
    )
  })

  it('sends the token, and says who may not enter', async () => {
    server.repos['models/org/tiny']!.token = 'hf_right'
    await assert.rejects(
      fetchModel('org/tiny', {}, hub),
      failure('ERR_HUB_ACCESS', 'model org/tiny', '401', 'set HF_TOKEN'),
    )
    await assert.rejects(
      fetchModel('org/tiny', {}, { ...hub, token: 'hf_wrong' }),
      failure('ERR_HUB_ACCESS', 'HF_TOKEN was sent, but does not open it'),
    )
    await assert.rejects(
      fetchModel('org/tiny', {}, { ...hub, token: 'wrong' }),
      failure('ERR_HUB_ACCESS', "start with 'hf_'"),
    )
    await fetchModel('org/tiny', {}, { ...hub, token: 'hf_right' })
    await assert.rejects(
      fetchDataset('org/chat@v9', 'train', {}, hub),
      failure('ERR_HUB_NOT_FOUND', 'dataset org/chat@v9', 'revision'),
    )
  })

  it('that breaks off is asked for the rest', async () => {
    // More often than there are attempts, but each brings something.
    server.busy = { times: 2, only: /cdn/ }
    server.drops = [70_000, 70_000, 70_000, 10, 10, 10, 10]
    const folder = await fetchModel('org/tiny', {}, hub)
    assert.deepEqual(await readFile(join(folder, 'model.safetensors')), large)
    const ranges = server.requests.filter((request) => request.includes('/cdn/') && !request.endsWith('bytes=0-0'))
    const starts = ranges.map((request) => Number(/bytes=(\d+)-299999$/.exec(request)?.[1] ?? 0))
    assert.ok(starts.length >= 7 && starts.at(-1)! >= 200_000, ranges.join('\n'))
    assert.deepEqual(
      starts,
      starts.toSorted((one, other) => one - other),
    )
  })

  it('that keeps breaking off is an error, and the next run goes on where it ended', async () => {
    server.drops = [10_000, ...Array(100).fill(0)]
    await assert.rejects(
      fetchModel('org/tiny', {}, hub),
      failure('ERR_HUB_UNREACHABLE', 'model.safetensors of model org/tiny'),
    )
    const [partial] = (await blobs('models--org--tiny')).filter((name) => name.endsWith('.incomplete'))
    assert.ok(partial)
    await assert.rejects(readFile(join(hub.cacheFolder, 'models--org--tiny', 'snapshots', COMMIT, 'model.safetensors')))
    // As if it was left by a process that has ended since.
    const folder = join(hub.cacheFolder, 'models--org--tiny', 'blobs')
    const held = (await readFile(join(folder, partial))).length
    assert.ok(held > 0)
    await writeFile(join(folder, partial.replace(`.${process.pid}-`, '.4194305-')), large.subarray(0, 200_000))
    server.drops = []
    server.requests.length = 0
    const model = await fetchModel('org/tiny', {}, hub)
    assert.deepEqual(await readFile(join(model, 'model.safetensors')), large)
    assert.ok(
      server.requests.some((request) => request.endsWith('bytes=200000-299999')),
      server.requests.join('\n'),
    )
    assert.deepEqual(
      (await blobs('models--org--tiny')).filter((name) => name.includes(hostname()) && name.endsWith('.incomplete')),
      [],
    )
  })

  it('that gives another content than it lists is refused, and nothing is kept', async () => {
    const wrong: [string, (content: Buffer) => Buffer][] = [
      ['shorter', (content) => content.subarray(0, -1)],
      ['longer', (content) => Buffer.concat([content, Buffer.from('x')])],
      ['changed', (content) => Buffer.from(content).fill(0, 3, 5)],
    ]
    for (const [what, tamper] of wrong) {
      server.tamper = tamper
      hub.cacheFolder = path(`wrong-${what}`)
      await assert.rejects(
        fetchDataset('org/chat', 'train', {}, hub),
        failure('ERR_HUB_DOWNLOAD', 'data/train-00000.jsonl', 'differs from what the repository lists'),
      )
      assert.deepEqual(await blobs('datasets--org--chat'), [], what)
    }
    server.tamper = (content) => content
    assert.equal((await fetchDataset('org/chat', 'train', {}, hub)).length, 2)
  })

  it('does not use a partial file of the cache, whoever left it', async () => {
    const [first] = await fetchDataset('org/chat', 'train', {}, hub)
    await writeFile(first!, '{"te')
    assert.deepEqual(await contents(await fetchDataset('org/chat', 'train', {}, hub)), [
      '{"text": "a"}\n',
      '{"text": "b"}\n',
    ])
  })

  it('that is busy is asked again', async () => {
    server.busy = { times: 2, only: /./ }
    assert.equal((await fetchDataset('org/chat', 'train', {}, hub)).length, 2)
    server.busy.times = 100
    await assert.rejects(
      fetchDataset('org/chat', 'train', {}, { ...hub, cacheFolder: path('busy') }),
      failure('ERR_HUB_DOWNLOAD', 'answered 503 for dataset org/chat'),
    )
  })

  it('that lists a path out of its folder is refused', async () => {
    server.repos['datasets/org/chat']!.files['../../escape.jsonl'] = 'x'
    await assert.rejects(
      fetchDataset('org/chat', 'train', {}, hub),
      failure('ERR_HUB_DOWNLOAD', '"../../escape.jsonl"'),
    )
  })

  it('stops when the signal says so', async () => {
    server.drops = Array(100).fill(0)
    const reason = new Error('enough')
    const signal = AbortSignal.timeout(30)
    await assert.rejects(fetchModel('org/tiny', { signal }, { ...hub, retryDelay: 10_000 }), { name: 'TimeoutError' })
    await assert.rejects(fetchModel('org/tiny', { signal: AbortSignal.abort(reason) }, hub), reason)
    // In the pause before another attempt, too.
    server.busy = { times: 100, only: /./ }
    const waiting = AbortSignal.timeout(100)
    await assert.rejects(
      fetchDataset('org/chat', 'train', { signal: waiting }, { ...hub, retryDelay: 60_000 }),
      (error) => error === waiting.reason,
    )
  })

  it('comes after local paths, and both failures are told', async () => {
    await mkdir(path('org/tiny'), { recursive: true })
    assert.equal(await localModel(path('org/tiny'), {}, hub), path('org/tiny'))
    assert.equal(await localModel('lib/hub', {}, hub), 'lib/hub')
    assert.equal(server.requests.length, 0)
    assert.match(await localModel('org/tiny', {}, hub), /snapshots/)
    await assert.rejects(
      localModel('org/none', {}, hub),
      failure('ERR_HUB_ACCESS', 'There is no folder org/none here, and as a name of the hub'),
    )
    const entries = await localData(
      [
        { path: path('a.jsonl'), format: 'auto' },
        { path: 'org/chat', format: 'text', proportion: 2 },
      ],
      'train',
      {},
      hub,
    )
    assert.deepEqual(entries[0], { path: path('a.jsonl'), format: 'auto' })
    assert.deepEqual([entries[1]!.path, entries[1]!.proportion, entries[1]!.files!.length], ['org/chat', 2, 2])
    await assert.rejects(
      localData([{ path: 'hf://datasets/org', format: 'auto' }], 'train', {}, hub),
      failure('ERR_HUB_NOT_FOUND', 'names no dataset'),
    )
  })
})
