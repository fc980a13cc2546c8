// The cases of scripts/python/make_family_golden.py as model folders: weights from the hash, written without the code
// under test.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { RawTensor } from '../checkpoint/fixtures.ts'
import { safetensors } from '../checkpoint/fixtures.ts'
import { type Golden, goldenOf, goldenPath, readTensors } from './golden-file.ts'
import { uniform } from './hashed.ts'

type Json = Record<string, unknown>

export interface FamilyCase extends Golden {
  name: string
  /** config.json as a user's folder has it: fields of any era. */
  configText: string
  config: Json
  /** As Transformers writes it. */
  savedConfig: Json
  /** By the names of the checkpoint, sorted. */
  tensors: Record<string, TensorDescription>
  /** Before each of ten AdamW steps. */
  losses: Float64Array
}

interface TensorDescription {
  shape: number[]
  offset: number
  scale: number
  /** Of the bytes that Transformers wrote. */
  sha256: string
}

export const familyCases = readdirSync(goldenPath('families'))
  .map((file) => file.replace('.safetensors', ''))
  .sort()

export function readFamilyCase(name: string): FamilyCase {
  const { tensors, metadata } = readTensors(goldenPath(`families/${name}.safetensors`))
  const { config: configText, saved_config: savedConfig, tensors: descriptions } = JSON.parse(metadata.case!)
  const config = JSON.parse(configText)
  const losses = tensors.get('losses') as Float64Array
  return { ...goldenOf(tensors), name, configText, config, savedConfig, tensors: descriptions, losses }
}

/** The tensors of a case under their names in a checkpoint, in float32. */
export function tensorsOfCase({ tensors }: FamilyCase): Record<string, RawTensor> {
  const entries = Object.entries(tensors).map(([name, { shape, offset, scale }], index) => {
    const count = shape.reduce((product, size) => product * size, 1)
    const values = Float32Array.from({ length: count }, (_, i) => offset + scale * uniform(1 + index, i))
    return [name, { dtype: 'F32', shape, bytes: new Uint8Array(values.buffer) }] as const
  })
  return Object.fromEntries(entries)
}

/** Writes the case as a model folder; `rename` changes the names of its tensors. */
export function writeCase(folder: string, made: FamilyCase, rename = (name: string): string => name): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'config.json'), made.configText)
  const tensors = Object.entries(tensorsOfCase(made)).map(([name, tensor]) => [rename(name), tensor])
  writeFileSync(join(folder, 'model.safetensors'), safetensors(Object.fromEntries(tensors)))
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
