/** `tunesmith export --merge ADAPTER --output DIR`, which is a part of `export`. */
import type { MergeResult } from '../export/merge.ts'
import { exitCode, readArguments, type Streams, usage } from './command.ts'
import { plural } from './format.ts'
import { warningLine } from './progress-lines.ts'

export const mergeHelp = `usage: tunesmith export --merge ADAPTER --output DIR [options]

Writes base and adapter as one checkpoint that needs the adapter no more. Merges in float32, loads what was written
again, and tells the largest difference of a logit to base and adapter apart.

  --merge ADAPTER   adapter folder in PEFT's format; its adapter_config.json names the base
  --output DIR      folder of the merged checkpoint
  --quantization nf4, --no-double-quantization
                    the base as it was quantised in a QLoRA run: merges into what that leaves of its weights
  --dtype TYPE      float32, float16 or bfloat16 (default: the base's)
  --prompts FILE    prompts to compare on, one per line (default: a built-in handful)
  --device NAME     auto, cpu, cuda or reference (default auto)
  --threads N       default: every core
  --json            the result as one JSON object
`

export async function runMerge(args: string[], { stdout, stderr }: Streams): Promise<number> {
  const { values, positionals } = readArguments(args, {
    merge: { type: 'string' },
    output: { type: 'string' },
    dtype: { type: 'string' },
    quantization: { type: 'string' },
    'no-double-quantization': { type: 'boolean', default: false },
    prompts: { type: 'string' },
    device: { type: 'string', default: 'auto' },
    threads: { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  })
  if (positionals.length > 0) throw usage(`found '${positionals[0]}': the adapter is given with --merge`)
  if (values.merge === undefined) throw usage('--merge is missing')
  if (values.output === undefined) throw usage('--output is missing')
  if (values['no-double-quantization'] && values.quantization === undefined)
    throw usage('--no-double-quantization needs --quantization')
  const threads = Number(values.threads)
  if (!Number.isSafeInteger(threads) || threads < 0) throw usage(`--threads is not valid: '${values.threads}'`)
  const abort = new AbortController()
  const interrupt = () => abort.abort()
  process.once('SIGINT', interrupt)
  try {
    const { mergeAdapter } = await import('../export/merge.ts')
    const { warnings, ...result } = await mergeAdapter({
      adapter: values.merge,
      output: values.output,
      dtype: values.dtype === undefined ? undefined : oneOf('dtype', values.dtype, dtypes),
      prompts: values.prompts,
      quantization:
        values.quantization === undefined ? undefined : oneOf('quantization', values.quantization, quantizations),
      doubleQuantization: !values['no-double-quantization'],
      device: oneOf('device', values.device, devices),
      threads,
      signal: abort.signal,
    })
    for (const warning of warnings) stderr.write(`${warningLine(warning)}\n`)
    stdout.write(values.json ? `${JSON.stringify(result)}\n` : summary(result))
    return exitCode.ok
  } catch (error) {
    if (abort.signal.aborted) return exitCode.interrupted
    throw error
  } finally {
    process.off('SIGINT', interrupt)
  }
}

const dtypes = ['float32', 'float16', 'bfloat16'] as const
const quantizations = ['nf4'] as const
const devices = ['auto', 'cpu', 'cuda', 'reference'] as const

function oneOf<T extends string>(name: string, value: string, values: readonly T[]): T {
  const found = values.find((candidate) => candidate === value)
  if (found === undefined) throw usage(`--${name} is ${values.join(', ')}; found '${value}'`)
  return found
}

function summary({ output, dtype, comparison }: Omit<MergeResult, 'warnings'>): string {
  const { prompts, tokens, largestDifference, largestLogit, changed } = comparison
  return (
    `merged checkpoint (${dtype}) in ${output}\n` +
    `compared with base and adapter apart on ${plural(tokens, 'token')} of ${plural(prompts, 'prompt')}: ` +
    `largest difference of a logit ${largestDifference.toPrecision(3)} (largest logit ${largestLogit.toPrecision(3)}), ` +
    `another most likely token at ${plural(changed, 'position')}\n`
  )
}
