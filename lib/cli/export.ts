/** `tunesmith export CHECKPOINT --format gguf`, and `tunesmith export --merge ADAPTER` */
import type { GgufType } from '../checkpoint/gguf/encode.ts'
import { type Command, exitCode, onlyPositional, readArguments, type Streams, usage } from './command.ts'
import { mergeHelp, runMerge } from './merge.ts'
import { warningLine } from './progress-lines.ts'

const help = `usage: tunesmith export CHECKPOINT --format gguf [options]

Writes a checkpoint as one GGUF file for llama.cpp, Ollama and what is built on them: weights, tokenizer, chat template and
stop tokens. Beside it goes a Modelfile for \`ollama create NAME -f FILE.Modelfile\`.

  CHECKPOINT              Hugging Face folder
  --format gguf           what to write
  --type TYPE             f32, f16, bf16 or q8_0: of the matrices (default f16); vectors stay f32
  --output FILE           the file to write (default: CHECKPOINT/NAME-TYPE.gguf)
  --overwrite             replace the file where it exists
  --no-modelfile          no Modelfile
  --json                  one JSON object at the end: file, bytes, modelfile, warnings

Example: tunesmith export ./assistant --format gguf --type q8_0

${mergeHelp}`

const types = ['f32', 'f16', 'bf16', 'q8_0'] as const satisfies readonly GgufType[]

async function run(args: string[], streams: Streams): Promise<number> {
  if (args.some((arg) => arg === '--merge' || arg.startsWith('--merge='))) return runMerge(args, streams)
  const { stdout, stderr } = streams
  const { values, positionals } = readArguments(args, {
    format: { type: 'string' },
    type: { type: 'string', default: 'f16' },
    output: { type: 'string' },
    overwrite: { type: 'boolean', default: false },
    'no-modelfile': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  })
  const model = onlyPositional(positionals, 'CHECKPOINT')
  if (values.format !== 'gguf')
    throw usage(
      values.format === undefined ? '--format is missing: gguf' : `--format must be gguf; found '${values.format}'`,
    )
  const type = types.find((known) => known === values.type)
  if (type === undefined) throw usage(`--type must be ${types.join(', ')}; found '${values.type}'`)
  const { basename, join, resolve } = await import('node:path')
  const file = values.output ?? join(model, `${basename(resolve(model))}-${type}.gguf`)
  const abort = new AbortController()
  const interrupt = () => abort.abort()
  process.once('SIGINT', interrupt)
  const { exportGguf } = await import('../checkpoint/gguf/export.ts')
  try {
    const { overwrite, 'no-modelfile': without } = values
    const result = await exportGguf({ model, file, type, overwrite, modelfile: !without, signal: abort.signal })
    for (const warning of result.warnings) stderr.write(`${warningLine(warning)}\n`)
    if (values.json) stdout.write(`${JSON.stringify(result)}\n`)
    else stdout.write(`${result.file}: ${(result.bytes / 1e6).toFixed(1)} MB, ${type}\n`)
    if (!values.json && result.modelfile) stdout.write(`${result.modelfile}: for ollama create\n`)
    return exitCode.ok
  } catch (error) {
    if (!abort.signal.aborted) throw error
    return exitCode.interrupted
  } finally {
    process.off('SIGINT', interrupt)
  }
}

export const exportCommand: Command = {
  summary: 'write a checkpoint as GGUF for llama.cpp and Ollama, or merge an adapter into its base',
  help,
  run,
}
