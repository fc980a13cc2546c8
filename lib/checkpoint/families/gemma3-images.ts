/** Gemma 3 with images (4B and larger), of which the text model is trained; the parts that see are kept as they are. */
import { isObject } from '../json.ts'
import { ConfigReader } from './config.ts'
import type { FamilyReading, ModelFamily } from './family.ts'
import { gemmaNames } from './gemma2.ts'
import { gemma3 } from './gemma3.ts'
import { listParameters } from './parameters.ts'

export const gemma3Images: ModelFamily = {
  name: 'gemma3',
  architecture: 'Gemma3ForConditionalGeneration',
  headTensor: 'language_model.lm_head.weight',
  embeddingTensor: 'language_model.model.embed_tokens.weight',
  basePrefix: 'language_model.model.',
  derivedTensors: /\.rotary_emb\.inv_freq$/,
  moduleName: (tensor) => tensor.replace(/^language_model\.model\./, 'model.language_model.'),
  carried: /^(vision_tower|multi_modal_projector)\./,
  read,
  parameters: (spec) =>
    listParameters(spec, {
      ...gemmaNames,
      embedding: 'language_model.model.embed_tokens',
      layer: (index) => `language_model.model.layers.${index}`,
      finalNorm: 'language_model.model.norm',
      head: 'language_model.lm_head',
    }),
}

/** Without an image the model is its `text_config`. */
function read(reader: ConfigReader): FamilyReading {
  for (const field of 'vision_config mm_tokens_per_image boi_token_index eoi_token_index image_token_index'.split(
    ' ',
  )) {
    reader.value(field)
  }
  const text = reader.value('text_config')
  if (!isObject(text)) throw reader.invalid('text_config', text, 'an object')
  const inner = new ConfigReader(text, `${reader.where}: text_config`)
  const { spec, unused } = gemma3.read(inner)
  const tied = reader.boolean('tie_word_embeddings', true)
  if (tied !== spec.tiedEmbeddings) {
    throw reader.unsupported('tie_word_embeddings', tied, 'text_config says otherwise.')
  }
  const unknown = [...inner.finish(), ...unused]
  reader.dropout.push(...inner.dropout)
  return { spec, unused: unknown.map((field) => `text_config.${field}`) }
}
