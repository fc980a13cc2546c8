/** Loading a checkpoint's parameters into an engine, chunk by chunk; types are converted natively. */
import { TunesmithError, type Warning } from '../errors.ts'
import type { DecoderSpec, NativeEngine } from '../native/addon.ts'
import type { ParameterSource } from './families/family.ts'
import { type Checkpoint, some } from './open.ts'
import { defaultChunkBytes, type StoredTensor, streamTensor, withFile } from './safetensors.ts'
import { elementsOf } from './safetensors-header.ts'
import { groupByTensor, loadTensor } from './tensor-parts.ts'

export interface LoadOptions {
  /** Bytes of one read and one write into the engine, a multiple of 8 [16 MiB]. */
  chunkBytes?: number
  /** Of the engine, where it has room for more tokens than the checkpoint: their rows are left as they are. */
  spec?: DecoderSpec
  signal?: AbortSignal | undefined
  /** Called after every chunk with the bytes loaded so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

/**
 * Loads every parameter into the engine, tied ones once, and commits. Two chunks are in memory at a time, or three where
 * a tensor holds several parameters; tensor-parts.ts says what transposed ones take.
 *
 * @returns warnings about what was found while reading
 * @throws ERR_PARAMETER_MISMATCH where the engine was made for another spec; read errors; the signal's reason
 */
export async function loadParameters(
  checkpoint: Checkpoint,
  engine: Pick<NativeEngine, 'parameters' | 'write' | 'commit'>,
  options: LoadOptions = {},
): Promise<Warning[]> {
  const { chunkBytes = defaultChunkBytes, signal, onProgress } = options
  const sources = checkpoint.family.parameters(checkpoint.spec)
  checkParameters(engine, options.spec ? checkpoint.family.parameters(options.spec) : sources)
  const work = groupByTensor(sources).map((group) => ({
    group,
    tensor: checkpoint.tensors.tensors.get(group.tensor)!,
  }))
  const total = work.reduce((sum, { tensor }) => sum + tensor.end - tensor.begin, 0)
  let done = 0
  const progress = (bytes: number): void => {
    done += bytes
    onProgress?.(done, total)
  }
  const write: NativeEngine['write'] = (...part) => {
    signal?.throwIfAborted()
    return engine.write(...part)
  }
  for (const file of checkpoint.tensors.files) {
    // In the order of the file: sequential reads.
    const inFile = work
      .filter(({ tensor }) => tensor.file === file)
      .sort((a, b) => a.tensor.position - b.tensor.position)
    if (inFile.length === 0) continue
    await withFile(file, async (handle) => {
      for (const { group, tensor } of inFile) await loadTensor(handle, tensor, group, write, chunkBytes, progress)
    })
  }
  await engine.commit()
  return compareTiedHead(checkpoint, chunkBytes)
}

/** A tied model's file may repeat the embedding as its head. Transformers ignores it then; so do we, but not blindly. */
async function compareTiedHead(checkpoint: Checkpoint, chunkBytes: number): Promise<Warning[]> {
  const { family, spec, tensors, folder } = checkpoint
  const head = tensors.tensors.get(family.headTensor)
  const embedding = tensors.tensors.get(family.embeddingTensor)
  if (!spec.tiedEmbeddings || head === undefined || embedding === undefined) return []
  if (await sameBytes(head, embedding, chunkBytes)) return []
  const message =
    `${folder}: tie_word_embeddings is true, but ${family.headTensor} differs from ${family.embeddingTensor}. The head was left aside, ` +
    'as Transformers does. If it was meant, set tie_word_embeddings to false.'
  return [{ code: 'WARN_TIED_HEAD_DIFFERS', message }]
}

async function sameBytes(a: StoredTensor, b: StoredTensor, chunkBytes: number): Promise<boolean> {
  if (a.dtype !== b.dtype || a.elements !== b.elements) return false
  return withFile(a.file, (handleA) =>
    withFile(b.file, async (handleB) => {
      const other = new Uint8Array(Math.min(chunkBytes, b.end - b.begin))
      let same = true
      await streamTensor(handleA, a, chunkBytes, async (bytes, offset) => {
        if (!same) return
        const { bytesRead } = await handleB.read(other, 0, bytes.length, b.position + offset)
        same = Buffer.compare(bytes, other.subarray(0, bytesRead)) === 0
      })
      return same
    }),
  )
}

/** Guards the seam: both sides must list the same parameters in the same sizes. */
function checkParameters(engine: Pick<NativeEngine, 'parameters'>, sources: readonly ParameterSource[]): void {
  const own = engine.parameters().filter(({ name }) => !name.includes('.lora_'))
  const native = new Map(own.map(({ name, shape }) => [name, elementsOf(shape)]))
  const wrong = sources.filter(({ name, shape }) => native.get(name) !== elementsOf(shape)).map(({ name }) => name)
  const known = new Set(sources.map(({ name }) => name))
  wrong.push(...[...native.keys()].filter((name) => !known.has(name)))
  if (wrong.length === 0) return
  throw new TunesmithError('ERR_PARAMETER_MISMATCH', `the engine's parameters are not the checkpoint's: ${some(wrong)}`)
}
