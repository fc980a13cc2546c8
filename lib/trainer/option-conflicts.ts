/** Options that are right each on its own and wrong together. An option without an effect is refused, not ignored. */

import { withoutEffect } from '../generate/sampling-options.ts'
import type { Problem } from './option-errors.ts'
import { closest } from './option-names.ts'
import { isRecord, isTemplateFile, templateNames } from './option-paths.ts'

/** An option of the optimizer, and the optimizers that do not have it. */
const notOf: [string, ...string[]][] = [
  ['betas', 'sgd', 'adafactor'],
  ['epsilon', 'sgd', 'adafactor', 'lion'],
  ['momentum', 'adamw', 'adamw-8bit', 'adafactor', 'lion'],
]

/** Problems between the values of `input`; whatever the schema finds is left to it. */
export function conflicts(input: unknown): Problem[] {
  if (!isRecord(input)) return []
  const data = isRecord(input.data) ? input.data : {}
  const given = (path: string) => valueAt(path) !== undefined
  const valueAt = (path: string) => (path.startsWith('data.') ? data[path.slice('data.'.length)] : input[path])
  const problems: Problem[] = []
  const refuse = (path: string, message: string) => problems.push({ kind: 'invalid', path, message })

  const exclusive: [string, string, string][] = [
    ['batchSize', 'batchTokens', 'a step is filled to a number of conversations or of tokens'],
    ['warmupRatio', 'warmupSteps', 'warmup is a share of the steps or a number of them'],
    ['data.eval', 'data.evalFraction', 'evaluation reads its own file or a share of the training data'],
  ]
  for (const [first, second, why] of exclusive)
    if (given(first) && given(second)) refuse(second, `excludes ${first} (${why}): give one of them`)

  const optimizer = typeof input.optimizer === 'string' ? input.optimizer : 'adamw'
  for (const [path, ...without] of notOf)
    if (without.includes(optimizer) && given(path))
      refuse(path, `has no effect with optimizer '${optimizer}': remove it`)
  if (input.schedule === 'constant' && given('minLearningRate'))
    refuse('minLearningRate', "has no effect with schedule 'constant': remove it")
  if (input.trainOn === 'all' && given('promptLossWeight'))
    refuse('promptLossWeight', "has no effect with trainOn 'all', where every token carries loss: remove it")
  if (given('evalEvery') && !given('data.eval') && !given('data.evalFraction'))
    refuse('evalEvery', 'has no effect without evaluation data: give data.eval or data.evalFraction')

  for (const [index, entry] of [data.eval ?? []].flat().entries())
    if (isRecord(entry) && entry.proportion !== undefined) {
      const path = Array.isArray(data.eval) ? `data.eval[${index}].proportion` : 'data.eval.proportion'
      refuse(path, 'has no effect: evaluation reads every row once; remove it')
    }

  if (isRecord(input.adapter)) {
    for (const path of ['train', 'freeze', 'parameterGroups'])
      if (given(path)) refuse(path, 'excludes adapter, beside which nothing trains: give one of them')
    if (given('outputDtype')) refuse('outputDtype', 'has no effect with adapter, which is saved in float32: remove it')
    if (input.adapter.init === 'pissa' && input.adapter.dora === true)
      refuse('adapter.init', "'pissa' excludes adapter.dora: give one of them")
    if (input.adapter.init === 'pissa' && given('quantization'))
      refuse('adapter.init', "'pissa' excludes quantization: it takes from the weights what the adapter starts with")
  }
  if (given('doubleQuantization') && !given('quantization'))
    refuse('doubleQuantization', "has no effect without quantization: add quantization: 'nf4', or remove it")
  const tokens = [input.addTokens ?? []].flat()
  if (new Set(tokens).size < tokens.length) refuse('addTokens', 'has the same token twice')
  if (!given('addTokens') && [input.train].flat().includes('new-tokens'))
    refuse('train', "names 'new-tokens', but there are none: give addTokens")
  if (given('addTokens') && given('adapter'))
    refuse('addTokens', 'excludes adapter, which has no rows for new tokens: add them in a run of their own first')
  for (const path of ['labelSmoothing', 'zLoss'])
    if (input.loss === 'dft' && given(path)) refuse(path, "excludes loss 'dft': give one of them")
  if (typeof input.train === 'string' && /\.(jsonl?|csv|parquet|gz|zst)$/.test(input.train))
    refuse('train', 'selects tensors by pattern; the training data is data.train')
  if (isRecord(input.samples)) problems.push(...withoutEffect(input.samples, 'samples.'))
  const { learningRate = 2e-5, minLearningRate, chatTemplate } = input
  if (typeof learningRate === 'number' && typeof minLearningRate === 'number' && minLearningRate > learningRate)
    refuse('minLearningRate', `is ${minLearningRate}, above learningRate (${learningRate})`)
  if (typeof chatTemplate === 'string' && chatTemplate.trim() !== '')
    if (!isTemplateFile(chatTemplate) && !templateNames.includes(chatTemplate)) {
      const hint = closest(chatTemplate, templateNames)
      const names = "it is 'model', 'chatml', 'plain' or the path of a Jinja file (with a '/' or an extension)"
      refuse('chatTemplate', `knows no '${chatTemplate}'${hint ? `; did you mean '${hint}'?` : ''}: ${names}`)
    }
  return problems
}
