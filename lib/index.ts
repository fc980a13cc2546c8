/** Tunesmith: supervised fine-tuning of causal language models. */
export type { DataCounts, DroppedRows } from './batch/prepared.ts'
export { exportGguf, type GgufOptions, type GgufResult } from './checkpoint/gguf/export.ts'
export type { Conversation, Message, Role, ToolCall } from './data/conversation.ts'
export { TunesmithError, type Warning } from './errors.ts'
export {
  type Completion,
  type GenerateOptions,
  type LoadModelOptions,
  loadModel,
  Model,
  type Prompt,
  type SamplingOptions,
} from './generate/index.ts'
export type { BackendStatus, MemoryPlan } from './native/addon.ts'
export { type LogProbOptions, type LogProbResult, logProbabilities } from './preference/logprobs.ts'
export type { PairLogProbs } from './preference/score.ts'
export { htmlPreview } from './preview/html.ts'
export { jsonPreview } from './preview/json.ts'
export type { Preview, PreviewExample, PreviewToken, RoleTotal } from './preview/preview.ts'
export { type TerminalOptions, terminalPreview } from './preview/terminal.ts'
export type {
  CheckpointEvent,
  EvalEvent,
  FitResult,
  PrepareEvent,
  SampleEvent,
  StartEvent,
  StepEvent,
  TrainerEvents,
  TrainingPlan,
} from './trainer/events.ts'
export type {
  DataFile,
  DataFormat,
  DataOptions,
  RandomModel,
  ResolvedOptions,
  SampleOptions,
  TrainerOptions,
} from './trainer/options.ts'
export { type FitOptions, Trainer } from './trainer/trainer.ts'
