// Fused, interleaved and transposed tensors: every element in its place, whatever the chunks and the type are.
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigReader } from '../../lib/checkpoint/families/config.ts'
import type { ModelFamily } from '../../lib/checkpoint/families/family.ts'
import { gptNeox } from '../../lib/checkpoint/families/gpt-neox.ts'
import { gpt2 } from '../../lib/checkpoint/families/gpt2.ts'
import { phi3 } from '../../lib/checkpoint/families/phi3.ts'
import { openTensors, withFile } from '../../lib/checkpoint/safetensors.ts'
import { writeTensors } from '../../lib/checkpoint/safetensors-writer.ts'
import { groupByTensor, loadTensor, type TensorGroup, tensorReader } from '../../lib/checkpoint/tensor-parts.ts'
import type { DecoderSpec, StorageType } from '../../lib/native/addon.ts'
import { type Config, safetensors, temporaryFolder, valueAt } from './fixtures.ts'
import { encode, MemoryEngine } from './memory-engine.ts'

const H = 12
const D = 4
const heads = 3

/** Where element [row][column] of a native matrix lies in its tensor, said once more and differently. */
type Place = [tensor: string, at: (row: number, column: number) => number]

const llamaSizes: Config = {
  ...{ vocab_size: 7, hidden_size: H, num_hidden_layers: 1, num_attention_heads: heads, intermediate_size: 10 },
  ...{ max_position_embeddings: 16 },
}
const phiLayer = 'model.layers.0'
const neoxLayer = 'gpt_neox.layers.0'
const gptLayer = 'transformer.h.0'

const cases: { family: ModelFamily; config: Config; places: Record<string, Place> }[] = [
  {
    family: phi3,
    config: { ...llamaSizes, num_key_value_heads: 1 },
    places: {
      'attention.q.weight': [`${phiLayer}.self_attn.qkv_proj.weight`, (row, column) => row * H + column],
      'attention.k.weight': [`${phiLayer}.self_attn.qkv_proj.weight`, (row, column) => (12 + row) * H + column],
      'attention.v.weight': [`${phiLayer}.self_attn.qkv_proj.weight`, (row, column) => (16 + row) * H + column],
      'attention.o.weight': [`${phiLayer}.self_attn.o_proj.weight`, (row, column) => row * H + column],
      'mlp.gate.weight': [`${phiLayer}.mlp.gate_up_proj.weight`, (row, column) => row * H + column],
      'mlp.up.weight': [`${phiLayer}.mlp.gate_up_proj.weight`, (row, column) => (10 + row) * H + column],
    },
  },
  {
    family: gptNeox,
    config: { ...llamaSizes, rotary_pct: 0.5 },
    places: Object.fromEntries(
      ['q', 'k', 'v'].flatMap((kind, index) => {
        // view(heads, 3, head_dim) of the rows
        const rowOf = (row: number): number => (Math.floor(row / D) * 3 + index) * D + (row % D)
        return [
          [`attention.${kind}.weight`, [`${neoxLayer}.attention.query_key_value.weight`, (r, c) => rowOf(r) * H + c]],
          [`attention.${kind}.bias`, [`${neoxLayer}.attention.query_key_value.bias`, (r) => rowOf(r)]],
        ] satisfies [string, Place][]
      }),
    ),
  },
  {
    family: gpt2,
    config: { vocab_size: 7, n_embd: H, n_layer: 1, n_head: heads, n_inner: 10, n_positions: 16 },
    places: {
      'attention.q.weight': [`${gptLayer}.attn.c_attn.weight`, (row, column) => column * 36 + row],
      'attention.k.weight': [`${gptLayer}.attn.c_attn.weight`, (row, column) => column * 36 + 12 + row],
      'attention.v.weight': [`${gptLayer}.attn.c_attn.weight`, (row, column) => column * 36 + 24 + row],
      'attention.v.bias': [`${gptLayer}.attn.c_attn.bias`, (row) => 24 + row],
      'attention.o.weight': [`${gptLayer}.attn.c_proj.weight`, (row, column) => column * H + row],
      'mlp.up.weight': [`${gptLayer}.mlp.c_fc.weight`, (row, column) => column * 10 + row],
      'mlp.down.weight': [`${gptLayer}.mlp.c_proj.weight`, (row, column) => column * H + row],
      'mlp.down.bias': [`${gptLayer}.mlp.c_proj.bias`, (row) => row],
    },
  },
]

const dtypes = { float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const

describe('parameters inside tensors', () => {
  const folder = temporaryFolder()

  /** A folder whose tensor i holds valueAt(i, element). */
  function writeGroups(groups: readonly TensorGroup[], type: StorageType): void {
    const tensors = groups.map(({ tensor, shape }, index) => {
      const values = Float64Array.from({ length: product(shape) }, (_, element) => valueAt(index, element))
      return [tensor, { dtype: dtypes[type], shape, bytes: encode(type, values) }] as const
    })
    writeFileSync(join(folder(), 'model.safetensors'), safetensors(Object.fromEntries(tensors)))
  }

  async function load(groups: readonly TensorGroup[], chunkBytes: number): Promise<MemoryEngine> {
    const engine = new MemoryEngine(groups.flatMap(({ sources }) => sources))
    const { tensors, files } = await openTensors(folder())
    await withFile(files[0]!, async (handle) => {
      for (const group of groups) {
        const stored = tensors.get(group.tensor)!
        let done = 0
        const progress = (bytes: number): void => {
          done += bytes
        }
        await loadTensor(handle, stored, group, (...part) => engine.write(...part), chunkBytes, progress)
        assert.equal(done, stored.end - stored.begin, group.tensor)
      }
    })
    return engine
  }

  for (const { family, config, places } of cases) {
    const { spec } = family.read(new ConfigReader(config, 'config.json'))
    const sources = family.parameters(spec)
    const groups = groupByTensor(sources)

    it(`${family.name}: every element of a tensor belongs to one parameter`, () => {
      for (const { shape, sources: parts } of groups) {
        assert.equal(
          parts.reduce((sum, part) => sum + product(part.shape), 0),
          product(shape),
        )
      }
      assert.equal(new Set(sources.map(({ name }) => name)).size, sources.length)
      assert.equal(
        sources.reduce((sum, { shape }) => sum + product(shape), 0),
        parameterCount(spec),
      )
    })

    for (const type of ['float32', 'bfloat16', 'float64'] satisfies StorageType[]) {
      it(`${family.name}: read and written again, ${type}`, async () => {
        writeGroups(groups, type)
        const original = readFileSync(join(folder(), 'model.safetensors'))
        // From less than a row to more than any tensor.
        for (const chunkBytes of [8, 104, 400, 1 << 20]) {
          const engine = await load(groups, chunkBytes)
          for (const [name, [tensor, at]] of Object.entries(places)) {
            const values = engine.values.get(`layers.0.${name}`)!
            const { shape } = sources.find((source) => source.name === `layers.0.${name}`)!
            const columns = shape[1] ?? 1
            const index = groups.findIndex((group) => group.tensor === tensor)
            for (const [element, value] of values.entries()) {
              const place = at(Math.floor(element / columns), element % columns)
              assert.equal(value, valueAt(index, place), `${name}[${element}], chunks of ${chunkBytes}`)
            }
          }
          const written = join(folder(), String(chunkBytes))
          mkdirSync(written)
          const tensors = groups.map((group) => ({
            ...{ name: group.tensor, type, shape: group.shape },
            ...tensorReader(group, type, (...part) => engine.read(...part), chunkBytes),
          }))
          await writeTensors(written, tensors, { chunkBytes })
          assert.deepEqual(dataOf(readFileSync(join(written, 'model.safetensors'))), dataOf(original))
        }
      })
    }
  }
})

function dataOf(file: Buffer): Buffer {
  return file.subarray(8 + Number(file.readBigUInt64LE(0)))
}

function product(shape: readonly number[]): number {
  return shape.reduce((result, size) => result * size, 1)
}

/** Counted from the spec: embeddings, norms with their biases, projections with theirs. */
function parameterCount(spec: DecoderSpec): number {
  const { hiddenSize, intermediateSize, vocabSize } = spec
  const [q, kv] = [spec.heads * spec.headDim, spec.kvHeads * spec.headDim]
  const norm = hiddenSize * (spec.normBias ? 2 : 1)
  const bias = (size: number, has: boolean): number => (has ? size : 0)
  const attention = 2 * hiddenSize * (q + kv) + bias(q + 2 * kv, spec.attentionBias)
  const mlp = spec.mlp === 'gated' ? 3 : 2
  const mlpBias = bias(hiddenSize + (mlp - 1) * intermediateSize, spec.mlpBias)
  const layer =
    attention + bias(hiddenSize, spec.attentionOutputBias) + mlp * hiddenSize * intermediateSize + mlpBias + 2 * norm
  const tables = spec.learnedPositions + vocabSize * (spec.tiedEmbeddings ? 1 : 2)
  return spec.layers * layer + tables * hiddenSize + norm
}
