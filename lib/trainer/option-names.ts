/** Names people type: ours, those of later versions, and those of other trainers with ours in their place. */
import { distance } from 'fastest-levenshtein'

/** Known keys that this version cannot honour. Refused, because ignoring them would be a lie. */
export const laterOptions: Record<string, string> = {
  attentionDropout: 'attention probabilities are never dropped; residualDropout drops what attention adds',
  checkpointEvery: 'the final checkpoint is always written to output',
  keepLast: 'the final checkpoint is always written to output',
  keepBest: 'the final checkpoint is always written to output',
  earlyStopping: 'end the run with maxSteps, epochs or an AbortSignal',
  resume: 'start a new run from the last checkpoint with model',
}

/** Names of Transformers, TRL, Axolotl, LLaMA-Factory and others, in lower case without separators. */
const foreign: Record<string, string> = {
  lr: 'learningRate',
  peaklearningrate: 'learningRate',
  numtrainepochs: 'epochs',
  numepochs: 'epochs',
  nepochs: 'epochs',
  epoch: 'epochs',
  numtrainsteps: 'maxSteps',
  steps: 'maxSteps',
  iters: 'maxSteps',
  perdevicetrainbatchsize: 'batchSize (conversations per optimizer step, over all accumulation)',
  trainbatchsize: 'batchSize',
  globalbatchsize: 'batchSize',
  microbatchsize: 'microBatchTokens (tokens at once: memory only) and batchSize (conversations per step)',
  perdeviceevalbatchsize: 'microBatchTokens (tokens at once: memory only)',
  evalbatchsize: 'microBatchTokens (tokens at once: memory only)',
  gradientaccumulationsteps: 'batchSize (conversations per step) and microBatchTokens (tokens at once)',
  maxseqlength: 'maxLength',
  maxseqlen: 'maxLength',
  sequencelen: 'maxLength',
  modelmaxlength: 'maxLength',
  blocksize: 'maxLength',
  cutofflen: 'maxLength',
  contextlength: 'maxLength',
  packing: 'nothing: conversations are always laid end to end and never see each other',
  samplepacking: 'nothing: conversations are always laid end to end and never see each other',
  lrscheduler: 'schedule',
  lrschedulertype: 'schedule',
  scheduler: 'schedule',
  warmup: 'warmupRatio or warmupSteps',
  minlr: 'minLearningRate',
  adambeta1: 'betas',
  adambeta2: 'betas',
  beta1: 'betas',
  beta2: 'betas',
  adamepsilon: 'epsilon',
  eps: 'epsilon',
  adamwbnb8bit: "optimizer: 'adamw-8bit'",
  sgdmomentum: 'momentum',
  wd: 'weightDecay',
  lora: "adapter: { type: 'lora' }",
  peftconfig: "adapter: { type: 'lora' }",
  usepeft: "adapter: { type: 'lora' }",
  r: 'adapter.rank',
  lorar: 'adapter.rank',
  lorarank: 'adapter.rank',
  loraalpha: 'adapter.alpha',
  loradropout: 'adapter.dropout',
  targetmodules: 'adapter.targets',
  loratarget: 'adapter.targets',
  loratargetmodules: 'adapter.targets',
  loratargetlinear: "adapter.targets: 'all-linear'",
  usedora: 'adapter.dora',
  peftusedora: 'adapter.dora',
  userslora: 'adapter.rslora',
  peftuserslora: 'adapter.rslora',
  loraplusratio: 'adapter.loraPlusRatio',
  loraplusrratio: 'adapter.loraPlusRatio',
  loraplusrlrratio: 'adapter.loraPlusRatio',
  loraplusllrratio: 'adapter.loraPlusRatio',
  initloraweights: 'adapter.init',
  qlora: "adapter: { type: 'lora' } with quantization: 'nf4'",
  loadin4bit: "quantization: 'nf4'",
  quantizationconfig: "quantization: 'nf4'",
  bnb4bitquanttype: "quantization: 'nf4'",
  bnb4bitusedoublequant: 'doubleQuantization',
  doublequant: 'doubleQuantization',
  gradclip: 'maxGradNorm',
  gradientclipping: 'maxGradNorm',
  clipgradnorm: 'maxGradNorm',
  optim: 'optimizer',
  recipe: 'preset',
  losstype: 'loss',
  usedftloss: "loss: 'dft'",
  labelsmoothingfactor: 'labelSmoothing',
  neftunenoisealpha: 'neftuneAlpha',
  noisyembeddingalpha: 'neftuneAlpha',
  dropout: 'residualDropout or embeddingDropout',
  hiddendropout: 'residualDropout',
  residpdrop: 'residualDropout',
  embdpdrop: 'embeddingDropout',
  trainablelayers: 'train',
  newspecialtokens: 'addTokens',
  addspecialtokens: 'addTokens',
  addedtokens: 'addTokens',
  specialtokens: 'addTokens',
  tokens: 'addTokens',
  resizetokenembeddings: 'addTokens',
  unfrozenparameters: 'train',
  unfreeze: 'train',
  freezelayers: 'freeze',
  frozen: 'freeze',
  paramgroups: 'parameterGroups',
  bf16: "precision: 'bfloat16'",
  fp16: "precision: 'bfloat16' or 'float32'",
  fp32: "precision: 'float32'",
  dtype: 'precision (compute) or outputDtype (exported weights)',
  torchdtype: 'precision (compute) or outputDtype (exported weights)',
  mixedprecision: 'precision',
  gradientcheckpointing: 'recompute',
  activationcheckpointing: 'recompute',
  usecpu: "device: 'cpu'",
  nocuda: "device: 'cpu'",
  numthreads: 'threads',
  outputdir: 'output',
  outdir: 'output',
  savedir: 'output',
  modelname: 'model',
  modelnameorpath: 'model',
  basemodel: 'model',
  modelpath: 'model',
  trainfile: 'data.train',
  traindata: 'data.train',
  traindataset: 'data.train',
  dataset: 'data.train',
  datasets: 'data.train',
  evalfile: 'data.eval',
  evaldata: 'data.eval',
  evaldataset: 'data.eval',
  validation: 'data.eval',
  validationfile: 'data.eval',
  valsetsize: 'data.evalFraction',
  testsize: 'data.evalFraction',
  evalsteps: 'evalEvery',
  evalstrategy: 'evalEvery',
  evaluationstrategy: 'evalEvery',
  savesteps: 'nothing: the final checkpoint is always written to output',
  savestrategy: 'nothing: the final checkpoint is always written to output',
  loggingsteps: 'nothing: every step is an event and a line of output/metrics.jsonl',
  assistantonlyloss: "trainOn: 'assistant'",
  completiononlyloss: "trainOn: 'last'",
  trainoninputs: "trainOn: 'all'",
  randomseed: 'seed',
  dataseed: 'seed',
  shuffledataset: 'shuffle',
  template: 'chatTemplate',
  weight: 'proportion (of an entry of data.train)',
}

/** What to say about an unknown `key` under `parent` ('' at the top): the name that was probably meant. */
export function suggestion(parent: string, key: string, known: readonly string[]): string | undefined {
  const plain = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, '')
  const path = parent === '' ? key : `${parent}.${key}`
  const own = (paths: readonly string[]) => paths.find((name) => plain(name) === plain(path))
  const last = (name: string) => name.slice(name.lastIndexOf('.') + 1)
  return (
    own(known) ??
    known.find((name) => plain(last(name)) === plain(key)) ??
    foreign[plain(key)] ??
    closest(path, known) ??
    known.find((name) => name === closest(key, known.map(last)) || last(name) === closest(key, known.map(last)))
  )
}

/** The nearest of `names`, if it is near: about a third of the letters may differ. */
export function closest(name: string, names: readonly string[]): string | undefined {
  const lower = name.toLowerCase()
  const ranked = names
    .map((candidate) => ({ candidate, edits: distance(lower, candidate.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits)
  const best = ranked[0]
  return best && best.edits <= Math.floor((best.candidate.length + 1) / 3) ? best.candidate : undefined
}
