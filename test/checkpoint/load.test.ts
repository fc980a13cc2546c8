import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadParameters } from '../../lib/checkpoint/load.ts'
import { checkVocabulary, describeModel, openCheckpoint } from '../../lib/checkpoint/open.ts'
import type { StorageType } from '../../lib/native/addon.ts'
import { describeShared, shared } from '../shared.ts'
import {
  type Config,
  engineOf,
  rejects,
  safetensors,
  temporaryFolder,
  throws,
  tinyConfig,
  valueAt,
  writeModel,
} from './fixtures.ts'
import { decode, encode, MemoryEngine } from './memory-engine.ts'

const tied: Config = { ...tinyConfig, tie_word_embeddings: true }
const codes = (warnings: { code: string }[]): string[] => warnings.map(({ code }) => code)

describe('opening a checkpoint', () => {
  const folder = temporaryFolder()

  it('describes it without reading a weight', async () => {
    writeModel(folder(), { ...tinyConfig, mystery: 1 }, { type: 'bfloat16' })
    writeFileSync(join(folder(), 'generation_config.json'), '{"temperature": 0.7}')
    const checkpoint = await openCheckpoint(folder())
    assert.equal(checkpoint.folder, folder())
    assert.equal(checkpoint.sourceDtype, 'bfloat16')
    assert.equal(checkpoint.spec.vocabSize, 17)
    assert.equal(checkpoint.config.value.mystery, 1)
    assert.equal(checkpoint.generationConfig?.value.temperature, 0.7)
    assert.deepEqual(codes(checkpoint.warnings), ['WARN_UNKNOWN_CONFIG_FIELD'])
    assert.match(checkpoint.warnings[0]!.message, /config\.json: the field mystery/)
  })

  it('says where the config has dropout', async () => {
    writeModel(folder(), { ...tinyConfig, attention_dropout: 0.1 })
    const { warnings } = await openCheckpoint(folder())
    assert.deepEqual(codes(warnings), ['WARN_NO_DROPOUT'])
    assert.match(warnings[0]!.message, /config\.json: attention_dropout above 0/)
  })

  it('completes the names of a file of the bare model, as Transformers does', async () => {
    writeModel(folder(), tinyConfig, {
      edit: (tensors) => {
        for (const [name, tensor] of Object.entries(tensors)) {
          delete tensors[name]
          tensors[name.replace(/^model\./, '')] = tensor
        }
      },
    })
    const checkpoint = await openCheckpoint(folder())
    assert.deepEqual(checkpoint.warnings, [])
    assert.ok(checkpoint.tensors.tensors.has('model.layers.1.mlp.up_proj.weight'))
    assert.ok(checkpoint.tensors.tensors.has('lm_head.weight'))
  })

  it('takes the type that holds most elements, and warns where others differ', async () => {
    writeModel(folder(), tinyConfig, {
      type: 'float16',
      edit: (tensors) => {
        const norm = tensors['model.norm.weight']!
        tensors['model.norm.weight'] = {
          ...norm,
          dtype: 'F32',
          bytes: encode('float32', decode('float16', norm.bytes)),
        }
      },
    })
    const { sourceDtype, warnings } = await openCheckpoint(folder())
    assert.equal(sourceDtype, 'float16')
    assert.deepEqual(codes(warnings), ['WARN_MIXED_DTYPES'])
    assert.match(warnings[0]!.message, /model\.norm\.weight \(F32\).*saved as F16/)
  })

  it('warns of tensors it has no use for, but not of rotary tables or a repeated tied head', async () => {
    writeModel(folder(), tied, {
      edit: (tensors) => {
        const extra = { dtype: 'F32', shape: [1], bytes: new Uint8Array(4) }
        tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = extra
        tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']!
        tensors['value_head.weight'] = extra
      },
    })
    const { warnings } = await openCheckpoint(folder())
    assert.deepEqual(codes(warnings), ['WARN_UNUSED_TENSORS'])
    assert.match(warnings[0]!.message, /holds value_head\.weight, which/)
  })

  it('names missing tensors', async () => {
    writeModel(folder(), tinyConfig, {
      edit: (tensors) => {
        for (const name of [
          'self_attn.q_proj.weight',
          'self_attn.q_proj.bias',
          'mlp.up_proj.bias',
          'mlp.gate_proj.bias',
        ]) {
          delete tensors[`model.layers.1.${name}`]
        }
      },
    })
    await rejects(
      openCheckpoint(folder()),
      'ERR_TENSOR_MISSING',
      /lacks model\.layers\.1\.self_attn\.q_proj\.weight, .* and 1 more of the 35 tensors/,
    )
  })

  it('says how a missing head may come about', async () => {
    writeModel(folder(), tinyConfig, { edit: (tensors) => delete tensors['lm_head.weight'] })
    await rejects(openCheckpoint(folder()), 'ERR_TENSOR_MISSING', /lacks lm_head\.weight/, /tie_word_embeddings/)
  })

  it('names a tensor of the wrong shape, with both shapes', async () => {
    writeModel(folder())
    writeFileSync(join(folder(), 'config.json'), JSON.stringify({ ...tinyConfig, vocab_size: 18 }))
    await rejects(
      openCheckpoint(folder()),
      'ERR_TENSOR_SHAPE',
      /model\.safetensors: tensor model\.embed_tokens\.weight.*\[17,12\].*\[18,12\]/,
    )
  })

  it('names a tensor whose shape has the right size but other axes', async () => {
    writeModel(folder(), tinyConfig, {
      edit: (tensors) => {
        tensors['model.norm.weight'] = { ...tensors['model.norm.weight']!, shape: [1, 12] }
      },
    })
    await rejects(openCheckpoint(folder()), 'ERR_TENSOR_SHAPE', /model\.norm\.weight.*\[1,12\].*\[12\]/)
  })

  it('names a tensor of a type that parameters cannot have', async () => {
    writeModel(folder(), tinyConfig, {
      edit: (tensors) => {
        tensors['model.norm.weight'] = { dtype: 'I8', shape: [12], bytes: new Uint8Array(12) }
      },
    })
    await rejects(openCheckpoint(folder()), 'ERR_TENSOR_DTYPE', /model\.norm\.weight is I8/, /Dequantise or convert/)
  })

  it('refuses malformed safetensors with the path', async () => {
    writeModel(folder())
    const file = join(folder(), 'model.safetensors')
    writeFileSync(
      file,
      safetensors({ a: { dtype: 'F32', shape: [2], bytes: new Uint8Array(8) } }, () => '{"a": '),
    )
    await rejects(openCheckpoint(folder()), 'ERR_SAFETENSORS_HEADER', /model\.safetensors is not valid JSON/)
    writeFileSync(file, 'no tensors')
    await rejects(openCheckpoint(folder()), 'ERR_SAFETENSORS_HEADER', /model\.safetensors is malformed/)
  })

  it('refuses a folder that is none, and says how models of the hub are named', async () => {
    await rejects(openCheckpoint(join(folder(), 'none')), 'ERR_MODEL_NOT_FOUND', /none does not exist/)
    await rejects(openCheckpoint('some-org/some-model'), 'ERR_MODEL_NOT_FOUND', /A model of the hub is named org\/name/)
    await rejects(openCheckpoint(folder()), 'ERR_MODEL_NOT_FOUND', /has no config\.json/)
    writeFileSync(join(folder(), 'config.json'), '{')
    await rejects(openCheckpoint(folder()), 'ERR_INVALID_CONFIG', /config\.json is not valid JSON/)
  })

  for (const [name, pattern] of [
    ['.checkpoint-partial', /interrupted before it was whole\. Save it again/],
    ['.checkpoint-complete', /whole in its folder \.checkpoint-complete: use that/],
    ['.checkpoint-moving', /Move the files of its folder \.checkpoint-moving up/],
  ] as const) {
    it(`says what to do about an interrupted save that left ${name}`, async () => {
      mkdirSync(join(folder(), name))
      await rejects(openCheckpoint(folder()), 'ERR_CHECKPOINT_INCOMPLETE', pattern)
    })
  }
})

describe('describing a model without weights', () => {
  const folder = temporaryFolder()

  it('takes an object, a file or a folder', async () => {
    const path = join(folder(), 'config.json')
    writeFileSync(path, JSON.stringify({ ...tinyConfig, torch_dtype: 'bfloat16' }))
    for (const config of [{ ...tinyConfig, dtype: 'bfloat16' }, path, folder()]) {
      const model = await describeModel(config)
      assert.deepEqual([model.folder, model.spec.vocabSize, model.sourceDtype], [undefined, 17, 'bfloat16'])
    }
    const { torch_dtype, ...rest } = tinyConfig
    assert.equal((await describeModel(rest)).sourceDtype, 'float32')
  })

  it('names what is wrong with it', async () => {
    await rejects(describeModel({ ...tinyConfig, vocab_size: 0 }), 'ERR_INVALID_CONFIG', /^model\.config: vocab_size/)
    await rejects(describeModel(join(folder(), 'none.json')), 'ERR_MODEL_NOT_FOUND', /none\.json does not exist/)
  })
})

describe('loading parameters', () => {
  const folder = temporaryFolder()

  async function load(chunkBytes?: number): Promise<{ engine: MemoryEngine; warnings: string[]; progress: number[] }> {
    const checkpoint = await openCheckpoint(folder())
    const engine = new MemoryEngine(checkpoint.family.parameters(checkpoint.spec))
    const progress: number[] = []
    const options = {
      onProgress: (done: number, total: number) => progress.push(done / total),
      ...(chunkBytes ? { chunkBytes } : {}),
    }
    return { engine, warnings: codes(await loadParameters(checkpoint, engine, options)), progress }
  }

  function assertLoaded(engine: MemoryEngine): void {
    assert.ok(engine.committed)
    for (const [index, [name, values]] of [...engine.values].entries()) {
      const expected = values.map((_, element) => valueAt(index, element))
      assert.deepEqual(values, expected, name)
    }
  }

  for (const type of ['float64', 'float32', 'bfloat16', 'float16'] satisfies StorageType[]) {
    for (const shards of [1, 3]) {
      it(`puts every value in its place: ${type}, files: ${shards}`, async () => {
        writeModel(folder(), tinyConfig, { type, shards })
        for (const chunkBytes of [undefined, 40]) {
          const { engine, warnings, progress } = await load(chunkBytes)
          assertLoaded(engine)
          assert.deepEqual(warnings, [])
          assert.equal(progress.at(-1), 1)
        }
      })
    }
  }

  it('loads tied weights once, whether the file repeats them or not', async () => {
    writeModel(folder(), tied)
    assertLoaded((await load()).engine)
    writeModel(folder(), tied, {
      edit: (tensors) => {
        tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']!
      },
    })
    const { engine, warnings } = await load(40)
    assertLoaded(engine)
    assert.deepEqual(warnings, [])
  })

  it('warns where a tied head differs from the embedding', async () => {
    writeModel(folder(), tied, {
      edit: (tensors) => {
        const { bytes, ...rest } = tensors['model.embed_tokens.weight']!
        const other = bytes.slice()
        other[other.length - 1]! ^= 1
        tensors['lm_head.weight'] = { ...rest, bytes: other }
      },
    })
    const { engine, warnings } = await load(40)
    assertLoaded(engine)
    assert.deepEqual(warnings, ['WARN_TIED_HEAD_DIFFERS'])
  })

  it('refuses an engine made for another model before it writes', async () => {
    writeModel(folder())
    const engine = engineOf({ ...tinyConfig, intermediate_size: 24 })
    const before = structuredClone([...engine.values])
    await rejects(
      loadParameters(await openCheckpoint(folder()), engine),
      'ERR_PARAMETER_MISMATCH',
      /layers\.0\.mlp\.gate\.weight/,
    )
    assert.deepEqual([...engine.values], before)
  })

  it('stops at the signal', async () => {
    writeModel(folder())
    const checkpoint = await openCheckpoint(folder())
    const abort = new AbortController()
    const engine = engineOf(tinyConfig)
    const onProgress = (): void => abort.abort(new Error('enough'))
    await assert.rejects(loadParameters(checkpoint, engine, { signal: abort.signal, onProgress }), /enough/)
    assert.equal(engine.committed, false)
  })
})

describe('the vocabulary', () => {
  it('must fit the embedding', async () => {
    const { spec } = await describeModel(tinyConfig)
    checkVocabulary(spec, 17)
    checkVocabulary(spec, 5)
    throws(() => checkVocabulary(spec, 18), 'ERR_VOCAB_TOO_SMALL', /ids up to 17/, /17 rows/, /at least 18 rows/)
  })
})

describeShared('stories260K', () => {
  it('opens and loads', async () => {
    const checkpoint = await openCheckpoint(shared('models/stories260K'))
    assert.deepEqual(checkpoint.warnings, [])
    assert.equal(checkpoint.sourceDtype, 'float32')
    const engine = new MemoryEngine(checkpoint.family.parameters(checkpoint.spec))
    assert.deepEqual(await loadParameters(checkpoint, engine), [])
    const count = [...engine.values.values()].reduce((sum, values) => sum + values.length, 0)
    assert.equal(count, 260_032)
    for (const values of engine.values.values()) assert.ok(values.every(Number.isFinite))
  })
})
