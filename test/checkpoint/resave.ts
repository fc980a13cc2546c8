/** `resave.ts MODEL OUTPUT [DTYPE MAX_SHARD_BYTES TOKENIZER TEMPLATE]`: a folder through reader and writer, for scripts/python/check_checkpoint.py. */
import { loadParameters } from '../../lib/checkpoint/load.ts'
import { openCheckpoint } from '../../lib/checkpoint/open.ts'
import { saveCheckpoint } from '../../lib/checkpoint/save.ts'
import type { StorageType } from '../../lib/native/addon.ts'
import { MemoryEngine } from './memory-engine.ts'

const [source, output, dtype, maxShardBytes, tokenizer, template] = process.argv.slice(2) as [
  string,
  string,
  ...string[],
]
const model = await openCheckpoint(source)
const engine = new MemoryEngine(model.family.parameters(model.spec))
const warnings = [...model.warnings, ...(await loadParameters(model, engine))]
const { folder } = await saveCheckpoint({
  folder: output,
  model,
  engine,
  dtype: dtype as StorageType | undefined,
  tokenizerFolder: tokenizer ?? source,
  chatTemplate: template,
  stopTokenIds: [2],
  ...(maxShardBytes ? { maxShardBytes: Number(maxShardBytes) } : {}),
})
console.log(folder, warnings)
