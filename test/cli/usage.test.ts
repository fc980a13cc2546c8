import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { advice } from '../../lib/cli/doctor.ts'
import type { BackendName } from '../../lib/native/addon.ts'
import { tunesmith, tunesmithHere } from './spawn.ts'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))

describe('the command line', () => {
  let folder: string

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
  })
  after(() => rmSync(folder, { recursive: true }))

  let files = 0
  const config = (content: unknown, extension = 'json') => {
    const path = join(folder, `config${files++}.${extension}`)
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
    return path
  }

  it('helps, and tells its version', async () => {
    const help = await tunesmithHere(['--help'])
    assert.equal(help.code, 0)
    for (const command of ['train', 'plan', 'preview', 'generate', 'chat', 'logprobs', 'doctor'])
      assert.match(help.stdout, new RegExp(`^  ${command} `, 'm'))
    assert.deepEqual(await tunesmithHere(['--version']), { code: 0, stdout: `${version}\n`, stderr: '' })
    for (const command of ['train', 'plan', 'preview', 'generate', 'chat', 'logprobs', 'doctor']) {
      const { code, stdout } = await tunesmithHere([command, '--help'])
      assert.equal(code, 0)
      assert.match(stdout, new RegExp(`^usage: tunesmith ${command} `))
    }
  })

  it('refuses what it does not understand with exit code 2 and a pointer to help', async () => {
    const cases: [string[], RegExp][] = [
      [[], /^error: a command is missing \[ERR_USAGE\]\nSee tunesmith --help\n$/],
      [['trian'], /^error: no command 'trian'; did you mean 'train'\?/],
      [['toString'], /^error: no command 'toString'/],
      [['train'], /^error: CONFIG is missing \[ERR_USAGE\]\nSee tunesmith train --help\n$/],
      [['train', 'a.json', 'b.json'], /^error: one CONFIG is expected, found also 'b\.json'/],
      [['train', 'a.json', '--jsn'], /^error: Unknown option '--jsn'/],
      [['generate', 'checkpoint'], /^error: --prompt is missing/],
      [['generate', 'checkpoint', '--prompt', 'x', '--top-p', '2'], /^error: --top-p does not take '2'/],
      [
        ['generate', 'checkpoint', '--prompt', 'x', '--temperature', 'hot'],
        /^error: --temperature does not take 'hot'/,
      ],
      [
        ['generate', 'checkpoint', '--prompt', 'x', '--device', 'gpu'],
        /^error: --device must be auto, cpu, cuda, reference/,
      ],
      [['generate', 'checkpoint', '--prompt', 'x', '--raw', '--system', 's'], /^error: --system needs a chat template/],
      [['generate', 'checkpoint', '--prompt', 'x', '--top-k', '5'], /^error: --top-k needs a --temperature above 0/],
      [['generate', 'checkpoint', '--prompt', 'x', '--stop', ''], /^error: --stop does not take ''/],
      [
        ['generate', 'checkpoint', '--prompt', 'x', '--tools', 'none.json'],
        /^error: --tools: none\.json is no JSON file/,
      ],
      [['train', config({}), '--set', 'epochs'], /^error: --set takes key=value .* found 'epochs'/],
      [['train', config({}), '--set', 'betas=[0.9'], /^error: --set betas: the value is not valid YAML/],
    ]
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await tunesmithHere(args)
      assert.equal(code, 2, args.join(' '))
      assert.equal(stdout, '')
      assert.match(stderr, message)
    }
  })

  it('tells what is wrong with a configuration file in one message, without a stack', async () => {
    const least = { model: 'm', output: 'o', data: { train: 't.jsonl' } }
    const cases: [string, RegExp][] = [
      [join(folder, 'none.json'), /^error: configuration file .*none\.json does not exist \[ERR_CONFIG_READ\]\n$/],
      [folder, /^error: configuration file .* is a folder \[ERR_CONFIG_READ\]\n$/],
      [config('{"model": "m",}'), /^error: .*config\d+\.json is not valid JSON: .* \[ERR_CONFIG_READ\]\n$/],
      [
        config('{"model": "m", "model": "n"}'),
        /^error: .*config\d+\.json:1:16: Map keys must be unique \[ERR_CONFIG_READ\]\n$/,
      ],
      [config('a: b: c', 'yaml'), /^error: .*\.yaml:1:4: Nested mappings .* \[ERR_CONFIG_READ\]\n$/],
      [config('[]'), /^error: .* must hold an object with the keys model, output and data \[ERR_CONFIG_READ\]\n$/],
      [
        config({ ...least, learning_rate: 1 }),
        /^error: option learning_rate is unknown; did you mean learningRate\? \[ERR_UNKNOWN_OPTION\]\n$/,
      ],
      [
        config({ ...least, epochs: '3' }),
        /^error: option epochs must be a number above 0; found the text "3" \[ERR_INVALID_OPTION\]\n$/,
      ],
    ]
    for (const command of ['train', 'plan'])
      for (const [path, message] of cases) {
        const { code, stdout, stderr } = await tunesmithHere([command, path])
        assert.equal(code, 1, stderr)
        assert.equal(stdout, '')
        assert.match(stderr, message)
      }
  })

  it('ends its process with its exit code, and prints the stack of an error when asked to', async () => {
    const { code, stdout, stderr } = await tunesmith(['train', join(folder, 'none.json')], {
      env: { TUNESMITH_DEBUG: '1' },
    })
    assert.equal(code, 1)
    assert.equal(stdout, '')
    assert.match(stderr, /^error: configuration file .* \[ERR_CONFIG_READ\]\n/)
    assert.match(stderr, /\n {4}at /)
    assert.match(stderr, /ENOENT/)
  })

  it('has errors among the events with --json', async () => {
    const { code, stdout } = await tunesmithHere(['train', config({ modle: 'm' }), '--json'])
    assert.equal(code, 1)
    const event = JSON.parse(stdout)
    assert.equal(event.event, 'error')
    assert.equal(event.code, 'ERR_UNKNOWN_OPTION')
    assert.match(event.message, /option modle is unknown; did you mean model\?/)
  })
})

describe('tunesmith doctor', () => {
  it('tells versions, machine and backends', async () => {
    const { code, stdout, stderr } = await tunesmithHere(['doctor'])
    assert.equal(stderr, '')
    assert.equal(code, 0)
    assert.match(stdout, new RegExp(`^  tunesmith +${version.replaceAll('.', '\\.')}$`, 'm'))
    assert.match(stdout, new RegExp(`^  Node +${process.version.replaceAll('.', '\\.')}$`, 'm'))
    assert.match(stdout, /^ {2}reference +plain C\+\+/m)
  })

  it('says what to do about a backend that is missing', () => {
    const missing = (name: BackendName, reason: string) => advice({ name, available: false, reason })
    assert.match(missing('cpu', 'the cpu backend is not installed: no /x.so'), /npm run setup/)
    assert.match(missing('cpu', 'does not load: libdnnl.so.2: cannot open shared object file'), /apt install libdnnl2/)
    assert.match(missing('cuda', 'the cuda backend is not installed'), /runs use the CPU/)
    assert.match(missing('cuda', 'no NVIDIA driver (libcuda.so.1) is installed'), /install its driver/)
    assert.match(missing('cuda', 'the cuda backend needs cuBLAS of CUDA 13'), /pip install nvidia-cublas/)
    assert.match(missing('cpu', 'interface version 3, not 4'), /rebuild/)
  })

  it('says the same in JSON', async () => {
    const { stdout } = await tunesmithHere(['doctor', '--json'])
    const found = JSON.parse(stdout)
    assert.equal(found.node, process.version)
    const names = found.backends.map((backend: { name: string }) => backend.name)
    assert.deepEqual(names.sort(), ['cpu', 'cuda', 'reference'])
    for (const backend of found.backends)
      if (!backend.available) assert.ok(backend.reason && backend.advice, backend.name)
  })
})
