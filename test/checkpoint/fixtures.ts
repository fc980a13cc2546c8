/** Model folders for tests: a tiny Llama with every optional part, in any type, and files that are wrong on purpose. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../../lib/checkpoint/families/index.ts'
import { TunesmithError } from '../../lib/errors.ts'
import type { StorageType } from '../../lib/native/addon.ts'
import { encode, MemoryEngine } from './memory-engine.ts'

export interface RawTensor {
  dtype: string
  shape: number[]
  bytes: Uint8Array
}

const dtypes = { float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const

/** Untied, with biases, grouped queries and a head_dim of its own. */
export const tinyConfig = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  vocab_size: 17,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: 'silu',
  attention_bias: true,
  mlp_bias: true,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
  torch_dtype: 'float32',
}

export type Config = Record<string, unknown>

/** A folder of its own for each test of a suite, removed after it. */
export function temporaryFolder(): () => string {
  let folder = ''
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tunesmith-'))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))
  return () => folder
}

/** The bytes of a safetensors file, written without the code under test. `edit` may spoil the header. */
export function safetensors(
  tensors: Record<string, RawTensor>,
  edit: (header: Config) => unknown = (header) => header,
): Buffer {
  const header: Config = {}
  let offset = 0
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] }
    offset += bytes.length
  }
  const edited = edit(header)
  const json = Buffer.from(typeof edited === 'string' ? edited : JSON.stringify(edited))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, ...Object.values(tensors).map(({ bytes }) => bytes)])
}

/** A number for each element that tells tensors and places apart and is exact in every storage type. */
export function valueAt(tensor: number, element: number): number {
  return (((tensor * 31 + element * 7) % 255) - 127) / 64
}

/** Tensors of a config under their names in a checkpoint. */
export function tensorsOf(config: Config, type: StorageType): Record<string, RawTensor> {
  const { family, spec } = readConfig(config, 'fixture')
  return Object.fromEntries(
    family.parameters(spec).map(({ tensor, shape }, index) => {
      const count = shape.reduce((a, b) => a * b, 1)
      const values = Float64Array.from({ length: count }, (_, element) => valueAt(index, element))
      return [tensor, { dtype: dtypes[type], shape, bytes: encode(type, values) }]
    }),
  )
}

/** An engine for a config whose parameters hold `valueAt`, moved by `shift`. */
export function engineOf(config: Config, shift = 0): MemoryEngine {
  const { family, spec } = readConfig(config, 'fixture')
  const engine = new MemoryEngine(family.parameters(spec))
  for (const [index, values] of [...engine.values.values()].entries()) {
    for (let element = 0; element < values.length; element++) values[element] = valueAt(index, element) + shift
  }
  return engine
}

export interface FolderOptions {
  type?: StorageType
  /** Split the tensors over this many files. */
  shards?: number
  edit?: (tensors: Record<string, RawTensor>) => void
}

/** Writes a model folder without a tokenizer. */
export function writeModel(folder: string, config: Config = tinyConfig, options: FolderOptions = {}): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  const tensors = tensorsOf(config, options.type ?? 'float32')
  options.edit?.(tensors)
  const shards = options.shards ?? 1
  if (shards === 1) {
    writeFileSync(join(folder, 'model.safetensors'), safetensors(tensors))
    return
  }
  const weightMap: Record<string, string> = {}
  for (let shard = 0; shard < shards; shard++) {
    const name = `model-0000${shard + 1}-of-0000${shards}.safetensors`
    const part = Object.fromEntries(Object.entries(tensors).filter((_, index) => index % shards === shard))
    writeFileSync(join(folder, name), safetensors(part))
    for (const tensor of Object.keys(part)) weightMap[tensor] = name
  }
  const bytes = Object.values(tensors).reduce((sum, tensor) => sum + tensor.bytes.length, 0)
  const index = { metadata: { total_size: bytes }, weight_map: weightMap }
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify(index))
}

/** Writes a tokenizer's files; the code under test copies them and reads a few fields. */
export function writeTokenizer(folder: string, config: Config = {}): void {
  mkdirSync(folder, { recursive: true })
  const added = ['<unk>', '<s>', '</s>', '<pad>'].map((content, id) => ({ id, content, special: true }))
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify({ version: '1.0', added_tokens: added, model: {} }))
  // A number that JSON.parse cannot hold, as real tokenizers have it.
  const text = JSON.stringify({ bos_token: '<s>', eos_token: '</s>', ...config }).slice(0, -1)
  writeFileSync(join(folder, 'tokenizer_config.json'), `${text}, "model_max_length": 1000000000000000019884624838656}`)
  writeFileSync(join(folder, 'special_tokens_map.json'), '{"bos_token": "<s>"}')
}

/** The promise must reject with this code, and the message must match every pattern: what, where, remedy. */
export async function rejects(promise: Promise<unknown>, code: string, ...patterns: RegExp[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof TunesmithError, String(error))
    assert.equal(error.code, code, error.message)
    for (const pattern of patterns) assert.match(error.message, pattern)
    return true
  })
}

/** As `rejects`, of a function that throws. */
export function throws(body: () => unknown, code: string, ...patterns: RegExp[]): void {
  assert.throws(body, (error: unknown) => {
    assert.ok(error instanceof TunesmithError, String(error))
    assert.equal(error.code, code, error.message)
    for (const pattern of patterns) assert.match(error.message, pattern)
    return true
  })
}
