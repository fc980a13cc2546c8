export { type Completion, type GenerateOptions, type LoadModelOptions, loadModel, Model } from './model.ts'
export type { SamplingOptions } from './sampling.ts'
