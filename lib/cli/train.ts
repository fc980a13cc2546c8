/** `tunesmith train CONFIG` */
import { type Command, exitCode, onlyPositional, readArguments, type Streams } from './command.ts'
import { loadConfig } from './config.ts'
import { showProgress } from './progress.ts'

const help = `usage: tunesmith train CONFIG [--set key=value]... [--json]

Fine-tunes a model as CONFIG says and writes the checkpoint to its output folder.

  CONFIG            JSON or YAML file with the keys of the Trainer's options; relative paths start at its folder
  --set key=value   overrides one option; dotted keys and YAML values, e.g. --set data.train=more.jsonl
                    --set learningRate=1e-4 --set betas=[0.9,0.95]; an empty value takes the option away;
                    relative paths start at the working directory
  --json            one JSON event per line on stdout: plan, start, prepare, step, eval, sample, checkpoint,
                    warning, end; or aborted, error

Ctrl-C ends the run (exit code 130); a second one ends it without waiting.
`

async function run(args: string[], streams: Streams): Promise<number> {
  const { values, positionals } = readArguments(args, {
    set: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean', default: false },
  })
  const config = loadConfig(onlyPositional(positionals, 'CONFIG'), values.set)
  const abort = new AbortController()
  let ended: number | undefined
  let close = () => {}
  const stop = (code: number) => () => {
    if (ended !== undefined) {
      close()
      process.exit(code)
    }
    ended = code
    abort.abort()
  }
  const signals = { SIGINT: stop(exitCode.interrupted), SIGTERM: stop(exitCode.terminated) }
  for (const [name, listener] of Object.entries(signals)) process.on(name, listener)
  try {
    const { Trainer } = await import('../trainer/trainer.ts')
    const trainer = new Trainer(config)
    close = showProgress(trainer, streams, values.json)
    await trainer.fit({ signal: abort.signal })
    return exitCode.ok
  } catch (error) {
    close()
    const aborted = abort.signal.aborted && error === abort.signal.reason
    if (values.json) {
      const { message, code } = error as NodeJS.ErrnoException
      streams.stdout.write(`${JSON.stringify(aborted ? { event: 'aborted' } : { event: 'error', code, message })}\n`)
    }
    if (!aborted) throw error
    streams.stderr.write('interrupted: no checkpoint was written\n')
    return ended ?? exitCode.interrupted
  } finally {
    close()
    for (const [name, listener] of Object.entries(signals)) process.off(name, listener)
  }
}

export const train: Command = { summary: 'fine-tune a model as a configuration file says', help, run }
