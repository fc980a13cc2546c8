/** `tunesmith logprobs CHECKPOINT PAIRS --output FILE` */
import { type Command, exitCode, readArguments, type Streams, usage } from './command.ts'
import { count, percent, plural } from './format.ts'
import { loadArguments, loadOptions, optionalNumber } from './generation-arguments.ts'
import { warningLine } from './progress-lines.ts'

const help = `usage: tunesmith logprobs CHECKPOINT PAIRS... --output FILE [options]

Log-probabilities of the chosen and the rejected answer of each pair under a model, prompt tokens not counted: the
reference columns of TRL's DPOTrainer, with its boundary between prompt and answer.

  CHECKPOINT            Hugging Face folder
  PAIRS                 JSONL, JSON, CSV or Parquet with "chosen" and "rejected", texts or lists of messages, and
                        "prompt", or a beginning in common; several files, or a glob, are read one after the other
  --output FILE         .jsonl or .parquet: the rows, with ref_chosen_logps, ref_rejected_logps, ref_chosen_per_token_logps and
                        ref_rejected_per_token_logps; written whole or not at all
  --overwrite           replaces FILE
  --max-length N        cuts prompt and answer after N tokens, as TRL's max_length (default 1024 there) does; without
                        it, what is longer than the model's context is an error
  --device NAME         auto, cpu, cuda or reference (default auto)
  --precision TYPE      auto, float32 or bfloat16 (default float32)
  --threads N           default: every core
  --micro-batch-tokens N  tokens at once: memory only (default 8192)
  --chat-template NAME  another than the model's own: a built-in one, or the path of a Jinja file
  --json                the summary as one JSON object
`

async function run(args: string[], { stdout, stderr }: Streams): Promise<number> {
  const { 'max-context': _, ...where } = loadArguments
  const { values, positionals } = readArguments(args, {
    output: { type: 'string' },
    overwrite: { type: 'boolean', default: false },
    'max-length': { type: 'string' },
    'micro-batch-tokens': { type: 'string' },
    ...where,
    json: { type: 'boolean', default: false },
  })
  const [model, ...pairs] = positionals
  if (model === undefined) throw usage('CHECKPOINT is missing')
  if (pairs.length === 0) throw usage('PAIRS is missing')
  if (values.output === undefined) throw usage('--output is missing')
  const whole = (least: number) => (value: number) => Number.isSafeInteger(value) && value >= least
  const { maxContext: __, ...place } = loadOptions(values)
  const options = {
    ...place,
    model,
    pairs,
    output: values.output,
    overwrite: values.overwrite,
    maxLength: optionalNumber('max-length', values['max-length'], whole(2)),
    microBatchTokens: optionalNumber('micro-batch-tokens', values['micro-batch-tokens'], whole(1)),
  }
  const abort = new AbortController()
  let ended: number = exitCode.interrupted
  const stop = (code: number) => () => {
    ended = code
    abort.abort()
  }
  const signals = { SIGINT: stop(exitCode.interrupted), SIGTERM: stop(exitCode.terminated) }
  for (const [name, listener] of Object.entries(signals)) process.once(name, listener)
  try {
    const { logProbabilities } = await import('../preference/logprobs.ts')
    const { pairs: scores, warnings, ...summary } = await logProbabilities({ ...options, signal: abort.signal })
    for (const warning of warnings) stderr.write(`${warningLine(warning)}\n`)
    const { chosen, rejected, chosenMoreLikely, cut, output } = summary
    const line = [
      `${plural(scores.length, 'pair')} in ${output}`,
      `mean log-probability ${chosen.toFixed(3)} chosen, ${rejected.toFixed(3)} rejected`,
      `chosen more likely in ${percent(chosenMoreLikely)}`,
      ...(cut > 0 ? [`${count(cut)} answers cut`] : []),
    ].join('; ')
    stdout.write(values.json ? `${JSON.stringify({ ...summary, pairs: scores.length })}\n` : `${line}\n`)
    return exitCode.ok
  } catch (error) {
    if (!abort.signal.aborted) throw error
    stderr.write('interrupted: nothing was written\n')
    return ended
  } finally {
    for (const [name, listener] of Object.entries(signals)) process.off(name, listener)
  }
}

export const logprobs: Command = { summary: 'score preference pairs for DPO', help, run }
